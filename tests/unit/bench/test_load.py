"""The load generator counts what it was asked to count, against a real server on the loopback address."""

import math
import os
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from bench.load import AnswerMalformed, Load, LoadFailed, Order, carry_out, percentile, requests_of, run, whole_answer
from bench.serving import free_port
from tests.unit.bench.slow_server import after, answer, tiny_server


def load_of(latencies_ms: list[float]) -> Load:
    return Load(2.0, latencies_ms, {"200": len(latencies_ms)}, lost=0, unanswered=0, cpu_s=0.5, server_cpu_s=1.5)


def test_percentiles_are_answers_that_were_given() -> None:
    load = load_of([float(value) for value in range(1, 101)])
    assert [load.percentile_ms(percent) for percent in (0, 1, 50, 95, 99, 100)] == [1, 1, 50, 95, 99, 100]
    assert load_of([3.0, 5.0, 9.0]).percentile_ms(50) == 5.0
    assert load_of([3.0, 5.0, 9.0]).percentile_ms(99) == 9.0
    assert math.isnan(load_of([]).percentile_ms(50))
    assert percentile([3.0, 5.0, 9.0], 50) == 5.0


def test_rates_core_time_and_errors_are_counted_by_hand() -> None:
    load = Load(2.0, [1.0] * 4, {"200": 4, "429": 2, "500": 1}, lost=3, unanswered=5, cpu_s=0.5, server_cpu_s=1.5)
    assert (load.answered, load.rate_per_s, load.core_ms, load.errors) == (4, 2.0, 500.0, 2 + 1 + 3 + 5)


@pytest.mark.parametrize("cut", [0, 1, 20, 38, 39, 41])
def test_an_answer_counts_once_it_is_whole(cut: int) -> None:
    whole = answer(429, b"abc")
    assert len(whole) == 42
    assert whole_answer(whole[:cut]) is None
    assert whole_answer(whole) == 429


@pytest.mark.parametrize("odd", [b"HTTP/1.1 200 OK\r\n\r\n", b"nonsense\r\nContent-Length: 1\r\n\r\n", answer() + b"x"])
def test_what_is_no_answer_with_a_length_is_malformed(odd: bytes) -> None:
    with pytest.raises(AnswerMalformed):
        whole_answer(odd)


def test_a_closed_loop_asks_with_every_client_and_counts_what_is_answered_in_its_time() -> None:
    with tiny_server(after(0.002, answer())) as server:
        load = run(Order(server.port, clients=4, seconds=0.5, path="/livez", warm_up_s=0.2))
        asked = len(server.requests)
    assert load.errors == 0
    assert load.statuses == {"200": load.answered}
    assert 0 < load.answered < asked  # those of the warm-up do not count
    assert load.latencies_ms == sorted(load.latencies_ms)
    assert load.latencies_ms[0] >= 2.0
    assert load.cpu_s > 0
    assert server.requests[0].startswith(b"GET /livez HTTP/1.1\r\n")


def test_photos_are_uploaded_in_turn_and_whole(tmp_path: Path) -> None:
    photos = []
    for number in range(2):
        (tmp_path / f"{number}.jpg").write_bytes(bytes([number]) * 500_000)  # more than a socket takes at once
        photos.append(str(tmp_path / f"{number}.jpg"))
    with tiny_server(lambda _number: answer()) as server:
        load = carry_out(Order(server.port, clients=1, seconds=0.3, photos=tuple(photos), warm_up_s=0))
        bodies = server.requests
    assert load.answered > 0
    seconds = [number for number, body in enumerate(bodies) if bytes([1]) * 500_000 in body]
    assert seconds == list(range(1, len(bodies), 2))
    assert requests_of("/search", photos)[0] == bodies[0]


@pytest.mark.parametrize(("more", "to_its_end"), [("", True), ("Connection: close\r\n", False)])
def test_an_upload_refused_before_its_end_is_sent_on_unless_the_answer_ends_the_connection(
    tmp_path: Path, more: str, to_its_end: bool
) -> None:
    (tmp_path / "large.jpg").write_bytes(bytes(20_000_000))  # more than lies between two sockets
    photos = (str(tmp_path / "large.jpg"),)
    with tiny_server(lambda _number: answer(429, more=more), early=True) as server:
        load = carry_out(Order(server.port, clients=2, seconds=0.5, photos=photos, warm_up_s=0))
        heads = server.requests
    assert load.refused > 0
    assert (load.errors, load.lost) == (load.refused, 0)
    assert {head.partition(b"\r\n")[0] for head in heads} == {b"POST /search HTTP/1.1"}
    whole = [rest for rest in server.rests if rest >= 20_000_000]
    assert bool(whole) is to_its_end


