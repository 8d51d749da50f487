"""What the routes share: made once with the application, and found in `request.app.state.parts`."""

from dataclasses import dataclass
from threading import Event

from starlette.requests import Request

from service.batching import Batcher
from service.engine import Engine
from service.errors import NotReady
from service.http.limits import Limits
from service.http.links import ImageLinks
from service.http.workers import Workers
from service.jobs import Evaluations
from service.observability.metrics import Metrics
from service.reloader import Reloader
from service.settings import Settings


@dataclass(frozen=True, slots=True)
class State:
    """The parts of one running server."""

    settings: Settings
    limits: Limits
    metrics: Metrics
    reloader: Reloader
    workers: Workers
    batcher: Batcher
    evaluations: Evaluations
    links: ImageLinks
    draining: Event
    """Set when the process is about to stop."""


def engine_of(request: Request) -> Engine:
    """What is served, which the request's log line then names; raises NotReady."""
    state: State = request.app.state.parts
    if (engine := state.reloader.loaded) is None:
        raise NotReady(state.reloader.why_not)
    request.scope["context"].index = engine.manifest.id
    return engine
