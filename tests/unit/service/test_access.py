"""Who asks: keys, addresses, and the files and rates that operators write."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.errors import CarsearchError, SettingsInvalid
from service.http.auth import Access, address_of, read_keys
from service.http.errors import Forbidden, RateLimited, Unauthorized
from service.settings import load_settings

SEARCHER, ADMIN = "searcher-0123456789", "admin-0123456789abc"


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    file = tmp_path / "keys"
    file.write_text(f"# who may\n\n{SEARCHER} dealer search\n  {ADMIN}\toperator  admin\n")
    return file


def scope_of(path: str = "/search", host: str = "10.1.2.3") -> dict[str, object]:
    return {"type": "http", "path": path, "client": (host, 1)}


def ask(access: Access, path: str, **headers: str) -> str:
    raw = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()]
    return access.admit({**scope_of(path), "headers": raw})


def test_a_key_names_its_holder_in_either_header(keys: Path) -> None:
    access = Access(load_settings(keys_file=keys))
    assert ask(access, "/search", x_api_key=SEARCHER) == "dealer"
    assert ask(access, "/search", authorization=f"Bearer {SEARCHER}") == "dealer"
    assert ask(access, "/evaluate", x_api_key=ADMIN) == "operator"


@pytest.mark.parametrize("key", ["", SEARCHER[:-1], f"{SEARCHER} ", "caf\xe9", "\x00", "x" * 1_000_000, ADMIN.upper()])
def test_any_other_key_is_refused_and_not_repeated(keys: Path, key: str) -> None:
    with pytest.raises(Unauthorized) as refused:
        ask(Access(load_settings(keys_file=keys)), "/search", x_api_key=key)
    assert not key.strip() or key not in str(refused.value)


@pytest.mark.parametrize("path", ["/evaluate", "/evaluate/", "/evaluations/0", "/evaluations/0/"])
def test_evaluations_are_for_the_scope_admin(keys: Path, path: str) -> None:
    with pytest.raises(Forbidden):
        ask(Access(load_settings(keys_file=keys)), path, x_api_key=SEARCHER)


@pytest.mark.parametrize(
    "path", ["/livez", "/readyz", "/metrics", "/docs", "/openapi.json", "/static-offline-docs/a.js"]
)
def test_probes_and_documents_need_no_key(keys: Path, path: str) -> None:
    assert ask(Access(load_settings(keys_file=keys)), path) == "10.1.2.3"


@settings(max_examples=200, deadline=None)
@given(header=st.sampled_from(["x_api_key", "authorization"]), value=st.text(st.characters(max_codepoint=255)))
def test_any_header_is_refused_in_one_of_our_errors(
    tmp_path_factory: pytest.TempPathFactory, header: str, value: str
) -> None:
    file = tmp_path_factory.getbasetemp() / "any-header-keys"
    file.write_text(f"{SEARCHER} dealer search\n")
    with pytest.raises(CarsearchError):
        ask(Access(load_settings(keys_file=file)), "/search", **{header: value})


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
        Access(load_settings(keys_file=tmp_path / "none"))


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::"),
        ("fe80::1%eth0", "fe80::"),
        ("rubbish:rubbish", "unknown"),
        ("x" * 4000, "unknown"),
    ],
)
def test_an_address_is_one_client_and_of_ipv6_a_network(host: str, name: str) -> None:
    assert address_of(scope_of(host=host)) == name


def test_a_socket_without_addresses_is_one_client() -> None:
    assert address_of({"type": "http", "client": None}) == ""


def test_a_rate_is_counted_for_each_client_by_itself() -> None:
    access = Access(load_settings(rate_limit="3/hour"))
    for host in ("10.0.0.1", "10.0.0.2"):
        for _ in range(3):
            access.admit(scope_of(host=host))
        with pytest.raises(RateLimited, match=r"^More than 3 per 1 hour were sent; wait \d+ s\.$") as refused:
            access.admit(scope_of(host=host))
        assert 1 <= refused.value.retry_after_s <= 3600


def test_probes_are_not_counted() -> None:
    access = Access(load_settings(rate_limit="1/hour"))
    for _ in range(5):
        access.admit(scope_of("/readyz"))
    access.admit(scope_of())


@pytest.mark.parametrize("rate", ["many", "20", "20/fortnight", ""])
def test_a_rate_that_says_nothing_is_refused(rate: str) -> None:
    if rate:
        with pytest.raises(SettingsInvalid, match="CARSEARCH_RATE_LIMIT is wrong"):
            Access(load_settings(rate_limit=rate))
    else:
        Access(load_settings(rate_limit=rate))
