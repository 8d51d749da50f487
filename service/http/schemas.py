"""What goes over HTTP, as types: requests, responses and the one error shape."""

from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, WithJsonSchema

from service.engine import Versions
from service.jobs import EvaluationSummary

Cell = Annotated[
    int | float | str, WithJsonSchema({"anyOf": [{"type": "number", "format": "double"}, {"type": "string"}]})
]
"""A value of metadata. Generated clients would read a number without a format in 32 bits."""


class Schema(BaseModel):
    """Base: immutable, and a field that is not declared is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Explanation(Schema):
    """Why a photo matches: what each place of the two photos adds to the score, row by row from the top left.

    The numbers of each map and `constant` add up to the score. A map lies over what the model sees of the photo, or of
    the box.
    """

    query: list[list[float]]
    hit: list[list[float]]
    constant: float = Field(description="What no place adds; 0 for the models that ship.")
    square: float | None = Field(
        description="For a model that sees a central square of a photo: its side, as a share of the shorter side. null "
        "for one that sees the whole photo, as those that ship do."
    )


class Hit(Schema):
    """One photo of the gallery."""

    rank: int = Field(description="From 1.")
    id: str
    label: str | None = Field(
        serialization_alias="class", validation_alias="class", description="null for a photo without a class."
    )
    score: float = Field(description="Cosine of the embeddings, -1 to 1.")
    image: str = Field(description="Path of the photo on this server.")
    metadata: dict[str, Cell] = Field(description="Its cells of the gallery's spreadsheet; none empty.")
    explanation: Explanation | None = Field(
        None, description="With `explain`; null after the fifth photo, and for one that is no longer there."
    )


class Decision(Schema):
    """The class that the ten nearest photos of the whole gallery speak for, whatever `k` is."""

    outcome: Literal["class", "unsure", "not_a_car"] = Field(
        description="`unsure` where such decisions are right less often than wanted, `not_a_car` where the photo "
        "probably shows none."
    )
    label: str = Field(serialization_alias="class", validation_alias="class")
    probability: float = Field(description="That the class is right, if it is in the gallery at all.")
    agreement: float = Field(description="Share of the ten nearest photos that are of the class.")
    car_probability: float | None = Field(description="That the photo shows a car; null for a model that cannot tell.")


class Timings(Schema):
    """Where the time went, in milliseconds; `queue` is the wait for a free thread and for the batch before."""

    queue: float
    decode: float
    forward: float
    search: float
    total: float


class SearchResponse(Schema):
    """The nearest photo, the first k with it, and the class that they speak for."""

    nearest: Hit | None
    results: list[Hit]
    decision: Decision | None = Field(
        description="null where classes or a filter were asked for, or no near photo has a class."
    )
    versions: Versions
    timings_ms: Timings


class GalleryPhoto(Schema):
    """One photo of the gallery, as a list tells it."""

    id: str
    label: str | None = Field(serialization_alias="class", validation_alias="class")
    image: str = Field(description="Path of the photo on this server.")
    metadata: dict[str, Cell] = Field(description="Its cells of the gallery's spreadsheet; none empty.")


class GalleryPage(Schema):
    """Some photos of the gallery, in its order."""

    photos: list[GalleryPhoto]
    next: int | None = Field(description="`after` for the next page; null at the end.")
    total: int = Field(description="Photos that pass, on all pages.")


class Duplicate(Schema):
    """Two photos that show the same; the later one in the list of the gallery stands second."""

    photos: list[GalleryPhoto]
    score: float = Field(description="Cosine of the embeddings; 1 for copies of a file.")
    same_file: bool = Field(description="Whether both are the same file, byte for byte.")


class DuplicatesPage(Schema):
    """Some pairs: first all copies of a file, each with the first photo of that file, and then near copies."""

    duplicates: list[Duplicate]
    next: str | None = Field(description="`after` for the next page; null at the end. A page may be empty before it.")
    min_score: float | None = Field(
        description="The score from which photos are near copies, for the next page; null while copies are told."
    )
    compared: int = Field(description="Photos whose near copies have been looked for, on all pages so far.")
    total: int = Field(description="Photos of the gallery.")


class Problem(Schema):
    """An error, by RFC 9457; `code` is stable, `detail` is one sentence for people."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str


class Answered(Schema):
    """A photo of a batch that was searched for; `name` is its file name."""

    name: str | None
    result: SearchResponse


class Refused(Schema):
    """A photo of a batch that was not."""

    name: str | None
    problem: Problem


class PhotoPut(Schema):
    """A photo of a form that was put; `name` is its file name."""

    name: str | None
    photo: GalleryPhoto


class PutManyResponse(Schema):
    """What came of each photo of a form, in their order."""

    photos: list[PhotoPut | Refused]


class BatchResponse(Schema):
    """What each photo of a batch got, in their order."""

    results: list[Answered | Refused]


class DatasetRequest(BaseModel):
    """A labelled set that the settings name."""

    model_config = ConfigDict(extra="forbid")

    dataset: str


class EvaluationList(Schema):
    """Past evaluations and those that run, newest first."""

    evaluations: list[EvaluationSummary]


class Info(Schema):
    """What is being served."""

    version: str
    ready: bool
    versions: Versions | None
    photos: int
    classes: int
    runtime: str | None
    precision: str | None
    index_created: str | None
    serving_since: AwareDatetime | None = Field(description="When this server began to answer with the version.")
    datasets: list[str]
    metadata: dict[str, Literal["text", "number", "date"]] = Field(description="Columns to filter by, and their kinds.")
    may_change: bool = Field(description="Whether whoever asks may put and delete photos here.")
    refused_version: str | None = Field(description="A version that CURRENT names but that did not verify.")
