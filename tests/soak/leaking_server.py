"""A server that keeps some bytes of every request for ever, as many as the variable LEAKED_BYTES says.

`python -m tests.soak.leaking_server serve ...`

The soak has to notice it.
"""

import os

from starlette.types import Receive, Scope, Send

from service.cli import main as cli
from service.http import app
from service.http.access_log import AccessLog

VARIABLE = "LEAKED_BYTES"
kept: list[bytes] = []


class LeakingAccessLog(AccessLog):
    """Logs a request, and leaks."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kept.append(b"x" * int(os.environ[VARIABLE]))
        await super().__call__(scope, receive, send)


if __name__ == "__main__":
    setattr(app, "AccessLog", LeakingAccessLog)  # noqa: B010  # app imports the name and does not export it
    cli.main()
