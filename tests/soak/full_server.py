"""A server that has no room for any search: `python -m tests.soak.full_server serve ...`.

It refuses every search by the code that refuses one when the queue is full, so its CPU time is that of refusals.
"""

from service.cli import main as cli
from service.http.admission import FairShare


def no_room(self: FairShare, client: str, amount: int = 1) -> bool:
    """Nothing is free for anybody."""
    del self, client, amount
    return False


if __name__ == "__main__":
    FairShare.has_room = no_room  # type: ignore[method-assign]
    cli.main()
