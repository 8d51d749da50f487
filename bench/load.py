"""A load generator in a process of its own: uploads photos over kept connections and times every answer.

It speaks HTTP/1.1 over bare sockets in one thread. A library would cost more CPU time, and on a machine of few cores
that is taken from the server under test. In a closed loop each client asks again as soon as it is answered. In an open
loop requests start at fixed intervals, whether or not earlier ones are answered. A request that waits for a free
connection is timed from its intended start, so that a server that stalls cannot hide it.
"""

import json
import math
import resource
import select
import selectors
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bench.procfs import process_cpu_s
from model.errors import CarsearchError

BOUNDARY = "carsearch-load"
GRACE_S = 60.0
DRAIN_S = 15.0
CONNECT_S = 5.0
CHUNK_BYTES = 1 << 16
IDLE_S = 2.0
"""A server closes connections that are idle for some seconds, and a request may be on its way just then. A request that
meets this on a connection that was idle this long is sent once more, as browsers and Go's client do."""

END_OF_HEAD, ENDS = b"\r\n\r\n", b"\r\nconnection: close"
REFUSED = 429
FINE_PER_S = 1000
"""Below this rate (requests a second) an open loop starts each request to the microsecond."""

COARSE_S = 0.004
"""Above that rate the open loop polls at this interval, because waking for each of thousands of requests would take CPU
from the server. Latencies are longer by up to this."""


class LoadFailed(CarsearchError, code="load_failed"):
    """The load generator could not do its work."""


@dataclass(frozen=True, slots=True)
class Order:
    """A load on a server on a loopback port: photos are uploaded to `path`; without photos `path` is fetched.

    Without `rate_per_s` (requests a second) `clients` ask in a closed loop; with it they are the connections that an
    open loop may use. The first `warm_up_s` do not count. `server_pid` is the process whose CPU time is reported.
    """

    port: int
    clients: int
    seconds: float
    photos: tuple[str, ...] = ()
    path: str = "/search"
    rate_per_s: float | None = None
    warm_up_s: float = 1.0
    server_pid: int | None = None
    own_addresses: bool = False
    """Each connection then has an own loopback address, so that a proxy sees as many clients as connections."""


