"""What the routes share: made once with the app, read through typed aliases."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from service.batching import Batcher
from service.http.drain import Drain
from service.http.workers import WorkPool
from service.jobs import Evaluations
from service.observability.metrics import Metrics
from service.reloader import Serving
from service.settings import Settings


@dataclass(frozen=True, slots=True)
class State:
    """The parts of one running server."""

    settings: Settings
    metrics: Metrics
    serving: Serving
    pool: WorkPool
    batcher: Batcher
    evaluations: Evaluations
    drain: Drain


async def _state(request: Request) -> State:  # FastAPI would send a plain function to a thread, and wait for it
    state: State = request.app.state.parts
    return state


ServerState = Annotated[State, Depends(_state)]
