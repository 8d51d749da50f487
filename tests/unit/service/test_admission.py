"""Admission: fair shares of a bounded resource, and memory for uploads before and while they come."""

import asyncio
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.types import Receive, Scope

from service.errors import Overloaded
from service.http.admission import NO_MEMORY, QUEUE_FULL, Admission, FairShare
from service.http.body_limit import BodyLimit
from service.http.limits import Limits
from tests.support.asgi import discard, read_body, receive_parts, scope_of


def take_all(share: FairShare, client: str) -> int:
    taken = 0
    while share.has_room(client):
        share.take(client)
        taken += 1
    return taken


def test_one_client_alone_gets_eight_ninths() -> None:
    assert take_all(FairShare(90), "a") == 80


def test_greedy_clients_get_equal_parts_and_the_next_finds_room() -> None:
    share, taken = FairShare(170), Counter[str]()
    while any(share.has_room(client) for client in "ab"):
        for client in "ab":
            if share.has_room(client):
                share.take(client)
                taken[client] += 1
    assert taken == {"a": 80, "b": 80}
    assert take_all(share, "c") > 0


def test_where_there_is_little_nothing_is_held_back() -> None:
    assert take_all(FairShare(2), "a") == 2


def test_an_amount_that_does_not_fit_is_not_given() -> None:
    share = FairShare(10)
    share.take("a", 4)
    assert (share.has_room("b", 6), share.has_room("b", 7)) == (True, False)


@settings(max_examples=200, deadline=None)
@given(
    st.integers(1, 200), st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 20), st.booleans()), max_size=80)
)
def test_any_history_keeps_count_within_the_limit(limit: int, events: list[tuple[str, int, bool]]) -> None:
    share, held = FairShare(limit), Counter[str]()
    for client, amount, gives in events:
        if gives:
            share.give_back(client, back := min(amount, held[client]))
            held[client] -= back
        elif share.has_room(client, amount):
            share.take(client, amount)
            held[client] += amount
        assert share.taken == held.total() <= limit
        quiet = next((client for client in "abcd" if not held[client]), None)
        if quiet is not None and held.total() < limit:
            assert share.has_room(quiet)


def pass_through(app: Any, memory: FairShare, places: FairShare, receive: Receive, scope: Scope) -> None:
    """Sends a request through body limit and admission, in the order of the application."""
    chain = BodyLimit(Admission(app, places, memory), 1 << 20, Limits())
    asyncio.run(chain(scope, receive, discard))


def upload_scope(announced: int | None = None, client: str = "a") -> Scope:
    return scope_of("search", "photo", client, {} if announced is None else {"Content-Length": str(announced)})


def test_what_is_announced_is_taken_before_the_body_and_given_back_at_the_end() -> None:
    memory, taken = FairShare(300), list[int]()

    async def app(_scope: Any, receive: Receive, _send: Any) -> None:
        taken.append(memory.taken)
        while (await receive())["more_body"]:
            taken.append(memory.taken)

    pass_through(app, memory, FairShare(1), receive_parts(b"x" * 60, b"x" * 40), upload_scope(100))
    assert (taken, memory.taken) == ([100, 100], 0)


def test_json_takes_twice_its_size_because_it_is_held_beside_the_photo() -> None:
    memory, taken = FairShare(300), list[int]()

    async def app(_scope: Any, receive: Receive, _send: Any) -> None:
        taken.append(memory.taken)
        await receive()
        taken.append(memory.taken)

    headers = {"Content-Type": "application/json", "Content-Length": "100"}
    pass_through(app, memory, FairShare(1), receive_parts(b"x" * 120), scope_of("search", "photo", "a", headers))
    assert (taken, memory.taken) == ([200, 240], 0)


def test_a_body_of_unknown_length_takes_memory_as_it_comes_until_there_is_none() -> None:
    memory, taken = FairShare(300), list[int]()
    memory.take("b", 150)

    async def app(_scope: Any, receive: Receive, _send: Any) -> None:
        while (await receive())["more_body"]:
            taken.append(memory.taken)

    with pytest.raises(Overloaded, match=NO_MEMORY):
        pass_through(app, memory, FairShare(1), receive_parts(*[b"x" * 60] * 3), upload_scope())
    assert (taken, memory.taken) == ([210, 270], 150)


def test_an_announcement_that_does_not_fit_is_refused_before_the_body_is_read() -> None:
    memory, parts = FairShare(300), [b"x" * 60]
    memory.take("b", 250)
    with pytest.raises(Overloaded, match=NO_MEMORY):
        pass_through(read_body, memory, FairShare(1), receive_parts(*parts), upload_scope(60))
    assert memory.taken == 250


def test_a_client_that_holds_much_memory_leaves_some_to_others() -> None:
    memory = FairShare(900)
    memory.take("a", 800)
    with pytest.raises(Overloaded, match=NO_MEMORY):
        pass_through(read_body, memory, FairShare(1), receive_parts(b"x"), upload_scope(1, "a"))
    pass_through(read_body, memory, FairShare(1), receive_parts(b"x" * 90), upload_scope(90, "b"))


def test_memory_is_given_back_by_whatever_fails() -> None:
    memory = FairShare(300)

    async def app(_scope: Any, receive: Receive, _send: Any) -> None:
        await receive()
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        pass_through(app, memory, FairShare(1), receive_parts(b"x" * 100), upload_scope(100))
    assert memory.taken == 0


def test_an_upload_is_refused_when_no_work_place_is_free_but_takes_none() -> None:
    memory, places = FairShare(300), FairShare(1)
    pass_through(read_body, memory, places, receive_parts(b"x"), upload_scope(1))
    assert places.taken == 0
    places.take("b")
    with pytest.raises(Overloaded, match=QUEUE_FULL):
        pass_through(read_body, memory, places, receive_parts(b"x"), upload_scope(1))
    assert memory.taken == 0


def test_other_routes_take_neither() -> None:
    memory, places = FairShare(10), FairShare(1)
    places.take("b")
    pass_through(read_body, memory, places, receive_parts(b"x" * 100), scope_of("search"))
