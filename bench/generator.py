"""The load generator's loop: one thread, non-blocking sockets, and as little work a request as HTTP/1.1 allows."""

import selectors
import socket
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from bench.procfs import process_cpu_s

DRAIN_S = 15.0
CONNECT_S = 5.0
CHUNK_BYTES = 1 << 16
IDLE_S = 2.0
"""A server ends connections that are idle for some seconds, and may do so just when a request is on its way. Nobody is
at fault, and clients ask again, as Go's and browsers do; one that was used a moment ago has no such excuse."""

END_OF_HEAD, ENDS = b"\r\n\r\n", b"\r\nconnection: close"
REFUSED = 429
FINE_PER_S = 1000
"""Below this rate an open loop's requests are far enough apart for their start to be timed to the microsecond."""

COARSE_S = 0.004
"""Above that rate it looks so often at what is due and at what has come: waking for each of thousands, it takes
more of a small machine from the server than its own CPU time. Latencies are longer by as much."""


class AnswerMalformed(ValueError):
    """What came is not an HTTP/1.1 answer with a length."""


@dataclass(slots=True)
class Counted:
    """What happened in the time that counts; see `bench.load.Load`."""

    latencies_ms: list[float] = field(default_factory=list)
    refused_ms: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    lost: int = 0
    unanswered: int = 0
    asked_again: int = 0
    cpu_s: float = 0.0
    server_cpu_s: float = 0.0


class Connection:
    """A kept connection, and the request that is on its way over it: `started` is when it should have started.

    `idle_s` is for how long nothing had been asked of it then. A request may be `answered` before it has been sent: who
    refuses an upload need not wait for its end. An answer may say that it `ends` the connection: nobody wants what is
    unsent.
    """

    __slots__ = (
        "_port", "_received", "answered", "ends", "free_since", "idle_s", "request", "socket", "started", "unsent",
    )  # fmt: skip

    def __init__(self, port: int) -> None:
        self._port = port
        self._received = bytearray()
        self.started = self.idle_s = 0.0
        self.answered = self.ends = False
        self.request = self.unsent = memoryview(b"")
        self.free_since = time.perf_counter()
        self.socket = self._connect()

    def _connect(self) -> socket.socket:
        made = socket.create_connection(("127.0.0.1", self._port), CONNECT_S)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        made.setblocking(False)
        return made

    def reconnect(self) -> None:
        """A new connection in place of one that ended; raises OSError when the server is gone."""
        self.socket.close()
        self._received.clear()
        self.ends = False
        self.unsent = memoryview(b"")
        self.socket = self._connect()

    @property
    def closed_idle(self) -> bool:
        """Whether a connection that has ended had been idle for so long that it may have ended for that."""
        return self.idle_s >= IDLE_S and not self.answered and not self._received

    def send(self) -> bool:
        """Sends what the socket takes; False when some is left. Raises ConnectionError."""
        while self.unsent:
            try:
                self.unsent = self.unsent[self.socket.send(self.unsent) :]
            except BlockingIOError:
                return False
        return True

    def receive(self) -> int | None:
        """Status of the answer once it is whole; raises ConnectionError, AnswerMalformed."""
        try:
            chunk = self.socket.recv(CHUNK_BYTES)
        except BlockingIOError:
            return None
        if not chunk:
            raise ConnectionResetError
        self._received += chunk
        status = whole_answer(self._received)
        if status is not None:
            self.ends = ENDS in self._received.partition(END_OF_HEAD)[0].lower()
            self._received.clear()
        return status


def whole_answer(received: bytes | bytearray) -> int | None:
    """Status of an answer that has come whole, None while some is missing; raises AnswerMalformed."""
    end = received.find(END_OF_HEAD)
    if end < 0:
        return None
    head = bytes(received[:end]).lower()
    _, found, rest = head.partition(b"\r\ncontent-length:")
    try:
        length, status = int(rest.partition(b"\r\n")[0]), int(head[9:12])
    except ValueError as problem:
        raise AnswerMalformed("the answer has no status or no length") from problem
    missing = end + len(END_OF_HEAD) + length - len(received)
    if not found or missing < 0:
        raise AnswerMalformed("the answer is longer than it says")
    return None if missing else status


