"""Content negotiation: which of HTML and JSON a client wants, by its header Accept (RFC 9110, section 12.5.1)."""

from typing import NamedTuple


class Wanted(NamedTuple):
    """The media types that a client accepts: HTML before JSON, and JSON at all."""

    html: bool
    json: bool


def wanted(accept: str) -> Wanted:
    """HTML is wanted where it is named and liked better than JSON; without a header everything is taken.

    Generated clients list every type of an operation, as equals, and read JSON.

    >>> wanted("text/html,application/xml;q=0.9,*/*;q=0.8")  # a browser's
    Wanted(html=True, json=True)
    """
    weights: dict[str, float] = {}
    for part in accept.split(",") if accept.strip() else ["*/*"]:
        kind, *parameters = (one.strip().lower() for one in part.split(";"))
        weights[kind] = min((_number(one[2:]) for one in parameters if one.startswith("q=")), default=1.0)
    json = next((weights[kind] for kind in ("application/json", "application/*", "*/*") if kind in weights), 0.0)
    html = weights.get("text/html", 0.0)
    return Wanted(html=html > json, json=json > 0)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