@dataclass(slots=True)
class Load:
    """The outcome of an order, in the time that counts.

    `latencies_ms` are of the answers with status 200, sorted; in an open loop of the requests whose intended start lies
    in that time, however late they were answered. `refused_ms` are those of the answers with status 429. `lost` counts
    connections that ended before an answer, `unanswered` requests that had none when the generator gave up,
    `asked_again` requests that met the end of an idle connection. `cpu_s` is the generator's own CPU time.
    """

    seconds: float
    latencies_ms: list[float] = field(default_factory=list)
    statuses: dict[str, int] = field(default_factory=dict)
    lost: int = 0
    unanswered: int = 0
    cpu_s: float = 0.0
    server_cpu_s: float = 0.0
    refused_ms: list[float] = field(default_factory=list)
    asked_again: int = 0

    @property
    def answered(self) -> int:
        """Answers with status 200."""
        return len(self.latencies_ms)

    @property
    def refused(self) -> int:
        """Answers with status 429."""
        return self.statuses.get(str(REFUSED), 0)

    @property
    def errors(self) -> int:
        """Requests that had another answer than 200, or none."""
        return sum(self.statuses.values()) - self.answered + self.lost + self.unanswered

    @property
    def rate_per_s(self) -> float:
        return self.answered / self.seconds

    @property
    def core_ms(self) -> float:
        """CPU time of server and generator for one answer, in milliseconds."""
        return (self.cpu_s + self.server_cpu_s) / max(1, self.answered) * 1000

    def percentile_ms(self, percent: float) -> float:
        """The smallest latency that so many percent of the answers do not exceed; NaN when there is none."""
        return percentile(self.latencies_ms, percent)


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest of some sorted values that so many percent of them do not exceed; NaN when there is none."""
    if not values:
        return math.nan
    return values[max(0, math.ceil(percent / 100 * len(values)) - 1)]


def run(order: Order) -> Load:
    """Runs an order in a process of its own; raises LoadFailed."""
    command = [sys.executable, "-m", "bench.load"]
    limit_s = order.warm_up_s + order.seconds + GRACE_S
    try:
        done = subprocess.run(  # noqa: S603  # our own command line
            command, input=json.dumps(asdict(order)), capture_output=True, text=True, timeout=limit_s, check=False
        )
    except subprocess.TimeoutExpired as problem:
        raise LoadFailed(f"The load generator did not end within {limit_s:.0f} s.") from problem
    if done.returncode:
        raise LoadFailed(f"The load generator failed: {(done.stderr.strip().splitlines() or ['no reason'])[-1]}")
    return Load(**json.loads(done.stdout))


def requests_of(path: str, photos: Sequence[str]) -> list[bytes]:
    """The bytes of every request, made before the time is taken."""
    if not photos:
        return [f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()]
    return [_upload(path, Path(photo).read_bytes()) for photo in photos]


def _upload(path: str, photo: bytes) -> bytes:
    part = 'Content-Disposition: form-data; name="file"; filename="photo.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
    body = f"--{BOUNDARY}\r\n{part}".encode() + photo + f"\r\n--{BOUNDARY}--\r\n".encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary={BOUNDARY}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def carry_out(order: Order) -> Load:
    """Runs an order in this process; raises OSError when the server is not there."""
    generator = Generator(order, requests_of(order.path, order.photos))
    try:
        return generator.run(order.warm_up_s, order.seconds)
    finally:
        generator.close()


class AnswerMalformed(ValueError):
    """What came is not an HTTP/1.1 answer with a length."""


class Connection:
    """A kept connection and the request on it; `started` is the request's intended start.

    `idle_s` is how long the connection was idle before. A request may be `answered` before all of it has been sent,
    because a server that refuses an upload need not read it. `ends` says that the answer ends the connection.
    """

    __slots__ = (
        "_port", "_received", "_source", "answered", "ends", "free_since", "idle_s", "request", "socket", "started",
        "unsent",
    )  # fmt: skip

    def __init__(self, port: int, source: str = "127.0.0.1") -> None:
        self._port, self._source = port, source
        self._received = bytearray()
        self.started = self.idle_s = 0.0
        self.answered = self.ends = False
        self.request = self.unsent = memoryview(b"")
        self.free_since = time.perf_counter()
        self.socket = self._connect()

    def _connect(self) -> socket.socket:
        made = socket.create_connection(("127.0.0.1", self._port), CONNECT_S, (self._source, 0))
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

    def __init__(self, order: Order, requests: Sequence[bytes]) -> None:
        self._requests = requests
        self._rate_per_s = rate_per_s = order.rate_per_s
        self._server_pid = order.server_pid
        self._selector = selectors.EpollSelector()
        self._fine = rate_per_s is not None and rate_per_s < FINE_PER_S
        self._coarse = rate_per_s is not None and not self._fine
        self._turn = 0
        self._busy: set[Connection] = set()
        self._due: deque[float] = deque()
        self._from = self._until = 0.0
        self._load = Load(0.0)
        self._free: list[Connection] = []
        self._next = 0 if order.own_addresses else -1  # in turn, or the one that was used last, whose caches are warm
        self._all: list[Connection] = []
        for number in range(1, order.clients + 1):
            source = f"127.1.{number >> 8}.{number & 255}" if order.own_addresses else "127.0.0.1"
            connection = Connection(order.port, source)
            self._all.append(connection)
            self._free.append(connection)
            self._selector.register(connection.socket, selectors.EVENT_READ, connection)

    def close(self) -> None:
        self._selector.close()
        for connection in self._all:
            connection.socket.close()

    def run(self, warm_up_s: float, seconds: float) -> Load:
        """Sends requests for the warm-up and for the time that counts, then waits for the open answers."""
        self._load = load = Load(seconds)
        begun = time.perf_counter()
        self._from = begun + warm_up_s
        self._until = self._from + seconds
        self._until_moment(self._from, begun)
        own, server = time.process_time(), self._server_s()
        self._until_moment(self._until, begun)
        load.cpu_s = time.process_time() - own
        load.server_cpu_s = self._server_s() - server
        self._drain()
        load.latencies_ms.sort()
        load.refused_ms.sort()
        load.statuses = dict(sorted(load.statuses.items()))
        return load

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
        connection = self._free.pop(self._next)
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
        # epoll() waits to the millisecond, too coarse to start requests by. select() waits to the microsecond but looks
        # at every socket each time: here it has one, which is ready when one of epoll's is.
        if self._fine:
            select.select([self._selector], [], [], wait_s)
            wait_s = 0.0
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
            self._load.statuses[str(status)] = self._load.statuses.get(str(status), 0) + 1
            took_ms = (finished - connection.started) * 1000
            if status == 200:
                self._load.latencies_ms.append(took_ms)
            elif status == REFUSED:
                self._load.refused_ms.append(took_ms)
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
            self._load.asked_again += counts
            connection.idle_s = 0.0  # once
            self._renew(connection)
            connection.unsent = connection.request
            self._send(connection)
            return
        self._load.lost += counts
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
        """A closed loop counts by the time of the answer, an open loop by the intended start."""
        return self._from <= (finished if self._rate_per_s is None else started) < self._until

    def _drain(self) -> None:
        """An open loop's late requests are still sent and timed; a closed loop's last answers do not count."""
        deadline = time.perf_counter() + DRAIN_S
        while (self._busy or self._due) and time.perf_counter() < deadline:
            self._start_due()
            self._listen(0.1)
        left = [one.started for one in self._busy if not one.answered] + list(self._due)
        self._load.unanswered = sum(self._from <= started < self._until for started in left)


def main() -> None:
    """Reads an order as JSON from standard input and writes its load to standard output."""
    # Every connection needs a file descriptor.
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    json.dump(asdict(carry_out(Order(**json.load(sys.stdin)))), sys.stdout)


if __name__ == "__main__":
    main()