class Generator:
    """Clients of a loopback port, in a closed loop, or in an open one when there is a rate (requests a second)."""

    def __init__(
        self, port: int, requests: Sequence[bytes], clients: int, rate_per_s: float | None, server_pid: int | None
    ) -> None:
        self._requests = requests
        self._rate_per_s = rate_per_s
        self._server_pid = server_pid
        # select() waits to the microsecond, epoll() to the millisecond: too coarse to start requests by. But select()
        # looks at every connection each time, and knows only the first thousand.
        fine = rate_per_s is not None and rate_per_s < FINE_PER_S
        self._selector = selectors.SelectSelector() if fine else selectors.DefaultSelector()
        self._coarse = rate_per_s is not None and not fine
        self._turn = 0
        self._busy: set[Connection] = set()
        self._due: deque[float] = deque()
        self._from = self._until = 0.0
        self._counted = Counted()
        self._free: list[Connection] = []
        self._all: list[Connection] = []
        for _ in range(clients):
            connection = Connection(port)
            self._all.append(connection)
            self._free.append(connection)
            self._selector.register(connection.socket, selectors.EVENT_READ, connection)

    def close(self) -> None:
        self._selector.close()
        for connection in self._all:
            connection.socket.close()

    def run(self, warm_up_s: float, seconds: float) -> Counted:
        """Asks for some seconds that do not count and some that do, then waits for the answers that are under way."""
        begun = time.perf_counter()
        self._from = begun + warm_up_s
        self._until = self._from + seconds
        self._until_moment(self._from, begun)
        own, server = time.process_time(), self._server_s()
        self._until_moment(self._until, begun)
        self._counted.cpu_s = time.process_time() - own
        self._counted.server_cpu_s = self._server_s() - server
        self._drain()
        return self._counted

    def _server_s(self) -> float:
        return 0.0 if self._server_pid is None else process_cpu_s(self._server_pid)

    def _until_moment(self, moment: float, begun: float) -> None:
        """Asks and listens until a moment; an open loop's requests become due by the time since `begun`."""
        while (now := time.perf_counter()) < moment:
            wait = moment - now
            if self._rate_per_s is None:
                while self._free:
                    self._start(now)
            else:
                upcoming = self._queue_due(begun, now, self._rate_per_s)
                self._start_due()
                wait = min(wait, max(0.0, upcoming - time.perf_counter()))
            if self._coarse:
                time.sleep(COARSE_S)
                wait = 0.0
            self._listen(wait)
        if self._rate_per_s is not None:  # what became due in the last wait
            self._queue_due(begun, moment, self._rate_per_s)

    def _queue_due(self, begun: float, moment: float, rate_per_s: float) -> float:
        """Queues the requests that should start before a moment; returns when the next one should."""
        while (intended := begun + (self._turn + len(self._due)) / rate_per_s) < moment:
            self._due.append(intended)
        return intended

    def _start_due(self) -> None:
        while self._due and self._free:
            self._start(self._due.popleft())

    def _start(self, intended: float) -> None:
        connection = self._free.pop()
        connection.started = intended
        connection.answered = False
        connection.idle_s = time.perf_counter() - connection.free_since
        connection.request = connection.unsent = memoryview(self._requests[self._turn % len(self._requests)])
        self._turn += 1
        self._busy.add(connection)
        self._send(connection)

    def _send(self, connection: Connection) -> None:
        try:
            sent = connection.send()
        except OSError:
            self._lose(connection)
            return
        events = selectors.EVENT_READ if sent else selectors.EVENT_READ | selectors.EVENT_WRITE
        if self._selector.get_key(connection.socket).events != events:
            self._selector.modify(connection.socket, events, connection)
        if sent and connection.answered:
            self._release(connection)

    def _listen(self, wait_s: float) -> None:
        for key, events in self._selector.select(wait_s):
            connection: Connection = key.data
            if events & selectors.EVENT_WRITE:
                self._send(connection)
            if events & selectors.EVENT_READ and connection.socket is key.fileobj:
                self._receive(connection)

    def _receive(self, connection: Connection) -> None:
        try:
            status = connection.receive()
        except (OSError, AnswerMalformed):
            self._lose(connection)
            return
        if status is None:
            return
        finished = time.perf_counter()
        connection.answered = True
        if self._counts(connection.started, finished):
            self._counted.statuses[status] += 1
            took_ms = (finished - connection.started) * 1000
            if status == 200:
                self._counted.latencies_ms.append(took_ms)
            elif status == REFUSED:
                self._counted.refused_ms.append(took_ms)
        if connection.ends:
            self._replace(connection)
        elif not connection.unsent:  # else what follows would be taken for the rest of this one
            self._release(connection)

    def _lose(self, connection: Connection) -> None:
        # A server may close a connection that it has no request of: nothing is lost then.
        # Nor when it does not want the rest of a request that it has refused.
        waiting = connection in self._busy and not connection.answered
        counts = waiting and self._counts(connection.started, time.perf_counter())
        if waiting and connection.closed_idle:
            self._counted.asked_again += counts
            connection.idle_s = 0.0  # once
            self._renew(connection)
            connection.unsent = connection.request
            self._send(connection)
            return
        self._counted.lost += counts
        self._replace(connection)

    def _replace(self, connection: Connection) -> None:
        self._renew(connection)
        self._release(connection)

    def _renew(self, connection: Connection) -> None:
        self._selector.unregister(connection.socket)
        connection.reconnect()
        self._selector.register(connection.socket, selectors.EVENT_READ, connection)

    def _release(self, connection: Connection) -> None:
        if connection in self._busy:
            self._busy.remove(connection)
            self._free.append(connection)
            connection.free_since = time.perf_counter()

    def _counts(self, started: float, finished: float) -> bool:
        """A closed loop counts what is answered in its time, an open one what should have started in it."""
        return self._from <= (finished if self._rate_per_s is None else started) < self._until

    def _drain(self) -> None:
        """What an open loop has started late is still asked and timed; a closed loop's last answers do not count."""
        deadline = time.perf_counter() + DRAIN_S
        while (self._busy or self._due) and time.perf_counter() < deadline:
            self._start_due()
            self._listen(0.1)
        left = [one.started for one in self._busy if not one.answered] + list(self._due)
        self._counted.unanswered = sum(self._from <= started < self._until for started in left)
