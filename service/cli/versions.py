"""The commands about the versions of an index: list, verify, rollback, remove."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from model.errors import CarsearchError, IndexNotFound
from service.cli.options import IndexOption, JsonOption
from service.cli.output import out, say

if TYPE_CHECKING:
    from indexer.versions import IndexDirectory

app = typer.Typer(help="List, verify, switch and remove the versions of an index.", no_args_is_help=True)


@app.command("list")
def list_versions(index_dir: IndexOption = Path("index"), json_: JsonOption = False) -> None:
    """List the versions, oldest first."""
    _list(index_dir, json_, verifying=False)


@app.command()
def verify(index_dir: IndexOption = Path("index"), json_: JsonOption = False) -> None:
    """Check every byte of every version and its model."""
    _list(index_dir, json_, verifying=True)


@app.command()
def rollback(
    version: Annotated[str | None, typer.Argument(help="By default the one before the current one.")] = None,
    index_dir: IndexOption = Path("index"),
    json_: JsonOption = False,
) -> None:
    """Go back to the version before, or to any other one; running servers follow."""
    from service.directory import open_directory

    current = open_directory(index_dir).rollback(version)
    _tell({"current": current}, f"CURRENT is now {current}.", json_)


@app.command()
def remove(
    version: Annotated[str, typer.Argument(help="Any but the current one.")],
    index_dir: IndexOption = Path("index"),
    json_: JsonOption = False,
) -> None:
    """Remove a version, and its model where no other version needs it."""
    from service.directory import open_directory

    open_directory(index_dir).remove(version)
    _tell({"removed": version}, f"removed {version}", json_)


def _tell(value: dict[str, Any], sentence: str, json_: bool) -> None:
    if json_:
        out.print_json(data=value)
    else:
        say(sentence)


def _list(index_dir: Path, json_: bool, *, verifying: bool) -> None:
    """Prints all versions; raises the first problem that is found, after all are printed."""
    from service.directory import open_directory

    directory = open_directory(index_dir)
    versions = directory.versions()
    try:
        current = directory.current()
    except IndexNotFound:
        if not versions:
            raise
        current = ""
    problems: list[CarsearchError] = []
    listed: list[dict[str, Any]] = []
    for version in versions:
        one: dict[str, Any] = {"id": version, "current": version == current}
        try:
            one |= _about(directory, version, verifying)
        except CarsearchError as problem:
            problems.append(problem)
            one["problem"] = str(problem)
        listed.append(one)
        if not json_:
            say(_line(one))
    if json_:
        out.print_json(data=listed)
    if problems:
        raise problems[0]


def _about(directory: "IndexDirectory", version: str, verifying: bool) -> dict[str, Any]:
    from indexer.decider import read_calibration

    manifest = directory.verify(version) if verifying else directory.manifest(version)
    fitted = read_calibration(directory.path_of(version), manifest)
    return {
        "created": manifest.created,
        "photos": manifest.count,
        "classes": manifest.gallery["classes"],
        "model": manifest.model_name,
        "storage": manifest.storage,
        "probability": fitted and {"photos": fitted.photos, "error": fitted.error, "auroc": fitted.auroc},
        "verified": verifying,
    }


def _line(one: dict[str, Any]) -> str:
    """A version in a line that begins with its id."""
    parts = [one["id"], *(["CURRENT"] if one["current"] else [])]
    if "problem" in one:
        return "  ".join([*parts, one["problem"]])
    parts += [f"{one['photos']} photos", f"{one['classes']} classes", one["model"], one["storage"]]
    return "  ".join([*parts, _fit_of(one["probability"]), *(["verified"] if one["verified"] else [])])


def _fit_of(probability: dict[str, Any] | None) -> str:
    """How the probability of an index's classes was fitted."""
    if probability is None:
        return "no probability"
    if not probability["photos"]:
        return "probability as shipped"
    auroc = "" if probability["auroc"] is None else f", AUROC {probability['auroc']:.3f}"  # None where all were right
    return f"probability fitted on {probability['photos']} photos, error {probability['error']:.3f}{auroc}"
