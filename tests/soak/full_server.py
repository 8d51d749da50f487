"""A server that has no room for any search: `python -m tests.soak.full_server serve ...`.

Every search is refused, by the very code that refuses one that finds the queue full: what a refusal costs is then
what this server takes.
"""

from typing import Any

from service.cli import main as cli
from service.http.shares import Shares


def no_room(_shares: Shares, _client: str, _amount: int = 1) -> bool:
    """Whoever asks, nothing is free."""
    return False


if __name__ == "__main__":
    full: Any = Shares
    full.room = no_room
    cli.main()
