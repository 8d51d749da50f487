"""Cases 048 to 080 of the catalogue: HTTP and forms that are wrong, too large, or meant to mislead."""

import json
import re
from typing import Any

import pytest

from tests.e2e.catalogue.pictures import PHOTO, QUERY, one_colour, png
from tests.e2e.catalogue.standing import Standing, eventually_at_most
from tests.support.bodies import BOUNDARY, FORM, form, multipart, part
from tests.support.connections import answer, connect, head
from tests.support.ways import MOST_BYTES, PHOTO_BYTES, WAYS, codes_of, in_base64, upload_by

SECRET = "tell-nobody-4711"  # noqa: S105  # it stands in what is sent and must not stand in what comes back
DATA = png(PHOTO)
FILE = {"file": ("car.png", DATA)}
NOISE = SECRET.encode() + bytes(range(256))
JSON = {"Content-Type": "application/json"}
MIB = 1 << 20
HEADS = [(upload_by(way, DATA).path, upload_by(way, DATA).kind, MOST_BYTES[way]) for way in WAYS]
"""The path, the type and the largest body of every way."""


def image(text: str) -> bytes:
    return json.dumps({"image": text}).encode()


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
    ("052", "base64", "ok", image(in_base64(DATA)), JSON),
    ("052", "10 MB of brackets", "malformed_json", b'{"image":' + b"[" * 10 * MIB, JSON),
    ("052", "10 MB of text for base64", "invalid_request", b'{"image":"' + b"A" * 10 * MIB + b'!"}', JSON),
    ("052", "base64 of an address", "invalid_request", image("data:image/png;base64," + in_base64(DATA)), JSON),
    ("052", "base64 cut off", "invalid_request", image(in_base64(DATA)[:-1]), JSON),
    ("052", "base64 with a NUL", "invalid_request", image(in_base64(DATA) + "\0"), JSON),
    ("052", "base64 of addresses", "invalid_request", image("_-_-"), JSON),
    ("052", "half a character", "malformed_json", b'{"image":"\\ud800"}', JSON),
    ("052", "a list of bytes", "invalid_request", json.dumps({"image": list(NOISE)}).encode(), JSON),
    ("052", "UTF-16", "malformed_json", image(in_base64(DATA)).decode().encode("utf-16"), JSON),
    ("052", "base64 as a photo", "unsupported_image_format", in_base64(DATA).encode(), {"Content-Type": "image/png"}),
    ("052", "a form as a photo", "unsupported_image_format", form(DATA), {"Content-Type": "image/png"}),
    ("052", "JSON as a photo", "unsupported_image_format", image(SECRET), {"Content-Type": "image/json"}),
    ("052", "a photo as JSON", "malformed_json", DATA, JSON),
    ("052", "a photo as text", "unsupported_content_type", DATA, {"Content-Type": "text/plain"}),
    ("052", "a photo as a type that is none", "unsupported_content_type", DATA, {"Content-Type": "image"}),
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


BATCHES: list[tuple[str, str, str, bytes, dict[str, str]]] = [
    ("048", "no part", "missing_file", multipart(), FORM),
    ("050", "65 photos", "multiple_files", multipart(*[part(DATA)] * 65), FORM),
    ("050", "1,001 photos", "multiple_files", multipart(*[part(b"1")] * 1001), FORM),
    ("052", "a bare photo", "unsupported_content_type", DATA, {"Content-Type": "image/png"}),
    ("052", "base64", "unsupported_content_type", image(in_base64(DATA)), JSON),
    ("053", "never closed", "malformed_multipart", multipart(part(DATA), part(DATA), closed=False), FORM),
    ("054", "80 files that nobody asked for", "malformed_multipart", multipart(*[part(b"1", "n")] * 80), FORM),
    ("054", "100,000 headers of a part", "malformed_multipart", many_headers(100_000), FORM),
    ("055", "30 MB before the first boundary", "ok", b"\r\n" * (15 * MIB) + form(DATA), FORM),
]


@pytest.mark.parametrize("case", BATCHES, ids=lambda case: f"{case[0]} {case[1]}")
def test_a_batch_is_understood_or_refused_as_a_whole(
    standing: Standing, case: tuple[str, str, str, bytes, dict[str, str]]
) -> None:
    _, _, code, content, headers = case
    with standing.case(code, SECRET) as send:
        send("/search/batch", content=content, headers=headers)


def test_050_bad_photos_of_a_batch_spoil_no_other(standing: Standing) -> None:
    photos = [DATA, b"", NOISE, DATA[:1000], one_colour(7072, 7072), DATA + bytes(PHOTO_BYTES), DATA]
    with standing.case("ok", SECRET) as send:
        answered = send("/search/batch", params={"k": 1}, content=multipart(*map(part, photos)), headers=FORM).json()
    refused = ["empty_file", "unsupported_image_format", "image_undecodable", "image_too_many_pixels"]
    assert codes_of(answered) == ["ok", *refused, "payload_too_large", "ok"]
    for entry in (answered["results"][0], answered["results"][-1]):
        assert [hit["class"] for hit in entry["result"]["results"]] == ["plain"]


def test_050_as_many_photos_and_bytes_as_a_batch_may_have_are_answered(standing: Standing) -> None:
    size_bytes = MOST_BYTES["batch"] // 64 - 200
    photos = [DATA + bytes(size_bytes - len(DATA))] * 64
    with standing.case("ok") as send:
        answered = send("/search/batch", content=multipart(*map(part, photos)), headers=FORM).json()
    assert codes_of(answered) == ["ok"] * 64


