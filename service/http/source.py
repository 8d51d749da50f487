"""What a search is for, in each form in which it may come: a file of a form, the body itself, or JSON."""

import base64
import binascii
from dataclasses import dataclass
from typing import Any, NoReturn

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request

from model.errors import EmptyFile
from service.errors import InvalidRequest, MalformedJson, PayloadTooLarge, UnsupportedContentType
from service.http.context import media_type
from service.http.parameters import refuse_field
from service.http.upload import multipart_body, receive_photo

PHOTO = "JPEG, PNG, WebP, AVIF or HEIC"
PHOTO_TYPES = "image/jpeg, image/png, image/webp, image/avif, image/heic"
BINARY = {"schema": {"type": "string", "format": "binary", "description": PHOTO}}
FETCH = (
    "The server fetches nothing from elsewhere; fetch the photo on your side and send it: "
    "curl URL | curl --data-binary @- -H 'Content-Type: image/jpeg' .../search"
)


class PhotoOrId(BaseModel):
    """A photo in base64, or the id of a photo of the gallery: one of the two."""

    model_config = ConfigDict(extra="forbid", strict=True)

    image: str | None = Field(None, description="The photo's bytes in base64.", examples=["/9j/4AAQSkZJRgABAQ..."])
    id: str | None = Field(None, description="A photo of the gallery; it is left out of the answer itself.")


BODY: dict[str, Any] = multipart_body("file", PHOTO_TYPES, PHOTO) | {
    "image/*": BINARY,
    "application/octet-stream": BINARY,
    "application/json": {"schema": PhotoOrId.model_json_schema()},
}


@dataclass(frozen=True, slots=True)
class GalleryId:
    """The id of a photo of the gallery, to be searched for by its own embedding."""

    text: str


@dataclass(frozen=True, slots=True)
class JsonBody:
    """JSON that has not been read yet: that takes too long for the event loop."""

    request: Request
    data: bytes

    def read(self, photo_bytes: int) -> bytes | GalleryId:
        """The photo, or the id. Raises MalformedJson, InvalidRequest, UnknownParameter, EmptyFile, PayloadTooLarge."""
        try:
            asked = PhotoOrId.model_validate_json(self.data)
        except ValidationError as problem:
            self._refuse(problem)
        if (asked.image is None) == (asked.id is None):
            raise InvalidRequest('The body must be {"image": "<base64>"} or {"id": "<id of a gallery photo>"}.')
        if asked.image is None:
            return GalleryId(asked.id or "")
        try:
            photo = base64.b64decode(asked.image, validate=True)
        except (binascii.Error, ValueError) as problem:
            raise InvalidRequest(
                '"image" is not base64: it is one line of A-Z a-z 0-9 + / with = at its end, without "data:" in front.'
            ) from problem
        if len(photo) > photo_bytes:
            raise PayloadTooLarge(f"The photo is larger than {photo_bytes} bytes.")
        if not photo:
            raise EmptyFile("The file is empty.")
        return photo

    def _refuse(self, problem: ValidationError) -> NoReturn:
        errors = problem.errors(include_url=False, include_input=False, include_context=False)
        if errors[0]["type"] == "json_invalid":
            raise MalformedJson("The body is not valid JSON.") from None
        for error in errors:
            if error["type"] == "extra_forbidden":
                if error["loc"] == ("url",):
                    raise InvalidRequest(FETCH) from None
                refuse_field(self.request, str(error["loc"][0]), "JSON field")
        raise InvalidRequest('The body must be {"image": "<base64>"} or {"id": "<id of a gallery photo>"}.') from None


async def receive_source(request: Request) -> bytes | JsonBody:
    """A photo, or JSON to be read in another thread; raises what `receive_photo` and the middlewares raise."""
    kind = media_type(request.scope)
    if kind == "multipart/form-data":
        return await receive_photo(request)
    if kind == "application/json":
        return JsonBody(request, await request.body())
    if kind == "application/octet-stream" or kind.startswith("image/"):
        if not (photo := await request.body()):
            raise EmptyFile("The file is empty.")
        return photo
    raise UnsupportedContentType(
        'Send the photo in a form, as its file "file"; as the body, with a content type such as image/jpeg; or as '
        'JSON, {"image": "<base64>"}.'
    )
