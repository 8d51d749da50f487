"""Every setting of the server: the only reader of the environment (prefix CARSEARCH_).

docs/settings.md lists them all; a test holds it to this file.
"""

import ipaddress
import logging
import os
import re
import tempfile
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from model.cores import available_cores
from model.errors import SettingsInvalid

PREFIX = "CARSEARCH_"
log = logging.getLogger("carsearch")
MIB = 1 << 20
KUBERNETES = re.compile(
    rf"{PREFIX}(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"
)
"""Variables that Kubernetes sets in every container beside a Service whose name begins with carsearch."""

ROUTES = "docs|evaluate|evaluations|gallery|info|livez|metrics|openapi.json|readyz|search|static-offline-docs|web"
ROOT_PATH = re.compile(rf"(?!/({ROUTES})(/|$))(/(?!\.{{1,2}}(/|$))[A-Za-z0-9._~-]+)+")
"""A path that stays on this server: no empty segment, which would make it another server's, and none of dots.

It does not begin as an address of ours, which could not be told from one below the prefix.
"""

ORIGIN = re.compile(r"\*|https?://[a-z0-9.-]+(:[0-9]+)?|https?://\[[0-9a-f:]+\](:[0-9]+)?")
"""As browsers write it: in small letters, without a path."""

REMOVED = frozenset(f"{PREFIX}{name}" for name in (
    "BODY_DEADLINE_S", "HEAD_DEADLINE_S", "MAX_ARCHIVE_BYTES", "MAX_ARCHIVE_ENTRIES", "MAX_ARCHIVE_TOTAL_BYTES",
    "MAX_PHOTO_BYTES", "MAX_SYNC_PHOTOS", "MIN_UPLOAD_BYTES_PER_S", "RATE_LIMIT", "WATCH_INTERVAL_S",
    "WRITE_DEADLINE_S",
))  # fmt: skip
"""Settings of 0.1 that are constants now; for one release they are warned about and not refused."""

CLIENTS = frozenset({f"{PREFIX}KEY"})
"""Variables of clients in the same environment, which mean nothing to the server: the key of `carsearch search`."""

PositiveInt = Annotated[int, Field(gt=0)]
PositiveSeconds = Annotated[float, Field(gt=0)]


