"""A load generator in a process of its own: photos uploaded over kept connections, every answer timed.

It speaks HTTP/1.1 over bare sockets in one thread, because on a machine of few cores what a library would cost is taken
from the server that is measured. Closed loop: each client asks again as soon as it is answered. Open loop: requests
start at fixed intervals, whatever has been answered; one that has to wait for a connection, because all are taken, is
timed from when it should have started, so that a server that stalls cannot hide it.
"""

import json
import math
import resource
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bench.generator import REFUSED, Generator
from model.errors import CarsearchError

BOUNDARY = "carsearch-load"
GRACE_S = 60.0


class LoadFailed(CarsearchError):
    """The load generator could not do its work."""

    code = "load_failed"


@dataclass(frozen=True, slots=True)
class Order:
    """What to ask of the server on a loopback port. Without photos `path` is fetched, else each is uploaded to it.

    Without a rate (requests a second) `clients` ask in a closed loop; with one they are the connections that an open
    loop may use. What happens in the first `warm_up_s` is not counted. `server_pid` is whose CPU time is told.
    """

    port: int
    clients: int
    seconds: float
    photos: tuple[str, ...] = ()
    path: str = "/search"
    rate_per_s: float | None = None
    warm_up_s: float = 1.0
    server_pid: int | None = None


@dataclass(frozen=True, slots=True)
class Load:
    """What came of an order, in the time that counts.

    `latencies_ms` are of the answers with status 200, sorted; in an open loop of the requests that should have started
    in that time, however late they were answered. `refused_ms` are the same of the answers with status 429. `lost` are
    connections that ended before an answer, `unanswered` requests that had none when the generator gave up;
    `asked_again` is what was sent just as its idle connection was closed. `cpu_s` is the generator's own CPU time.
    """

    seconds: float
    latencies_ms: list[float]
    statuses: dict[str, int]
    lost: int
    unanswered: int
    cpu_s: float
    server_cpu_s: float
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
    """Carries an order out in a process of its own; raises LoadFailed."""
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
    """Carries an order out in this process; raises OSError when the server is not there."""
    generator = Generator(
        order.port, requests_of(order.path, order.photos), order.clients, order.rate_per_s, order.server_pid
    )
    try:
        counted = generator.run(order.warm_up_s, order.seconds)
    finally:
        generator.close()
    return Load(
        seconds=order.seconds,
        latencies_ms=sorted(counted.latencies_ms),
        statuses={str(status): count for status, count in sorted(counted.statuses.items())},
        lost=counted.lost,
        unanswered=counted.unanswered,
        cpu_s=counted.cpu_s,
        server_cpu_s=counted.server_cpu_s,
        refused_ms=sorted(counted.refused_ms),
        asked_again=counted.asked_again,
    )


def main() -> None:
    """An order as JSON on standard input, what came of it on standard output."""
    # Descriptors for as many connections as anybody asks for.
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    json.dump(asdict(carry_out(Order(**json.load(sys.stdin)))), sys.stdout)


if __name__ == "__main__":
    main()
