"""The OpenAPI document as a file, for those who make clients: `docs/openapi.json`, which a test holds to the server."""

import json
from pathlib import Path

from service.http.app import API_ROUTES, create_app
from service.http.document import describe
from service.settings import load_settings

EXPORTED = Path(__file__).resolve().parent.parent / "docs" / "openapi.json"


def exported() -> str:
    """The document of a server that asks for keys, as the file has it."""
    document = describe(create_app(load_settings()), API_ROUTES, keyed=True)
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"
