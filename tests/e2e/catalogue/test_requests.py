"""Cases 048 to 080 of the catalogue: HTTP and forms that are wrong, too large, or meant to mislead."""

import base64
import json
import re
from typing import Any

import pytest

from tests.e2e.catalogue.pictures import PHOTO, QUERY, png
from tests.e2e.catalogue.standing import Standing, eventually_at_most
from tests.support.bodies import BOUNDARY, FORM, form, multipart, part
from tests.support.connections import answer, connect, head

SECRET = "tell-nobody-4711"  # noqa: S105  # it stands in what is sent and must not stand in what comes back
DATA = png(PHOTO)
FILE = {"file": ("car.png", DATA)}
NOISE = SECRET.encode() + bytes(range(256))
JSON = {"Content-Type": "application/json"}
MIB = 1 << 20


def many_headers(number: int) -> bytes:
    lines = b"".join(b"X-%d: 1\r\n" % one for one in range(number))
    return b"--" + BOUNDARY.encode() + b"\r\n" + lines + part(DATA) + b"\r\n--" + BOUNDARY.encode() + b"--\r\n"


def long_header(length: int) -> bytes:
    return multipart(b"X-Long: " + b"x" * length + b"\r\n" + part(DATA))


FORMS: list[tuple[str, str, str, bytes, dict[str, str]]] = [
    ("048", "no part", "missing_file", multipart(), FORM),
    ("049", "another name", "missing_file", form(DATA, "photo"), FORM),
    ("050", "two files", "multiple_files", multipart(part(DATA), part(DATA)), FORM),
    ("051", "a field and no file", "unsupported_image_format", multipart(part(NOISE, "file", None)), FORM),
    ("052", "JSON", "unknown_parameter", json.dumps({"file": SECRET}).encode(), JSON),
    ("052", "a bare photo", "ok", DATA, {"Content-Type": "image/png"}),
    ("052", "base64", "ok", json.dumps({"image": base64.b64encode(DATA).decode()}).encode(), JSON),
    ("052", "10 MB of brackets", "malformed_json", b'{"image":' + b"[" * 10 * MIB, JSON),
    ("052", "10 MB of text for base64", "invalid_request", b'{"image":"' + b"A" * 10 * MIB + b'!"}', JSON),
    ("053", "no boundary", "malformed_multipart", form(NOISE), {"Content-Type": "multipart/form-data"}),
    ("053", "10 KB of boundary", "malformed_multipart", NOISE, {"Content-Type": FORM["Content-Type"] + "x" * 10_000}),
    ("053", "never closed", "malformed_multipart", multipart(part(DATA), closed=False), FORM),
    ("054", "1,001 fields", "unknown_parameter", multipart(*[part(b"1", "n", None)] * 1001), FORM),
    ("054", "1,001 files that nobody asked for", "malformed_multipart", multipart(*[part(b"1", "n")] * 1001), FORM),
    ("054", "1,001 files", "multiple_files", multipart(*[part(b"1")] * 1001), FORM),
    ("054", "100,000 headers of a part", "malformed_multipart", many_headers(100_000), FORM),
    ("054", "a header of 1 MB", "malformed_multipart", long_header(MIB), FORM),
    ("055", "9 MB before the first boundary", "ok", b"\r\n" * (9 * MIB // 2) + form(DATA), FORM),
    ("055", "9 MB after the last", "ok", form(DATA) + b"\r\n" * (9 * MIB // 2), FORM),
    (
        "056",
        "a million fields in the address's notation",
        "unsupported_content_type",
        b"a=1&" * 1_000_000,
        {"Content-Type": "application/x-www-form-urlencoded"},
    ),
]


@pytest.mark.parametrize("case", FORMS, ids=lambda case: f"{case[0]} {case[1]}")
def test_a_form_is_understood_or_refused_and_never_repeated(
    standing: Standing, case: tuple[str, str, str, bytes, dict[str, str]]
) -> None:
    _, _, code, content, headers = case
    with standing.case(code, SECRET) as send:
        send(content=content, headers=headers)


def test_052_bytes_for_a_route_of_json_are_malformed(standing: Standing) -> None:
    with standing.case("malformed_json", SECRET) as send:
        send("/evaluate", content=b"\xff\xfe" + NOISE, headers=JSON)


@pytest.mark.parametrize(
    "k", ["0", "-1", "1.5", "abc", "NaN", "1e9", str(2**63), "", "101"], ids=lambda k: f"069 k={k}"
)
def test_a_k_that_is_none(standing: Standing, k: str) -> None:
    with standing.case("invalid_k") as send:
        send(params={"k": k}, files=FILE)


def test_070_more_than_the_gallery_has_are_all_it_has(standing: Standing) -> None:
    with standing.case("ok") as send:
        answered = send(params={"k": 100, "class": "plain"}, files=FILE).json()
    assert [hit["id"] for hit in answered["results"]] == ["plain/plain.png"]
    assert answered["results"][0]["score"] <= 1


def test_071_parameters_that_nobody_knows_are_refused(standing: Standing) -> None:
    with standing.case("unknown_parameter", SECRET) as send:
        send(params={"k": 1, "top_k": SECRET}, files=FILE)


ADDRESSES = [
    ("072", "POST", "/nothing", "not_found"),
    ("072", "POST", "/%2e%2e/%2e%2e/etc/passwd", "not_found"),
    ("072", "POST", "/search%00", "not_found"),
    ("072", "GET", "/search", "method_not_allowed"),
    ("072", "DELETE", "/search", "method_not_allowed"),
    ("072", "GET", "/" + "x" * 20_000, "not_found"),
    ("075", "GET", "/gallery/../../etc/passwd/image", "not_found"),
    ("075", "GET", "/gallery/%2e%2e%2f%2e%2e%2fetc%2fpasswd/image", "unknown_item"),
    ("075", "GET", "/gallery/%2Fetc%2Fpasswd/image", "unknown_item"),
    ("075", "GET", "/gallery/plain%00/image", "unknown_item"),
    ("151", "POST", "/evaluate", "unknown_dataset"),
]


@pytest.mark.parametrize(("number", "method", "path", "code"), ADDRESSES, ids=lambda value: str(value)[:30])
def test_an_address_that_leads_nowhere(standing: Standing, number: str, method: str, path: str, code: str) -> None:
    arguments: dict[str, Any] = {"json": {"dataset": "../.."}} if number == "151" else {}
    with standing.case(code, "etc/passwd") as send:
        send(path, method, **arguments)


def test_072_an_address_of_64_kb_is_refused_by_the_parser(standing: Standing) -> None:
    with connect(standing.server) as connection:
        connection.sendall(b"GET /" + b"x" * 65_536 + b" HTTP/1.1\r\nHost: x\r\n\r\n")
        assert answer(connection)[0] == 400
    standing.assert_stands()


def test_073_any_number_of_unknown_addresses_makes_no_new_series(standing: Standing) -> None:
    standing.server.client.get("/nothing")
    before = len(standing.server.client.get("/metrics").text.splitlines())
    for number in range(1000):
        assert standing.server.client.get(f"/nothing/{number}?{number}").status_code == 404
    assert len(standing.server.client.get("/metrics").text.splitlines()) == before
    standing.assert_stands()


def test_074_ten_thousand_ranges_are_one_answer(standing: Standing) -> None:
    ranges = ",".join(f"{one}-{one}" for one in range(3000))
    with standing.case("ok") as send:
        send("/gallery/plain/plain.png/image", "GET", headers={"Range": f"bytes={ranges}"})


def test_076_what_a_client_says_of_hosts_changes_nothing(standing: Standing) -> None:
    headers = {"Host": "evil.example", "X-Forwarded-For": SECRET, "X-Forwarded-Host": SECRET, "Forwarded": SECRET}
    with standing.case("ok", SECRET) as send:
        answered = send(files=FILE, headers=headers)
    assert "evil.example" not in answered.text


def test_077_no_other_origin_is_let_in(standing: Standing) -> None:
    asking = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    with standing.case("method_not_allowed") as send:
        response = send("/search", "OPTIONS", headers=asking)
    assert not [name for name in response.headers if name.lower().startswith("access-control")]


@pytest.mark.parametrize("lines", [["Content-Length: -1"], ["Content-Length: x"], ["Content-Length: 5"] * 2,
    ["Content-Length: 5", "Transfer-Encoding: chunked"]], ids=lambda lines: f"059 {', '.join(lines)}")  # fmt: skip
def test_lengths_that_contradict_each_other_end_the_connection(standing: Standing, lines: list[str]) -> None:
    with connect(standing.server) as connection:
        connection.sendall(head(*lines) + b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        status, _ = answer(connection)
        assert status in (400, 413)
        assert connection.recv(1) == b""
    standing.assert_stands()


def test_057_an_upload_of_100_mb_is_refused_before_it_is_read(standing: Standing) -> None:
    with connect(standing.server) as connection:
        connection.sendall(head("Content-Length: 100000000", f"X-Request-Id: {SECRET}"))
        status, body = answer(connection)
        assert (status, json.loads(body)["code"]) == (413, "payload_too_large")
    standing.assert_stands()


def test_058_an_upload_of_100_mb_in_chunks_is_cut_off_at_the_limit(standing: Standing) -> None:
    sent, piece = 0, b"%x\r\n" % MIB + bytes(MIB) + b"\r\n"
    with connect(standing.server) as connection:
        start = form(b"").split(b"\r\n\r\n")[0] + b"\r\n\r\n"
        connection.sendall(head("Transfer-Encoding: chunked") + b"%x\r\n" % len(start) + start + b"\r\n")
        try:
            for _ in range(100):
                connection.sendall(piece)
                sent += MIB
        except OSError:
            pass
    assert sent < 30 * MIB  # the limit, and what lies in the buffers of both sides
    standing.assert_stands()


def test_061_an_upload_that_waits_to_be_asked_for_is_not(standing: Standing) -> None:
    with connect(standing.server) as connection:
        connection.sendall(head("Content-Length: 100000000", "Expect: 100-continue"))
        assert answer(connection)[0] == 413
        assert connection.recv(1) == b""
    standing.assert_stands()


@pytest.mark.parametrize("at", [30, 200, 1000], ids=lambda at: f"066 after {at} bytes")
def test_a_connection_that_breaks_off_takes_nothing_with_it(standing: Standing, at: int) -> None:
    whole = head(f"Content-Length: {len(form(DATA))}") + form(DATA)
    for _ in range(20):
        with connect(standing.server) as connection:
            connection.setsockopt(1, 13, b"\x01\0\0\0\0\0\0\0")  # SO_LINGER of 0 s: a reset, and no farewell
            connection.sendall(whole[:at])
    eventually_at_most(lambda: int("case" in standing.server.log[-10:]), 0, "cases in the log's end")
    standing.assert_stands()


def test_079_requests_in_one_go_are_answered_in_their_order(standing: Standing) -> None:
    wrong, right = form(b"no photo"), form(DATA)
    sent = head(f"Content-Length: {len(wrong)}") + wrong + head(f"Content-Length: {len(right)}") + right
    with connect(standing.server) as connection:
        connection.sendall(sent * 5)
        received = b""
        while len(statuses := re.findall(rb"HTTP/1\.1 (\d+)", received)) < 10:
            more = connection.recv(65536)
            assert more, received
            received += more
    assert statuses == [b"415", b"200"] * 5
    standing.assert_stands()


def test_080_what_is_sent_makes_no_line_of_the_log(standing: Standing) -> None:
    before = len(standing.server.log.splitlines())
    named = part(QUERY.read_bytes(), filename="a\x1b[31m%0d%0aERROR forged")
    with standing.case("unknown_class", "forged") as send:
        send(content=multipart(named), headers={**FORM, "X-Forged": "forged"}, params={"class": "a\r\nERROR forged"})
    new = standing.server.log.splitlines()[before:]
    assert not [line for line in new if "forged" in line or "\x1b" in line]