class Settings(BaseSettings):
    """What an operator may choose; each field is the variable CARSEARCH_<NAME IN CAPITALS>."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, extra="forbid", frozen=True)

    index_dir: Path = Field(Path("index"), description="Index directory that `carsearch index` writes.")
    model: str | None = Field(
        None, description="Name or directory of the model that the index must have been built with."
    )
    runtime: Literal["auto", "openvino", "onnx", "torch", "fake"] = Field(
        "auto",
        description="`openvino`, `onnx`, `torch`, or `auto`: torch where CUDA is, else OpenVINO, on ARM ONNX Runtime. "
        "`fake` is for tests.",
    )
    cache_dir: Path | None = Field(None, description="Where compiled graphs are kept between starts.")
    gallery_dir: Path | None = Field(
        None, description="Where the photos lie, if not where they lay when they were indexed."
    )
    delta_dir: Path | None = Field(
        None, description="Where photos that are put are kept, with what was deleted; unset, the gallery cannot change."
    )
    datasets: dict[str, Path] = Field(
        {}, description='Labelled sets for `/evaluate` by name, as JSON: `{"val": "/data/val"}`.'
    )

    search_threads: PositiveInt = Field(
        default_factory=available_cores, description="Threads that decode, embed and search; one a core by default."
    )
    max_queue: PositiveInt = Field(64, description="Searches and gallery images that may wait; more get 429.")
    request_deadline_s: PositiveSeconds = Field(
        10, description="Longest time from a whole upload to its answer, in seconds."
    )
    max_body_bytes: PositiveInt = Field(
        10 * MIB,
        description="Largest photo, and body but for base64, batches, and archives sent to `/evaluate`.",
    )
    max_uploads_bytes: PositiveInt = Field(
        256 * MIB, description="Most that photos being received and searched may take together; more get 429."
    )

    precision: Annotated[float, Field(ge=0.5, le=0.99)] = Field(
        0.95, description="How often a class that an answer names must be right; else it is `unsure`."
    )

    keys_file: Path | None = Field(
        None, description="API keys, a line each: `KEY HOLDER SCOPE`, with the scope `search` or `admin`."
    )
    link_secret_file: Path | None = Field(
        None, description="Secret that signs the images' links where keys are asked for; the same for all replicas."
    )
    trusted_proxies: str | None = Field(
        None,
        description="Addresses and networks of proxies whose `X-Forwarded-For`, `-Proto` and `-Prefix` are believed, "
        "with commas.",
    )
    root_path: str | None = Field(
        None, description="What a proxy puts in front of the paths, as `/cars`; it may take it off or pass it on."
    )
    cors_origins: str | None = Field(
        None,
        description="Origins whose pages may search and read, with commas, as `https://shop.example`; `*` for all.",
    )

    keep_alive_s: PositiveSeconds = Field(
        65,
        description="How long a connection may wait for its next request, in seconds; longer than proxies in front do.",
    )

    spool_dir: Path = Field(
        Path(tempfile.gettempdir()), description="Where an uploaded archive lies, unlinked, while it is read."
    )
    state_dir: Path | None = Field(
        None,
        description="Where evaluations are recorded, shared by replicas, and index versions that crashed a server "
        "or were verified; by default a temporary directory of the process.",
    )
    drain_s: Annotated[float, Field(ge=0)] = Field(
        0, description="How long requests are still answered after SIGTERM, while `/readyz` says no, in seconds."
    )
    log_level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(str.lower)] = Field(
        "info", description="Least severe log record written."
    )
    log_format: Literal["text", "json"] = Field("text", description="Log lines for people, or JSON for machines.")

    @field_validator("trusted_proxies")
    @classmethod
    def _are_networks(cls, value: str | None) -> str | None:
        for one in filter(None, (part.strip() for part in (value or "").split(","))):
            try:
                ipaddress.ip_network(one)
            except ValueError as problem:
                raise ValueError(f"{one[:50]!r} is no address and no network") from problem
        return value

    @field_validator("root_path")
    @classmethod
    def _is_path(cls, value: str | None) -> str | None:
        path = (value or "").rstrip("/")
        if path and not ROOT_PATH.fullmatch(path):
            raise ValueError(f"{path[:50]!r} is no path like '/cars', or begins as an address of carsearch")
        return path or None

    @field_validator("cors_origins")
    @classmethod
    def _are_origins(cls, value: str | None) -> str | None:
        for one in (value or "*").split(","):
            if not ORIGIN.fullmatch(one.strip()):
                raise ValueError(f"{one[:50]!r} is no origin like 'https://shop.example'")
        return value


def load_settings(**chosen: object) -> Settings:
    """Settings from the environment, overridden by what the command line chose (None means not chosen).

    Raises SettingsInvalid naming variable and rule. A variable with our prefix that is none of ours is an error too:
    a misspelt setting that is silently ignored is found in production.
    """
    known = {f"{PREFIX}{name}".upper() for name in Settings.model_fields}
    given = {name.upper() for name, value in os.environ.items() if name.upper().startswith(PREFIX) and value}
    for name in sorted(given & REMOVED):
        log.warning("%s is not a setting any more and does nothing; docs/settings.md lists what there is.", name)
    unknown = sorted(name for name in given - known - REMOVED - CLIENTS if not KUBERNETES.fullmatch(name))
    if unknown:
        raise SettingsInvalid(f"There is no setting {unknown[0]}; docs/settings.md lists them.")
    try:
        return Settings(**{name: value for name, value in chosen.items() if value is not None})  # type: ignore[arg-type]
    except ValidationError as problem:
        first = problem.errors(include_url=False, include_input=False)[0]
        name = PREFIX + str(first["loc"][0]).upper()
        raise SettingsInvalid(f"{name} is wrong: {first['msg']}.") from problem
    except ValueError as problem:  # the one setting whose text is parsed before it is validated
        raise SettingsInvalid(f'{PREFIX}DATASETS is wrong: it must be JSON, as in {{"val": "/data/val"}}.') from problem
