"""A server that keeps some bytes of every answer for ever, as many as the variable LEAKED_BYTES says.

`python -m tests.soak.leaking_server serve ...`

The soak has to notice it.
"""

import os

from starlette.types import Receive, Scope, Send

from service.cli import main as cli
from service.http.access_log import AccessLog

VARIABLE = "LEAKED_BYTES"
kept: list[bytes] = []
answer = AccessLog.__call__


async def answer_and_keep(log: AccessLog, scope: Scope, receive: Receive, send: Send) -> None:
    """Answers a request, and leaks."""
    if scope["type"] == "http":
        kept.append(b"x" * int(os.environ[VARIABLE]))
    await answer(log, scope, receive, send)


if __name__ == "__main__":
    AccessLog.__call__ = answer_and_keep  # type: ignore[method-assign, assignment]
    cli.main()