def test_other_statuses_and_connections_that_end_are_errors_and_the_rest_goes_on() -> None:
    def reply(number: int) -> bytes | None:
        time.sleep(0.002)
        return (answer(), answer(429), None)[number % 3]

    with tiny_server(reply) as server:
        load = carry_out(Order(server.port, clients=2, seconds=0.5, path="/", warm_up_s=0))
    assert load.answered > 0
    assert load.statuses["429"] > 0
    assert len(load.refused_ms) == load.refused == load.statuses["429"]
    assert load.refused_ms[0] >= 2.0
    assert load.lost > 0
    assert load.errors == load.statuses["429"] + load.lost


@pytest.mark.parametrize(
    ("idle_s", "endings", "asked_again", "lost"),
    [(1e-9, {5}, 1, 0), (1e-9, {5, 6}, 1, 1), (60.0, {5}, 0, 1)],
    ids=["had been idle", "and ends again", "was in use"],
)
def test_a_request_that_meets_the_end_of_its_idle_connection_is_asked_once_more(
    monkeypatch: pytest.MonkeyPatch, idle_s: float, endings: set[int], asked_again: int, lost: int
) -> None:
    monkeypatch.setattr("bench.load.IDLE_S", idle_s)
    with tiny_server(lambda number: None if number in endings else answer()) as server:
        load = carry_out(Order(server.port, clients=1, seconds=0.5, path="/", rate_per_s=40, warm_up_s=0))
    assert (load.answered, load.asked_again, load.lost) == (20 - lost, asked_again, lost)
    assert load.errors == lost


def test_an_answer_that_breaks_off_is_lost_however_idle_its_connection_had_been(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("bench.load.IDLE_S", 0.01)
    with tiny_server(lambda number: answer()[:20] if number == 5 else answer()) as server:
        load = carry_out(Order(server.port, clients=1, seconds=0.5, path="/", rate_per_s=40, warm_up_s=0))
    assert (load.answered, load.asked_again, load.lost) == (19, 0, 1)


def test_an_open_loop_starts_as_many_as_its_rate_says_however_slow_the_server_is() -> None:
    with tiny_server(after(0.03, answer())) as server:  # 33 a second, asked for 100
        load = carry_out(Order(server.port, 8, 0.5, path="/", rate_per_s=100, warm_up_s=0))
    assert load.answered == 50
    assert load.errors == 0
    # The last of them has waited for nearly all the others, on two sides of the connections.
    assert load.latencies_ms[-1] > 50 * 30 - 500 - 1


def test_a_stall_is_in_the_latency_of_every_request_that_should_have_started_meanwhile() -> None:
    stall_s = 0.4

    def reply(number: int) -> bytes:
        if number == 10:
            time.sleep(stall_s)
        return answer()

    with tiny_server(reply) as server:
        load = carry_out(Order(server.port, clients=1, seconds=1.0, path="/", rate_per_s=100, warm_up_s=0))
    assert load.answered == 100
    late = [latency for latency in load.latencies_ms if latency > 10]
    assert len(late) >= 38  # a loop that waited for the answer would have seen one
    assert load.latencies_ms[-1] >= stall_s * 1000


def test_a_fast_open_loop_may_have_more_connections_than_select_knows() -> None:
    with ExitStack() as open_ones, tiny_server(after(0.0001, answer(429))) as server:
        for _ in range(1024):  # what is opened now has a number that select() does not take
            open_ones.enter_context(Path(os.devnull).open())
        load = carry_out(Order(server.port, 20, 0.05, path="/", rate_per_s=10_000, warm_up_s=0))
    assert (load.refused, load.answered, load.lost, load.unanswered) == (500, 0, 0, 0)
    assert load.refused_ms == sorted(load.refused_ms)


def test_a_server_that_is_not_there_is_told_in_a_sentence() -> None:
    with pytest.raises(LoadFailed, match="refused"):
        run(Order(free_port(), clients=1, seconds=0.1, warm_up_s=0))


def test_generator_and_bare_server_import_nothing_that_is_heavy() -> None:
    code = "import sys, bench.load, bench.bare; print({'numpy', 'torch', 'openvino', 'faiss'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
