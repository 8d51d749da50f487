"""What a long run came to: figures, each with what is promised of it."""

from dataclasses import dataclass
from typing import Literal

Extent = Literal["small", "large"]
"""Small enough for the test suite (seconds), or as large as what is promised."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One number of a run; `bar` is what is promised, `kept` whether it holds, `how` says what it is made of."""

    name: str
    value: str
    bar: str
    kept: bool
    how: str = ""


def none_of(name: str, failures: int, trials: int, what: str) -> Figure:
    """A promise that something never happens; with n trials and no failure it is rarer than 3 / n, at 95%."""
    return Figure(name, str(failures), "0", trials > 0 and failures == 0, f"of {trials:,} {what}")


def at_most(name: str, value: float, bar: float, unit: str, how: str = "") -> Figure:
    """A number that must not be above its bar; one that could not be measured (NaN) is."""
    return Figure(name, f"{value:.3g} {unit}".strip(), f"<= {bar:g} {unit}".strip(), value <= bar, how)


def at_least(name: str, value: float, bar: float, unit: str, how: str = "") -> Figure:
    """A number that must not be below its bar; one that could not be measured (NaN) is."""
    return Figure(name, f"{value:.3g} {unit}".strip(), f">= {bar:g} {unit}".strip(), value >= bar, how)
