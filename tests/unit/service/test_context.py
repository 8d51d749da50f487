"""Rules of routes: each says what it asks, and middlewares find the route of a path."""

import pytest
from fastapi import APIRouter, FastAPI

from service.http.access_log import RouteTable
from service.http.context import RouteInfo, Rules, rules


@pytest.fixture(scope="module")
def table() -> RouteTable:
    app, router = FastAPI(), APIRouter()

    @router.get("/item/{identity}")
    @rules(key_scope="search")
    async def item(identity: str) -> str:
        return identity

    @router.delete("/item/{identity}")
    @rules(key_scope="search")
    async def delete(identity: str) -> str:
        return identity

    @router.get("/probe")
    @rules(polled=True)
    async def probe() -> str:
        return ""

    app.include_router(router)
    return RouteTable([*app.routes, *router.routes])


def test_a_path_leads_to_the_rules_of_its_route(table: RouteTable) -> None:
    assert (table.find("/probe").template, table.find("/probe").rules) == ("/probe", Rules(polled=True))
    found = table.find("/item/a-name")
    assert (found.template, found.rules) == ("/item/{identity}", Rules(key_scope="search"))


def test_a_path_of_two_routes_has_the_methods_of_both(table: RouteTable) -> None:
    assert table.find("/item/x").methods == ("DELETE", "GET")


@pytest.mark.parametrize("path", ["/", "/nowhere", "/item", "/item/a/b", "/probe/", "//probe", ""])
def test_a_path_that_leads_nowhere_has_no_rules(table: RouteTable, path: str) -> None:
    assert table.find(path) == RouteInfo()
