"""Every setting of the server: the only reader of the environment (prefix CARSEARCH_).

docs/settings.md lists them all; a test holds it to this file.
"""

import ipaddress
import os
import re
import tempfile
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from model.dataset import MAX_FILE_BYTES
from model.errors import SettingsInvalid

PREFIX = "CARSEARCH_"
MIB = 1 << 20
# What Kubernetes puts into every container of a namespace that has a Service named carsearch.
OF_KUBERNETES = re.compile(
    rf"{PREFIX}(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"
)

PositiveInt = Annotated[int, Field(gt=0)]
PositiveSeconds = Annotated[float, Field(gt=0)]


class Settings(BaseSettings):
    """What an operator may choose; each field is the variable CARSEARCH_<NAME IN CAPITALS>."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True)

    index_dir: Path = Field(Path("index"), description="Index directory that `carsearch index` writes.")
    model: str | None = Field(
        None, description="Name or directory of the model that the index must have been built with."
    )
    runtime: Literal["auto", "openvino", "torch"] = Field(
        "auto", description="`openvino`, `torch`, or `auto`: torch where CUDA is, else OpenVINO."
    )
    cache_dir: Path | None = Field(None, description="Where compiled graphs are kept between starts.")
    gallery_dir: Path | None = Field(
        None, description="Where the photos lie, if not where they lay when they were indexed."
    )
    datasets: dict[str, Path] = Field(
        {}, description='Labelled sets for `/evaluate` by name, as JSON: `{"val": "/data/val"}`.'
    )

    search_threads: PositiveInt = Field(
        len(os.sched_getaffinity(0)), description="Threads that decode, embed and search; one a core by default."
    )
    max_queue: PositiveInt = Field(64, description="Searches and gallery images that may wait; more get 429.")
    request_deadline_s: PositiveSeconds = Field(
        10, description="Longest time from a whole upload to its answer, in seconds."
    )
    head_deadline_s: PositiveSeconds = Field(
        10, description="Longest time for a request's line and headers, in seconds."
    )
    body_deadline_s: PositiveSeconds = Field(15, description="Longest time for an upload to `/search`, in seconds.")
    write_deadline_s: PositiveSeconds = Field(
        30, description="Longest time that a client may leave an answer unread, in seconds."
    )
    max_body_bytes: PositiveInt = Field(10 * MIB, description="Largest body, but for archives sent to `/evaluate`.")
    max_uploads_bytes: PositiveInt = Field(
        256 * MIB, description="Most that photos being received and searched may take together; more get 429."
    )

    keys_file: Path | None = Field(
        None, description="API keys, a line each: `KEY HOLDER SCOPE`, with the scope `search` or `admin`."
    )
    rate_limit: str | None = Field(
        None, description="Most requests of one client, as in `20/second` or `20/second;1000/hour`."
    )
    trusted_proxies: str | None = Field(
        None, description="Addresses and networks of proxies whose `X-Forwarded-For` is believed, with commas."
    )

    max_archive_bytes: PositiveInt = Field(512 * MIB, description="Largest body of `POST /evaluate`.")
    min_upload_bytes_per_s: PositiveInt = Field(16 * 1024, description="Slowest upload, after the first seconds.")
    max_archive_entries: PositiveInt = Field(20_000, description="Most files in an archive.")
    max_archive_total_bytes: PositiveInt = Field(
        2048 * MIB, description="Largest sum of the unpacked files of an archive."
    )
    max_photo_bytes: PositiveInt = Field(MAX_FILE_BYTES, description="Largest unpacked file in an archive.")
    max_sync_photos: PositiveInt = Field(
        500, description="Largest set that `/evaluate` answers at once; more need async."
    )
    spool_dir: Path = Field(
        Path(tempfile.gettempdir()), description="Where an uploaded archive lies, unlinked, while it is read."
    )
    state_dir: Path | None = Field(
        None, description="Where evaluations are recorded, shared by replicas; by default private to the process."
    )

    watch_interval_s: PositiveSeconds = Field(1, description="How often CURRENT is looked at, in seconds.")
    drain_s: Annotated[float, Field(ge=0)] = Field(
        0, description="How long requests are still answered after SIGTERM, while `/readyz` says no, in seconds."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
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


def load_settings(**chosen: object) -> Settings:
    """Settings from the environment, overridden by what the command line chose (None means not chosen).

    Raises SettingsInvalid naming variable and rule. A variable with our prefix that is none of ours is an error too:
    a misspelt setting that is silently ignored is found in production.
    """
    known = {f"{PREFIX}{name}".upper() for name in Settings.model_fields}
    ours = (name for name in os.environ if name.upper().startswith(PREFIX) and not OF_KUBERNETES.fullmatch(name))
    unknown = sorted(name for name in ours if name.upper() not in known)
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
