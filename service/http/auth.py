"""Who asks, and whether they may: API keys with their scopes, a rate for each client.

A client is the holder of its key; without keys its address, or the one that a proxy named in the settings vouches for.
"""

import hashlib
import hmac
import ipaddress
import math
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from limits import RateLimitItem, parse_many
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter
from starlette.datastructures import Headers
from starlette.types import Scope

from model.errors import SettingsInvalid
from service.http.errors import Forbidden, RateLimited, Unauthorized
from service.settings import PREFIX, Settings

KeyScope = Literal["search", "admin"]
ADMIN_PATHS = ("/evaluate", "/evaluations")
"""What a key for searches does not open: it costs minutes of the machine, or shows and stops what others began."""

OPEN_PATHS = ("/", "/livez", "/readyz", "/metrics", "/docs", "/openapi.json")
"""What needs no key: probes, scrapes, and what is in the sources anyway."""

OPEN_FOLDERS = ("/static-offline-docs/",)
MIN_KEY_CHARACTERS = 16
LINE = re.compile(r"(?P<key>\S+)\s+(?P<holder>[A-Za-z0-9._-]{1,64})\s+(?P<scope>\S+)")


@dataclass(frozen=True, slots=True)
class Key:
    """Of a key only its hash is kept."""

    sha256: bytes
    holder: str
    scope: KeyScope


class Access:
    """Decides from a request's address and headers alone, so before anything of its body is read."""

    def __init__(self, settings: Settings) -> None:
        """Raises SettingsInvalid for a file of keys or a rate that cannot be used."""
        self._keys = read_keys(settings.keys_file) if settings.keys_file else []
        self._rates = _rates(settings.rate_limit) if settings.rate_limit else []
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage()) if self._rates else None

    def admit(self, scope: Scope) -> str:
        """Who asks, as a name that is the same for all of its requests.

        Raises Unauthorized without a key that is known, Forbidden when its scope is another, RateLimited.
        """
        path = scope["path"]
        if path in OPEN_PATHS or path.startswith(OPEN_FOLDERS):
            return address_of(scope)
        client = self._holder(path, Headers(scope=scope)) if self._keys else address_of(scope)
        if self._limiter is not None:
            self._count(self._limiter, client)
        return client

    def _holder(self, path: str, headers: Headers) -> str:
        # Headers are latin-1: bytes are compared, since compare_digest refuses text that is not ASCII.
        given = headers.get("x-api-key", "")
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if not given and scheme.lower() == "bearer":
            given = token.strip()
        digest = hashlib.sha256(given.encode("latin-1")).digest()
        found = [key for key in self._keys if hmac.compare_digest(key.sha256, digest)]  # all: the time tells nothing
        if not found:
            raise Unauthorized("Send an API key that this server knows, in the header X-API-Key.")
        admin = any(path == one or path.startswith(f"{one}/") for one in ADMIN_PATHS)
        if admin and all(key.scope != "admin" for key in found):
            raise Forbidden("This API key is for searches; evaluations need one of the scope admin.")
        return found[0].holder

    def _count(self, limiter: SlidingWindowCounterRateLimiter, client: str) -> None:
        for rate in self._rates:
            if not limiter.hit(rate, client):
                wait_s = max(1, math.ceil(limiter.get_window_stats(rate, client).reset_time - time.time()))
                raise RateLimited(f"More than {rate} were sent; wait {wait_s} s.", wait_s)


def address_of(scope: Scope) -> str:
    """The address of the peer, or of whom a trusted proxy names; of IPv6 the network (/64), which is one client's."""
    host = str((scope.get("client") or ("", 0))[0])
    if ":" not in host:
        return host if len(host) <= 15 else "unknown"
    try:
        return str(ipaddress.IPv6Network((host.partition("%")[0], 64), strict=False).network_address)
    except ValueError:
        return "unknown"


def read_keys(path: Path) -> list[Key]:
    """The keys of a file whose lines are `KEY HOLDER SCOPE`; raises SettingsInvalid, which never repeats a key."""
    where = f"{PREFIX}KEYS_FILE is wrong: {path}"
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError) as problem:
        reason = problem.strerror if isinstance(problem, OSError) else "it is not ASCII"
        raise SettingsInvalid(f"{where} cannot be read: {reason}.") from problem
    keys = []
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        found = LINE.fullmatch(text)
        if found is None or found["scope"] not in get_args(KeyScope):
            raise SettingsInvalid(f'{where} line {number} is not "KEY HOLDER SCOPE", with the scope search or admin.')
        if len(found["key"]) < MIN_KEY_CHARACTERS:
            raise SettingsInvalid(f"{where} line {number} has a key of fewer than {MIN_KEY_CHARACTERS} characters.")
        scope: KeyScope = "admin" if found["scope"] == "admin" else "search"
        keys.append(Key(hashlib.sha256(found["key"].encode()).digest(), found["holder"], scope))
    if not keys:
        raise SettingsInvalid(f"{where} has no key.")  # an empty file must not open the server to everybody
    return keys


def _rates(text: str) -> list[RateLimitItem]:
    try:
        return list(parse_many(text))
    except ValueError as problem:
        raise SettingsInvalid(
            f'{PREFIX}RATE_LIMIT is wrong: it must be like "20/second" or "20/second;1000/hour".'
        ) from problem
