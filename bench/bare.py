"""python -m bench.bare --answer-bytes N --port N: reads an upload and answers JSON of a fixed size.

It measures the cost of HTTP itself on this machine, in uvicorn with httptools and uvloop.
"""

import argparse
from collections.abc import Awaitable, Callable
from typing import Any

import uvicorn

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


def create_app(answer_bytes: int) -> Callable[[dict[str, Any], Receive, Send], Awaitable[None]]:
    """An ASGI application whose every answer has so many bytes."""
    answer = b'"' + b"x" * (answer_bytes - 2) + b'"'
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(answer)).encode())]

    async def app(_scope: dict[str, Any], receive: Receive, send: Send) -> None:
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    return app


def main() -> None:
    """Command line; see the module."""
    parser = argparse.ArgumentParser(prog="python -m bench.bare")
    parser.add_argument("--answer-bytes", type=int, required=True)
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    app = create_app(options.answer_bytes)
    settings: dict[str, Any] = {"lifespan": "off", "access_log": False, "log_level": "warning"}
    uvicorn.run(app, port=options.port, http="httptools", loop="uvloop", **settings)


if __name__ == "__main__":
    main()
