"""Stands in for `docker` where there is no engine: what a document says to type is held to the real compose file.

Debian's docker-compose reads the file, with .env and overlays. A job that would run in a container runs here, with the
volumes' places in the container exchanged for folders; `up` runs the one-shot jobs and waits for the server that the
test has running. Services, options and containers that are not there are errors.
"""

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

VOLUMES = Path(os.environ["STAND_IN_VOLUMES"])
READY = os.environ["STAND_IN_READY"]
CONTAINERS = ["first", "second"]
OPTIONS = {  # of Docker's compose plugin; True: takes a value
    "up": {"-d": False, "--wait": False, "--no-deps": False, "--no-recreate": False, "--scale": True},
    "run": {"--rm": False, "-T": False, "--entrypoint": True},
    "build": {},
    "logs": {"--since": True},
    "ps": {"-q": False},
}
PROFILES = ("gpu", "index", "index-gpu", "train", "monitoring")
READY_S = 60


def main(arguments: list[str]) -> int:
    """Returns what `docker` would exit with."""
    if arguments[0] in ("stop", "rm") and set(arguments[1:]) <= set(CONTAINERS):
        return 0
    if arguments[0] != "compose":
        return usage(f"docker {' '.join(arguments)}")
    rest, profiles = arguments[1:], [*filter(None, os.environ.get("COMPOSE_PROFILES", "").split(","))]
    while rest[0] == "--profile":
        profiles.append(rest[1])
        rest = rest[2:]
    command, options, rest = split(rest)
    if command == "run":
        return run(rest[0], rest[1:], options)
    config = read(profiles)
    scaled = [value.partition("=")[0] for name, value in options if name == "--scale"]
    unknown = {*rest, *scaled} - config["services"].keys()
    if unknown:
        return usage(f"no service {unknown}")
    if command == "ps":
        print(*CONTAINERS, sep="\n")  # noqa: T201  # what is asked for
    if command == "up":
        return up(config, options)
    return 0


def usage(wrong: str) -> int:
    """The status of a command that Docker would not understand."""
    sys.stderr.write(f"{wrong} is not understood\n")
    return 64


def split(words: list[str]) -> tuple[str, list[tuple[str, str]], list[str]]:
    """A subcommand's name, its options with their values, and what follows them."""
    command, rest, options = words[0], words[1:], []
    known = OPTIONS[command]
    while rest and rest[0].startswith("-"):
        takes = known[rest[0]]
        options.append((rest[0], rest[1] if takes else ""))
        rest = rest[2:] if takes else rest[1:]
    return command, options, rest


def read(profiles: list[str]) -> dict[str, Any]:
    """The configuration as docker-compose understands it."""
    environment = {name: value for name, value in os.environ.items() if name != "COMPOSE_PROFILES"}
    chosen = [word for name in profiles for word in ("--profile", name)]
    done = subprocess.run(["docker-compose", *chosen, "config"], env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    config: dict[str, Any] = yaml.safe_load(done.stdout)
    return config


def up(config: dict[str, Any], options: list[tuple[str, str]]) -> int:
    """Runs the jobs that others wait for, and waits until a search would be answered."""
    for service in config["services"].values():
        for name, how in service.get("depends_on", {}).items():
            if how["condition"] == "service_completed_successfully" and (status := job(config, name, None, [])):
                return status
    deadline = time.monotonic() + READY_S
    while ("--wait", "") in options and time.monotonic() < deadline:
        try:
            urllib.request.urlopen(READY, timeout=5).close()  # noqa: S310  # the test's own
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)
        else:
            return 0
    return int(("--wait", "") in options)


def run(name: str, words: list[str], options: list[tuple[str, str]]) -> int:
    """`run` starts a service of any profile."""
    config = read(list(PROFILES))
    if name not in config["services"]:
        return usage(f"no service {name}")
    return job(config, name, dict(options).get("--entrypoint"), words)


def job(config: dict[str, Any], name: str, entrypoint: str | None, words: list[str]) -> int:
    """Runs here what would run in a container."""
    service = config["services"][name]
    places = dict(place(volume) for volume in service["volumes"])
    program = [entrypoint] if entrypoint else service.get("entrypoint") or ["carsearch"]
    argv = [*program, *(words or ([] if entrypoint else service.get("command") or []))]
    return subprocess.run([moved(word, places) for word in argv], check=False).returncode


def place(volume: str) -> tuple[str, Path]:
    """Where something lies in the container, and here."""
    source, target = volume.split(":")[:2]
    folder = Path(source) if source.startswith("/") else VOLUMES / source
    folder.mkdir(parents=True, exist_ok=True)
    return target, folder


def moved(word: str, places: dict[str, Path]) -> str:
    """A path in the container -> the path here; any other word as it is."""
    for target, folder in places.items():
        if word == target or word.startswith(f"{target}/"):
            return str(folder) + word.removeprefix(target)
    return word


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
