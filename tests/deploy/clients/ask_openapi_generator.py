"""Asks a server through the client that openapi-generator has generated for Python; see ../test_clients.py."""

import sys
from collections.abc import Callable
from pathlib import Path

from openapi_client import ApiClient, Configuration, GalleryApi, Problem, SearchApi, SearchResponse
from openapi_client.exceptions import ApiException

url, malformed, full, unready, key, photo, text = sys.argv[1:]


def client(server: str, api_key: str = key) -> ApiClient:
    return ApiClient(Configuration(host=server, access_token=api_key))


def asked(
    server: str, path: str = photo, api_key: str = key, class_: list[str] | None = None, where: str | None = None
) -> SearchResponse:
    file = ("photo.jpg", Path(path).read_bytes())
    form = "multipart/form-data"  # the client would say that it sends JSON, which /search takes too
    return SearchApi(client(server, api_key)).search(file, k=2, var_class=class_, where=where, _content_type=form)


def refused(ask: Callable[[], SearchResponse]) -> None:
    problem = None
    try:
        ask()
    except ApiException as error:
        problem = error.data
    assert isinstance(problem, Problem)
    print(problem.status, problem.code)


found = asked(url)
assert found.nearest is not None
print("search", found.nearest.var_class)
print("filtered", *[hit.var_class for hit in asked(url, class_=["car 2"]).results])
for hit in asked(url, where="price > 1000000").results:
    print("where", hit.var_class, *[hit.metadata[name].actual_instance for name in ("price", "colour")])
print("image", bytes(GalleryApi(client(url)).get_gallery_image(found.nearest.id))[:3].hex())
refused(lambda: asked(malformed))
refused(lambda: asked(url, api_key="none"))
refused(lambda: asked(url, path=text))
refused(lambda: asked(url, class_=["spaceship"]))
refused(lambda: asked(full))
refused(lambda: asked(unready))
