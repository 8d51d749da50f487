"""A server that keeps some bytes of every answer for ever, as many as the variable LEAKED_BYTES says.

`python -m tests.soak.leaking_server serve ...`

The soak has to notice it.
"""

import os
from typing import Any

from service.cli import main as cli
from service.http.access_log import Answer

VARIABLE = "LEAKED_BYTES"
kept: list[bytes] = []
count: Any = Answer._count


def count_and_keep(answer: Answer, status: int) -> None:
    """Counts an answer, and leaks."""
    kept.append(b"x" * int(os.environ[VARIABLE]))
    count(answer, status)


if __name__ == "__main__":
    leaking: Any = Answer
    leaking._count = count_and_keep
    cli.main()
