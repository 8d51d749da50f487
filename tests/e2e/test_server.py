"""The listening socket."""

import resource
import socket

import pytest

from model.errors import SettingsInvalid
from service.http.server import ACCEPTED_AT_ONCE, listen, several


def test_the_socket_says_that_it_is_tcp_so_that_answers_are_not_held_back() -> None:
    with listen("127.0.0.1", 0) as listener:
        assert listener.proto == socket.IPPROTO_TCP


def test_a_port_can_be_listened_on_again_at_once_but_not_twice() -> None:
    with listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(SettingsInvalid, match=f"127.0.0.1 port {port}: Address already in use"):
            listen("127.0.0.1", port)
    listen("127.0.0.1", port).close()


@pytest.mark.parametrize(
    ("may_open", "at_once"), [(8, 1), (64, 4), (1024, ACCEPTED_AT_ONCE), (resource.RLIM_INFINITY, ACCEPTED_AT_ONCE)]
)
def test_a_server_that_may_open_few_files_does_not_spend_them_on_listening(
    monkeypatch: pytest.MonkeyPatch, may_open: int, at_once: int
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (may_open, may_open))
    with listen("127.0.0.1", 0) as listener:
        listeners = several(listener)
        assert len(listeners) == at_once
        for one in listeners:
            one.close()
