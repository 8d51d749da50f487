"""API keys and their scopes, the name of a client, and the file of keys."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.errors import CarsearchError, SettingsInvalid
from service.errors import Forbidden, Unauthorized
from service.http.auth import Auth, Key, address_of, read_keys
from service.http.context import KeyScope, RequestContext
from service.http.links import ImageLinks
from tests.support.asgi import discard, receive_parts, scope_of

SEARCHER, ADMIN = "searcher-0123456789", "admin-0123456789abc"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> list[Key]:
    file: Path = tmp_path_factory.mktemp("keys") / "keys"
    file.write_text(f"# who may\n\n{SEARCHER} dealer search\n  {ADMIN}\toperator  admin\n")
    return read_keys(file)


def client_of(keys: list[Key], key_scope: KeyScope | None, **headers: str) -> str:
    """The client that a request is taken for."""
    scope = scope_of(key_scope, headers={name.replace("_", "-"): value for name, value in headers.items()})

    async def app(_scope: Any, _receive: Any, _send: Any) -> None:
        pass

    asyncio.run(Auth(app, keys, ImageLinks(None))(scope, receive_parts(b""), discard))
    context: RequestContext = scope["context"]
    return context.client


def test_a_key_names_its_holder_in_either_header(keys: list[Key]) -> None:
    assert client_of(keys, "search", x_api_key=SEARCHER) == "dealer"
    assert client_of(keys, "search", authorization=f"Bearer {SEARCHER}") == "dealer"
    assert client_of(keys, "admin", x_api_key=ADMIN) == "operator"
    assert client_of(keys, "search", x_api_key=ADMIN) == "operator"


@pytest.mark.parametrize("key", ["", SEARCHER[:-1], f"{SEARCHER} ", "caf\xe9", "\x00", "x" * 1_000_000, ADMIN.upper()])
def test_any_other_key_is_refused_and_not_repeated(keys: list[Key], key: str) -> None:
    with pytest.raises(Unauthorized) as refused:
        client_of(keys, "search", x_api_key=key)
    assert not key.strip() or key not in str(refused.value)


def test_a_route_for_admins_refuses_a_key_for_searches(keys: list[Key]) -> None:
    with pytest.raises(Forbidden):
        client_of(keys, "admin", x_api_key=SEARCHER)


def test_a_route_that_asks_for_no_key_names_the_address(keys: list[Key]) -> None:
    assert client_of(keys, None) == "10.0.0.1"
    assert client_of(keys, None, x_api_key="not-a-key-of-this-server") == "10.0.0.1"


def test_without_keys_every_route_is_open_and_clients_are_addresses() -> None:
    assert client_of([], "admin") == "10.0.0.1"


@settings(max_examples=200, deadline=None)
@given(header=st.sampled_from(["x_api_key", "authorization"]), value=st.text(st.characters(max_codepoint=255)))
def test_any_header_is_refused_in_one_of_our_errors(keys: list[Key], header: str, value: str) -> None:
    with pytest.raises(CarsearchError):
        client_of(keys, "search", **{header: value})


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "has no key"),
        ("# only a comment\n", "has no key"),
        (f"{SEARCHER} dealer\n", 'line 1 is not "KEY HOLDER SCOPE"'),
        (f"\n{SEARCHER} dealer owner\n", 'line 2 is not "KEY HOLDER SCOPE"'),
        (f"{SEARCHER} a/b search\n", 'line 1 is not "KEY HOLDER SCOPE"'),
        ("short dealer search\n", "line 1 has a key of fewer than 16 characters"),
        ("ключ-0123456789abcdef dealer search\n", "it is not ASCII"),
    ],
)
def test_a_file_of_keys_that_cannot_be_used_is_told_without_a_key(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "keys").write_text(text, encoding="utf-8")
    with pytest.raises(SettingsInvalid, match=why) as refused:
        read_keys(tmp_path / "keys")
    assert SEARCHER not in str(refused.value)


def test_a_file_of_keys_that_is_not_there_does_not_open_the_server(tmp_path: Path) -> None:
    with pytest.raises(SettingsInvalid, match=r"CARSEARCH_KEYS_FILE is wrong: .* cannot be read: No such file"):
        read_keys(tmp_path / "none")


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::"),
        ("fe80::1%eth0", "fe80::"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("rubbish:rubbish", "unknown"),
        ("x" * 4000, "unknown"),
    ],
)
def test_an_address_is_one_client_and_of_ipv6_a_network(host: str, name: str) -> None:
    assert address_of({"type": "http", "client": (host, 1)}) == name


def test_a_socket_without_addresses_is_one_client() -> None:
    assert address_of({"type": "http", "client": None}) == "unknown"
