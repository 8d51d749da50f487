"""A shared resource: nobody is shut out by one who takes all it can get."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from service.http.shares import Shares


def take_all(shares: Shares, client: str) -> int:
    taken = 0
    while shares.room(client):
        shares.take(client)
        taken += 1
    return taken


def test_one_client_alone_gets_eight_ninths() -> None:
    assert take_all(Shares(90), "a") == 80


def test_greedy_clients_get_equal_parts_and_the_next_finds_room() -> None:
    shares, taken = Shares(170), Counter[str]()
    while any(shares.room(client) for client in "ab"):
        for client in "ab":
            if shares.room(client):
                shares.take(client)
                taken[client] += 1
    assert taken == {"a": 80, "b": 80}
    assert take_all(shares, "c") > 0


def test_where_there_is_little_nothing_is_held_back() -> None:
    assert take_all(Shares(2), "a") == 2


def test_an_amount_that_does_not_fit_is_not_given() -> None:
    shares = Shares(10)
    shares.take("a", 4)
    assert (shares.room("b", 6), shares.room("b", 7)) == (True, False)


@settings(max_examples=200, deadline=None)
@given(
    st.integers(1, 200), st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 20), st.booleans()), max_size=80)
)
def test_any_history_keeps_count_within_the_limit(limit: int, events: list[tuple[str, int, bool]]) -> None:
    shares, held = Shares(limit), Counter[str]()
    for client, amount, gives in events:
        if gives:
            shares.give_back(client, back := min(amount, held[client]))
            held[client] -= back
        elif shares.room(client, amount):
            shares.take(client, amount)
            held[client] += amount
        assert shares.taken == held.total() <= limit
        quiet = next((client for client in "abcd" if not held[client]), None)
        if quiet is not None and held.total() < limit:
            assert shares.room(quiet)
