"""How many uploads are read in one turn of the event loop: who is refused, or probes, waits for the end of the turn."""

import asyncio
import heapq

READ_IN_A_TURN = 8
"""Each of these reads brings up to 256 KiB (uvloop's buffer), about a millisecond to receive and to parse."""


class Turns:
    """Lets so many read in a turn, and of those that wait the oldest upload first; of one event loop.

    Who is let in and finds that nothing has come keeps nobody out: the next turn begins without it.
    """

    def __init__(self) -> None:
        self._left = READ_IN_A_TURN
        self._let_in = 0
        """Who reads in the next turn: what wakes in one turn goes on in the next."""
        self._waiting: list[tuple[float, int, asyncio.Future[None]]] = []
        self._asked = 0
        self._ends = False

    @property
    def crowded(self) -> bool:
        """Whether some wait for another turn."""
        return bool(self._waiting)

    async def wait(self, since: float) -> None:
        """Returns when an upload that began at `since` may read once."""
        self._end_turn()
        if self._left > 0 and not self._waiting:
            self._left -= 1
            return
        self._asked += 1  # decides between those of one moment
        turn_comes = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (since, self._asked, turn_comes))
        await turn_comes

    def _end_turn(self) -> None:
        if not self._ends:
            self._ends = True
            asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        self._ends = False
        self._left, self._let_in = READ_IN_A_TURN - self._let_in, 0
        while self._waiting and self._let_in < READ_IN_A_TURN:
            _, _, turn_comes = heapq.heappop(self._waiting)
            if not turn_comes.done():  # else its deadline has passed
                turn_comes.set_result(None)
                self._let_in += 1
        if self._let_in or self._left < READ_IN_A_TURN:
            self._end_turn()
