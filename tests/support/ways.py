"""A photo as every search takes it: in a form, as the body itself, in base64, and in a batch."""

import base64
import json
from typing import Any, NamedTuple

from service.http.body_limit import IN_JSON
from service.http.limits import Limits
from service.settings import Settings
from tests.support.bodies import FORM, form, multipart, part

WAYS = ("form", "raw", "base64", "batch")
PHOTO_BYTES: int = Settings.model_fields["max_body_bytes"].default
MOST_BYTES = {
    "form": PHOTO_BYTES,
    "raw": PHOTO_BYTES,
    "base64": int(PHOTO_BYTES * IN_JSON),
    "batch": Limits().batch_bytes,
}
"""The largest body of each way, by the defaults."""


class Upload(NamedTuple):
    """A POST: its path, the type of its body, and the body."""

    path: str
    kind: str
    body: bytes

    @property
    def arguments(self) -> dict[str, Any]:
        """Arguments for httpx, without the path."""
        return {"content": self.body, "headers": {"Content-Type": self.kind}}


def upload_by(way: str, photo: bytes, *before: bytes) -> Upload:
    """The upload of a photo in one of `WAYS`; a batch has the photos `before` it too."""
    match way:
        case "raw":
            return Upload("/search", "image/jpeg", photo)
        case "base64":
            return Upload("/search", "application/json", json.dumps({"image": in_base64(photo)}).encode())
        case "batch":
            return Upload("/search/batch", FORM["Content-Type"], multipart(*map(part, (*before, photo))))
    return Upload("/search", FORM["Content-Type"], form(photo))


def in_base64(photo: bytes) -> str:
    """The text of a photo in JSON."""
    return base64.b64encode(photo).decode()


def codes_of(batch: dict[str, Any]) -> list[str]:
    """The code of each entry of a batch's answer, "ok" for a result."""
    return ["ok" if "result" in entry else entry["problem"]["code"] for entry in batch["results"]]
