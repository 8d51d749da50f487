"""The listening socket."""

import pytest

from model.errors import SettingsInvalid
from service.http.server import listen


def test_a_port_can_be_listened_on_again_at_once_but_not_twice() -> None:
    with listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(SettingsInvalid, match=f"127.0.0.1 port {port}: Address already in use"):
            listen("127.0.0.1", port)
    listen("127.0.0.1", port).close()
