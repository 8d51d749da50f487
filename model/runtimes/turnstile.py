"""A lock that is fair: `threading.Lock` lets whoever is quickest in again, and that is the thread that just left."""

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager


class Turnstile:
    """Lets one thread at a time through, in the order in which they came."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._queue: deque[object] = deque()  # the first is inside, the others wait

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Waits for one's turn and holds it for the block."""
        ticket = object()
        try:
            with self._changed:
                self._queue.append(ticket)
                self._changed.wait_for(lambda: self._queue[0] is ticket)
            yield
        finally:  # also when the wait was interrupted: a ticket of nobody would stop everybody behind it
            with self._changed:
                if ticket in self._queue:
                    self._queue.remove(ticket)
                self._changed.notify_all()
