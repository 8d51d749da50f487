"""Links to the gallery's images, as hits have them.

Where keys are asked for a link is signed, so that a page can show the picture without sending a key. It holds for one
to two hours: until a full hour, so that the same picture has the same link for an hour and browsers keep it.
"""

import hmac
import logging
import math
import re
import secrets
import time
from pathlib import Path
from urllib.parse import parse_qs, quote

from model.errors import SettingsInvalid
from service.settings import PREFIX

log = logging.getLogger("carsearch")

HOUR_S = 3600
MIN_SECRET_BYTES = 16
BEFORE, AFTER = "/gallery/", "/image"
UNSAFE = {"", ".", ".."}
EXPIRES = re.compile(r"[0-9]{1,12}")
SIGNATURE = "sig"
"""The parameter's name; FastAPI's traces leave out the value of one of this name."""


class ImageLinks:
    """Makes links, and knows its own again; without a secret they are not signed."""

    def __init__(self, secret: bytes | None) -> None:
        self._secret = secret

    @property
    def signed(self) -> bool:
        """Whether images are for those who have a key or a link."""
        return self._secret is not None

    def link(self, identity: str, root_path: str = "") -> str:
        """The path of a photo's image; an id is text, so its own percent signs are quoted again."""
        dotted = not UNSAFE.isdisjoint(identity.split("/"))  # clients would resolve these
        path = f"{root_path}{BEFORE}{quote(identity, safe='' if dotted else '/')}{AFTER}"
        if self._secret is None:
            return path
        next_hour = math.ceil(time.time() / HOUR_S)
        expires = str((next_hour + 1) * HOUR_S)
        return f"{path}?expires={expires}&{SIGNATURE}={_signature(self._secret, identity, expires)}"

    def holds(self, path: str, query: bytes) -> bool:
        """Whether a path (without the prefix, decoded) and its query are a link of ours that has not expired."""
        given = {name: values[-1] for name, values in parse_qs(query.decode("latin-1")).items()}
        expires, signature = given.get("expires", ""), given.get(SIGNATURE, "")
        if self._secret is None or not EXPIRES.fullmatch(expires) or not signature.isascii():
            return False
        identity = path.removeprefix(BEFORE).removesuffix(AFTER)
        known = hmac.compare_digest(signature, _signature(self._secret, identity, expires))
        return known and time.time() < int(expires)


def _signature(secret: bytes, identity: str, expires: str) -> str:
    text = f"{expires}\n{identity}"  # the number before the text: no two of these are the same
    return hmac.digest(secret, text.encode("utf-8", "surrogatepass"), "sha256").hex()


def read_secret(path: Path | None) -> bytes:
    """The secret of a file that replicas share, or one of this process; raises SettingsInvalid."""
    if path is None:
        log.warning("links to images hold on this server alone until it stops; %sLINK_SECRET_FILE shares them", PREFIX)
        return secrets.token_bytes(32)
    where = f"{PREFIX}LINK_SECRET_FILE is wrong: {path}"
    try:
        secret = path.read_bytes().strip()
    except OSError as problem:
        raise SettingsInvalid(f"{where} cannot be read: {problem.strerror}.") from problem
    if len(secret) < MIN_SECRET_BYTES:
        raise SettingsInvalid(f"{where} has fewer than {MIN_SECRET_BYTES} bytes; `openssl rand -hex 32` makes some.")
    return secret
