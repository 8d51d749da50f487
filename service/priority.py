"""Who goes first when there is more to do than the cores can: the event loop, before those it hands work to."""

import os
import sys

WORK_NICENESS = 5
"""A third of the loop's weight. With less the loop would refuse sooner, but every other process of the machine would
leave the work next to nothing too: at 19, beside one busy process, a start took half a minute."""

SWITCH_S = 0.0001
"""How long a thread of Python may go on while another one waits for the interpreter; 50 times as long by default."""


def loop_waits_shortly() -> None:
    """For this process: the event loop needs the interpreter thousands of times a second, each time for a moment."""
    sys.setswitchinterval(SWITCH_S)


def stand_back() -> None:
    """Gives the calling thread, and those that it starts from now on, what the event loop leaves of the cores.

    The kernel would share them out evenly, and the loop, one thread of many, would refuse ten times as many searches as
    can be answered seconds too late.
    """
    os.nice(WORK_NICENESS)  # on Linux of this thread alone
