"""python -m tests.support.ask_demo URL GALLERY PID: waits for a demo, searches one of its photos, checks the answer."""

import os
import sys
import time
from pathlib import Path

import httpx

WAIT_S = 600


def main(url: str, gallery: Path, pid: int) -> None:
    """Exits with an error when the demo ends, never gets ready, or does not find a photo that is in its gallery."""
    deadline = time.monotonic() + WAIT_S
    while not _ready(url):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            sys.exit("the demo ended before it was ready; what it said is above")
        if time.monotonic() > deadline:
            sys.exit("the demo was not ready in time")
        time.sleep(0.5)
    photo = min(gallery.rglob("*.jpg"))
    answer = httpx.post(f"{url}/search", files={"file": photo.read_bytes()}).raise_for_status().json()
    if answer["nearest"]["class"] != photo.parent.name or answer["nearest"]["score"] < 0.999:
        sys.exit(f"the demo did not find {photo}: {answer}")


def _ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz").status_code == 200
    except httpx.TransportError:
        return False


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
