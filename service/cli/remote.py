"""Searches that a running server answers, for `carsearch search --url`.

httpx2 is httpx as it is maintained now. The standard library's client would need as much again for forms, kept
connections and reasons of failures that people can read.
"""

import re
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.request import getproxies, proxy_bypass

import httpx2

from model.dataset import Photo, Skipped
from model.errors import FileUnreadable, ImageRejected
from service.cli.search_many import Answered
from service.errors import PayloadTooLarge, ServerRefused, ServerUnusable

TIMEOUT_S: float = 30
TRIES = 5
LONGEST_WAIT_S = 30
HIT = ("rank", "id", "class", "score", "metadata")
OF_A_PHOTO = frozenset({PayloadTooLarge.code, *(kind.code for kind in ImageRejected.__subclasses__())})
"""Codes of answers that are about one photo; after any other, the next photo would get the same."""


def connect(url: str, key: str | None, asked: Mapping[str, Any]) -> httpx2.Client:
    """A client of the server at an address, with the environment's proxy and certificates.

    `asked` are the query parameters of its searches; None is left out. Raises ServerUnusable.
    """
    if key and not re.fullmatch("[!-~]+", key):
        raise ServerUnusable("The key of --key or CARSEARCH_KEY has a character that no key has.")
    try:
        address = httpx2.URL(url)
    except httpx2.InvalidURL:
        address = httpx2.URL()
    if address.scheme not in ("http", "https") or not address.host:
        raise ServerUnusable(f"{url} is no address of a server, as http://127.0.0.1:8000 is.")
    try:
        certificates = httpx2.create_ssl_context()
    except OSError as problem:
        raise ServerUnusable(f"SSL_CERT_FILE names no file of certificates: {problem.strerror}.") from problem
    proxy = _proxy_variables(address)
    try:
        return httpx2.Client(
            base_url=address,
            headers={"X-API-Key": key} if key else None,
            params={name: value for name, value in asked.items() if value is not None},
            verify=certificates,
            timeout=TIMEOUT_S,
            trust_env=bool(proxy),  # httpx2 makes a client of every proxy, also of one that NO_PROXY rules out
        )
    except ImportError as problem:
        hint = 'install it with: pip install "httpx2[socks]", or name the server in NO_PROXY'
        raise ServerUnusable(f"{proxy} names a SOCKS proxy, which needs a package; {hint}.") from problem
    except (ValueError, httpx2.InvalidURL) as problem:
        raise ServerUnusable(f"{proxy} names a proxy that cannot be used: {problem}.") from problem


def _proxy_variables(url: httpx2.URL) -> str:
    """The environment's variables that name a proxy for an address, as text; empty where it is asked directly."""
    if proxy_bypass(url.host):
        return ""
    return " or ".join(f"{scheme.upper()}_PROXY" for scheme in (url.scheme, "all") if getproxies().get(scheme))


def search_one(client: httpx2.Client, photo: bytes) -> dict[str, Any]:
    """What the server finds for a photo, in the shape that a search of an index on this machine prints.

    A server that is busy or not ready is asked again when it says. Raises ServerUnusable and ServerRefused.
    """
    for tried in range(1, TRIES + 1):
        response = _post(client, photo)
        after = response.headers.get("Retry-After")
        if after is None or tried == TRIES:
            break
        time.sleep(min(int(after), LONGEST_WAIT_S) if after.isdecimal() else 1)
    return _read(response)


def search_each(client: httpx2.Client, photos: Iterable[Photo]) -> Iterator[Answered]:
    """Id and answer of each photo, in order, or why it cannot be read; raises as `search_one`."""
    for photo in photos:
        try:
            yield photo.id, search_one(client, photo.read())
        except FileUnreadable as problem:
            yield photo.id, Skipped.because(photo.id, problem)
        except ServerRefused as refused:
            if refused.told_code not in OF_A_PHOTO:
                raise
            yield photo.id, Skipped(photo.id, refused.told_code, refused.told)


def _post(client: httpx2.Client, photo: bytes) -> httpx2.Response:
    try:
        return client.post("search", files={"file": ("photo", photo)})
    except httpx2.TimeoutException as problem:
        raise ServerUnusable(f"{_name(client.base_url)} did not answer within {TIMEOUT_S} s.") from problem
    except (httpx2.HTTPError, OverflowError, UnicodeError) as problem:  # the last two of ports and of names of hosts
        proxy = _proxy_variables(client.base_url)
        by = f" through the proxy of {proxy}" if proxy else ""
        hint = "; SSL_CERT_FILE may name certificates to trust" if "CERTIFICATE_VERIFY" in str(problem) else ""
        reason = str(problem).rpartition("] ")[2].rstrip(".")  # without "[Errno 111]"
        raise ServerUnusable(f"{_name(client.base_url)} cannot be asked{by}: {reason}{hint}.") from problem


def _name(url: httpx2.URL) -> str:
    """Scheme, host and port, without the password that an address may have."""
    return f"{url.scheme}://{url.netloc.decode('ascii')}"


def _read(response: httpx2.Response) -> dict[str, Any]:
    """The answer in a response; raises ServerRefused for a problem, ServerUnusable for anything else."""
    server = _name(response.url)
    if response.has_redirect_location:
        raise ServerUnusable(f"{server} leads to {response.headers['Location']}; give --url the address that answers.")
    if response.status_code == httpx2.codes.UNAUTHORIZED:
        raise ServerUnusable(f"{server} asks for a key that it knows: give it with --key, or in CARSEARCH_KEY.")
    try:
        told = response.json()
        if not response.is_success:
            raise ServerRefused(told["code"], told["detail"])
        hits = [{name: hit[name] for name in HIT} for hit in told["results"]]
        found = {"nearest": hits[0] if hits else None, "results": hits}
        return {**found, "decision": told["decision"], "versions": told["versions"]}
    except (KeyError, TypeError, ValueError) as problem:
        raise ServerUnusable(f"{server} answers with status {response.status_code}, but not as carsearch.") from problem
