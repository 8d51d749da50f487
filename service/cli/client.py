"""The client of a running server, for `carsearch search --url`."""

from collections.abc import Sequence
from typing import Any

import httpx

from model.errors import ServerRefused, ServerUnreachable

TIMEOUT_S = 30.0


def search(url: str, data: bytes, k: int, classes: Sequence[str]) -> dict[str, Any]:
    """POST /search; returns the answer as the server gave it.

    Raises ServerRefused with the server's own code and sentence, ServerUnreachable when there is no such server.
    """
    query = {"k": str(k), "class": list(classes)}
    try:
        response = httpx.post(
            f"{url.rstrip('/')}/search", params=query, files={"file": ("photo", data)}, timeout=TIMEOUT_S
        )
        body: Any = response.json()
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as problem:
        raise ServerUnreachable(f"{url} gave no answer that can be read: {problem}.") from problem
    if not isinstance(body, dict) or (response.is_success and "results" not in body):
        raise ServerUnreachable(f"{url} answers, but not as a carsearch server.")
    if response.is_success:
        return body
    raise ServerRefused(str(body.get("code", "internal")), str(body.get("detail", f"status {response.status_code}")))
