"""Stands in for `docker` where there is no engine: what a document says to type is held to the real Compose.

Compose itself gets every command. It may fail because there is no engine, and for no other reason. A job that would
run in a container runs here, with the volumes' places in the container exchanged for folders; `up` runs the one-shot
jobs and waits for the server that the test has running.
"""

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from argparse import REMAINDER, ArgumentParser
from pathlib import Path
from typing import Any

COMPOSE = os.environ["STAND_IN_COMPOSE"]
VOLUMES = Path(os.environ["STAND_IN_VOLUMES"])
READY = os.environ["STAND_IN_READY"]
CONTAINERS = ["first", "second"]
NO_ENGINE = "Cannot connect to the Docker daemon"
READY_S = 60


def main(arguments: list[str]) -> int:
    """Returns what `docker` would exit with."""
    if arguments[0] in ("stop", "rm") and set(arguments[1:]) <= set(CONTAINERS):
        return 0
    if arguments[0] != "compose":
        return wrong(f"docker {' '.join(arguments)} is not understood")
    done = compose(*arguments[1:])
    if done.returncode == 0 or NO_ENGINE not in done.stderr:
        return wrong(done.stderr)
    parser = ArgumentParser()
    parser.add_argument("--profile", action="append", default=[])
    parser.add_argument("command")
    parser.add_argument("rest", nargs=REMAINDER)
    asked = parser.parse_args(arguments[1:])
    if asked.command == "ps":
        print(*CONTAINERS, sep="\n")  # noqa: T201  # what is asked for
    if asked.command == "run":
        return run(asked.rest)
    return up(asked.profile, "--wait" in asked.rest) if asked.command == "up" else 0


def wrong(why: str) -> int:
    """The status of a command that Docker would refuse."""
    sys.stderr.write(f"{why}\n")
    return 64


def compose(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Runs the real Compose, which finds no engine."""
    environment = {**os.environ, "DOCKER_HOST": f"unix://{VOLUMES}/no-engine"}
    return subprocess.run(
        [COMPOSE, *arguments], env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )


def services(*profiles: str) -> dict[str, Any]:
    """The services as Compose understands them."""
    chosen = [word for name in profiles for word in ("--profile", name)]
    done = compose(*chosen, "config", "--format", "json")
    if done.returncode:
        sys.exit(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout)["services"]
    return found


def up(profiles: list[str], wait: bool) -> int:
    """Runs the jobs that others wait for, and waits until a search would be answered."""
    started = services(*profiles)
    for service in started.values():
        for name, how in service.get("depends_on", {}).items():
            if how["condition"] == "service_completed_successfully" and (status := job(started[name], None, [])):
                return status
    deadline = time.monotonic() + READY_S
    while wait and time.monotonic() < deadline:
        try:
            urllib.request.urlopen(READY, timeout=5).close()  # noqa: S310  # the test's own
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)
        else:
            return 0
    return int(wait)


def run(words: list[str]) -> int:
    """`run` starts a service of any profile."""
    parser = ArgumentParser()
    parser.add_argument("--rm", action="store_true")
    parser.add_argument("-T", action="store_true")
    parser.add_argument("--entrypoint")
    parser.add_argument("service")
    parser.add_argument("command", nargs=REMAINDER)
    asked = parser.parse_args(words)
    return job(services("*")[asked.service], asked.entrypoint, asked.command)


def job(service: dict[str, Any], entrypoint: str | None, words: list[str]) -> int:
    """Runs here what would run in a container."""
    places = dict(place(volume) for volume in service["volumes"])
    program = [entrypoint] if entrypoint else service["entrypoint"] or ["carsearch"]
    argv = [*program, *(words or ([] if entrypoint else service["command"] or []))]
    return subprocess.run([moved(word, places) for word in argv], check=False).returncode


def place(volume: dict[str, Any]) -> tuple[str, Path]:
    """Where something lies in the container, and here."""
    folder = Path(volume["source"]) if volume["type"] == "bind" else VOLUMES / volume["source"]
    folder.mkdir(parents=True, exist_ok=True)
    return volume["target"], folder


def moved(word: str, places: dict[str, Path]) -> str:
    """A path in the container -> the path here; any other word as it is."""
    for target, folder in places.items():
        if word == target or word.startswith(f"{target}/"):
            return str(folder) + word.removeprefix(target)
    return word


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
