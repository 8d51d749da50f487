"""API keys and their scopes, and the signed links that open a route without one.

A client is the holder of its key; without keys it is its address, or the address that a trusted proxy gives.
"""

import hashlib
import hmac
import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import get_args

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from model.errors import SettingsInvalid
from service.errors import Forbidden, Unauthorized
from service.http.context import KeyScope, RequestContext, Rules
from service.http.links import ImageLinks
from service.http.proxies import own_path
from service.settings import PREFIX

MIN_KEY_CHARACTERS = 16
LINE = re.compile(r"(?P<key>\S+)\s+(?P<holder>[A-Za-z0-9._-]{1,64})\s+(?P<scope>\S+)")


@dataclass(frozen=True, slots=True)
class Key:
    """An API key, of which only the hash is kept."""

    sha256: bytes
    holder: str
    scope: KeyScope


class Auth:
    """Middleware that names the client of a request, and asks for a key where the route's rules want one."""

    def __init__(self, app: ASGIApp, keys: Sequence[Key], links: ImageLinks) -> None:
        self._app, self._keys, self._links = app, keys, links

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            context: RequestContext = scope["context"]
            rules = context.route.rules
            if rules.writes and context.method in context.route.methods:
                self._refuse_to_write(scope)
            asked = bool(self._keys) and rules.key_scope is not None and not self._is_link(rules, scope)
            context.client = self._holder(rules, scope) if asked else address_of(scope)
        await self._app(scope, receive, send)

    def _refuse_to_write(self, scope: Scope) -> None:
        """Raises Forbidden on a server without keys, and for a page of another origin, whatever key it has."""
        if not self._keys:
            raise Forbidden(f"Nobody may change the gallery of a server without keys; {PREFIX}KEYS_FILE names them.")
        headers = Headers(scope=scope)
        own = f"{scope['scheme']}://{headers.get('host', '')}".lower()
        # Browsers say themselves what is one origin; a proxy that ends TLS further out hides that of the page.
        if headers.get("sec-fetch-site") != "same-origin" and headers.get("origin", own) != own:
            raise Forbidden("A page of another origin may not change the gallery.")

    def _is_link(self, rules: Rules, scope: Scope) -> bool:
        return (
            rules.linked
            and scope["method"] in ("GET", "HEAD")
            and self._links.holds(own_path(scope), scope["query_string"])
        )

    def _holder(self, rules: Rules, scope: Scope) -> str:
        """The holder of the request's key; raises Unauthorized without a known key, Forbidden for another scope."""
        headers = Headers(scope=scope)
        # Headers are latin-1: bytes are compared, since compare_digest refuses text that is not ASCII.
        given = headers.get("x-api-key", "")
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if not given and scheme.lower() == "bearer":
            given = token.strip()
        digest = hashlib.sha256(given.encode("latin-1")).digest()
        found = [key for key in self._keys if hmac.compare_digest(key.sha256, digest)]  # all: the time tells nothing
        if not found and rules.linked and b"sig=" in scope["query_string"]:
            raise Unauthorized("The link has expired or was changed; search again, or send an API key.")
        if not found:
            raise Unauthorized("Send an API key that this server knows, in the header X-API-Key.")
        context: RequestContext = scope["context"]
        context.admin = any(key.scope == "admin" for key in found)
        if rules.key_scope == "admin" and not context.admin:
            raise Forbidden("This API key is for searches; this needs one of the scope admin.")
        return found[0].holder


def address_of(scope: Scope) -> str:
    """The client's address; of IPv6 its network (/64), which is one client's."""
    return _network_of(str((scope.get("client") or ("", 0))[0]))


@lru_cache(4096)
def _network_of(host: str) -> str:
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return "unknown"
    address = getattr(address, "ipv4_mapped", None) or address  # a proxy's IPv6 socket writes IPv4 so
    return str(address if address.version == 4 else ipaddress.ip_network((address, 64), strict=False).network_address)


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