@pytest.mark.parametrize("way", ["raw", "base64", "batch"])
def test_057_a_photo_may_be_as_large_as_the_limit_and_no_larger(standing: Standing, way: str) -> None:
    largest = DATA + bytes(PHOTO_BYTES - len(DATA))
    taken, refused = upload_by(way, largest), upload_by(way, largest + b"x")
    with standing.case("payload_too_large") as send:
        send(taken.path, code="ok", **taken.arguments)
        if way != "batch":
            send(refused.path, **refused.arguments)
        else:
            answered = send(refused.path, code="ok", **refused.arguments).json()
            assert codes_of(answered) == ["payload_too_large"]


@pytest.mark.parametrize(
    ("path", "kinds"),
    [
        ("/search", ["image/jpeg; of=json"]),
        ("/search", ["image/json"]),
        ("/search", ["multipart/form-data; boundary=json"]),
        ("/search", ["image/jpeg", "application/json"]),
        ("/search/batch", ["image/jpeg", FORM["Content-Type"]]),
        ("/evaluate", ["application/json; of=multipart/form-data"]),
        ("/evaluate", ["application/json", FORM["Content-Type"]]),
    ],
)
def test_057_a_type_that_looks_like_another_has_no_larger_limit(
    standing: Standing, path: str, kinds: list[str]
) -> None:
    more = [f"Content-Type: {kind}" for kind in kinds[1:]]
    with connect(standing.server) as connection:
        connection.sendall(head(*more, f"Content-Length: {PHOTO_BYTES + 1}", path=path, kind=kinds[0]))
        status, body = answer(connection)
        assert (status, json.loads(body)["code"]) == (413, "payload_too_large")
    standing.assert_stands()


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
    for path, kind, most in HEADS:
        for length in (100_000_000, most + 1):
            with connect(standing.server) as connection:
                lines = f"Content-Length: {length}", f"X-Request-Id: {SECRET}"
                connection.sendall(head(*lines, path=path, kind=kind))
                status, body = answer(connection)
                assert (status, json.loads(body)["code"]) == (413, "payload_too_large")
    standing.assert_stands()


@pytest.mark.parametrize("way", WAYS)
def test_058_an_upload_of_100_mb_in_chunks_is_cut_off_at_the_limit(standing: Standing, way: str) -> None:
    sent, piece = 0, b"%x\r\n" % MIB + bytes(MIB) + b"\r\n"
    begun = upload_by(way, b"")
    with connect(standing.server) as connection:
        start = begun.body.split(b"\r\n\r\n")[0] + b"\r\n\r\n"
        connection.sendall(head("Transfer-Encoding: chunked", path=begun.path, kind=begun.kind))
        connection.sendall(b"%x\r\n" % len(start) + start + b"\r\n")
        try:
            for _ in range(100):
                connection.sendall(piece)
                sent += MIB
        except OSError:
            pass
    assert sent < MOST_BYTES[way] + 20 * MIB  # the limit, and what lies in the buffers of both sides
    standing.assert_stands()


def test_061_an_upload_that_waits_to_be_asked_for_is_not(standing: Standing) -> None:
    for path, kind, _ in HEADS:
        with connect(standing.server) as connection:
            connection.sendall(head("Content-Length: 100000000", "Expect: 100-continue", path=path, kind=kind))
            assert answer(connection)[0] == 413
            assert connection.recv(1) == b""
    standing.assert_stands()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("at", [30, 200, 1000], ids=lambda at: f"066 after {at} bytes")
def test_a_connection_that_breaks_off_takes_nothing_with_it(standing: Standing, at: int, way: str) -> None:
    path, kind, body = upload_by(way, DATA)
    whole = head(f"Content-Length: {len(body)}", path=path, kind=kind) + body
    for _ in range(20):
        with connect(standing.server) as connection:
            connection.setsockopt(1, 13, b"\x01\0\0\0\0\0\0\0")  # SO_LINGER of 0 s: a reset, and no farewell
            connection.sendall(whole[:at])
    eventually_at_most(lambda: int("case" in standing.server.log[-10:]), 0, "cases in the log's end")
    standing.assert_stands()


def test_079_requests_in_one_go_are_answered_in_their_order(standing: Standing) -> None:
    uploads = [upload_by(way, data) for way in WAYS for data in (b"no photo", DATA)]
    sent = b"".join(head(f"Content-Length: {len(body)}", path=path, kind=kind) + body for path, kind, body in uploads)
    with connect(standing.server) as connection:
        connection.sendall(sent * 2)
        received = b""
        while len(statuses := re.findall(rb"HTTP/1\.1 (\d+)", received)) < 16:
            more = connection.recv(65536)
            assert more, received
            received += more
    assert statuses == [b"415", b"200", b"415", b"200", b"415", b"200", b"200", b"200"] * 2
    standing.assert_stands()


def test_080_what_is_sent_makes_no_line_of_the_log(standing: Standing) -> None:
    before = len(standing.server.log.splitlines())
    named = part(QUERY.read_bytes(), filename="a\x1b[31m%0d%0aERROR forged")
    with standing.case("unknown_class", "forged") as send:
        send(content=multipart(named), headers={**FORM, "X-Forged": "forged"}, params={"class": "a\r\nERROR forged"})
    new = standing.server.log.splitlines()[before:]
    assert not [line for line in new if "forged" in line or "\x1b" in line]
