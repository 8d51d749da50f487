"""Asks a server through the client that openapi-python-client has generated; see ../test_clients.py."""

import sys
from io import BytesIO
from pathlib import Path

from carsearch_client import AuthenticatedClient
from carsearch_client.api.gallery import get_gallery_image
from carsearch_client.api.search import search
from carsearch_client.models import Problem, SearchFilesBody, SearchResponse
from carsearch_client.types import File, Response

url, malformed, full, unready, key, photo, text = sys.argv[1:]


def asked(
    server: str, path: str = photo, api_key: str = key, class_: list[str] | None = None, where: str | None = None
) -> Response[Problem | SearchResponse]:
    body = SearchFilesBody(file=File(BytesIO(Path(path).read_bytes()), "photo.jpg"))
    with AuthenticatedClient(base_url=server, token=api_key) as client:
        return search.sync_detailed(client=client, body=body, k=2, class_=class_, where=where)


def refused(answer: Response[Problem | SearchResponse]) -> None:
    assert isinstance(answer.parsed, Problem)
    code: str = answer.parsed.code
    print(answer.status_code.value, code)


found = asked(url).parsed
assert isinstance(found, SearchResponse)
assert found.nearest is not None
print("search", found.nearest.class_)
some = asked(url, class_=["car 2"]).parsed
assert isinstance(some, SearchResponse)
print("filtered", *[hit.class_ for hit in some.results])
priced = asked(url, where="price > 1000000").parsed
assert isinstance(priced, SearchResponse)
for hit in priced.results:
    print("where", hit.class_, hit.metadata["price"], hit.metadata["colour"])
with AuthenticatedClient(base_url=url, token=key) as client:
    image = get_gallery_image.sync(found.nearest.id, client=client)
assert isinstance(image, File)
print("image", image.payload.read(3).hex())
refused(asked(malformed))
refused(asked(url, api_key="none"))
refused(asked(url, path=text))
refused(asked(url, class_=["spaceship"]))
refused(asked(full))
refused(asked(unready))
