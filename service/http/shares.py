"""A bounded resource that many clients share: whoever takes much leaves room for those who take little.

A client may hold no more than `ALPHA` times what is still free (Choudhury and Hahne, "Dynamic queue length thresholds
for shared-memory packet switches", 1998). Alone it gets ALPHA / (ALPHA + 1) of everything, n greedy ones get equal
parts, and something is always free for the next.
"""

from collections import Counter

from starlette.types import Scope

ALPHA = 8


class Shares:
    """How much of `limit` is taken and by whom; for one thread."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.taken = 0
        self.promised = 0
        """Of what is free: somebody is about to take it."""
        self._of: Counter[str] = Counter()

    def room(self, client: str, amount: int = 1) -> bool:
        """Whether a client may take so much more."""
        free = self.limit - self.taken - self.promised
        return amount <= free and self._of.get(client, 0) < ALPHA * free

    def redeem(self, scope: Scope) -> None:
        """Ends the promise that a request has been given, if it has one."""
        if scope.pop("promised", False):
            self.promised -= 1

    def take(self, client: str, amount: int = 1) -> None:
        self.taken += amount
        self._of[client] += amount

    def give_back(self, client: str, amount: int = 1) -> None:
        self.taken -= amount
        self._of[client] -= amount
        if not self._of[client]:
            del self._of[client]  # a client that has left is forgotten
