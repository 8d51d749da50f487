"""Who goes first when there is more to do than the cores can: the event loop, before those it hands work to."""

import os

WORK_NICENESS = 5


def stand_back() -> None:
    """Gives the calling thread, and those that it starts from now on, less of the cores than the event loop.

    The kernel would share them out evenly, and the loop, one thread of many, would refuse ten times as many searches as
    can be answered seconds too late.
    """
    os.nice(WORK_NICENESS)  # on Linux of this thread alone
