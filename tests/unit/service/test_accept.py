"""Content negotiation between HTML and JSON."""

import pytest

from service.http.accept import wanted


@pytest.mark.parametrize(
    ("accept", "html", "json"),
    [
        ("", False, True),
        ("*/*", False, True),
        ("text/html", True, False),
        ("TEXT/HTML; charset=utf-8", True, False),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", True, True),
        ("application/json, text/html, application/problem+json", False, True),  # a generated client's
        ("text/html, application/json;q=0.9", True, True),
        ("application/json, text/html;q=0.9", False, True),
        ("text/html;q=0.5, application/*;q=0.4", True, True),
        ("text/html;q=0, */*", False, True),
        ("text/html;q=high, */*", False, True),
        ("application/json;q=0, text/html", True, False),
        ("image/png", False, False),
        (",;,", False, False),
    ],
)
def test_html_is_wanted_where_it_is_named_and_liked_better_than_json(accept: str, html: bool, json: bool) -> None:
    assert wanted(accept) == (html, json)
