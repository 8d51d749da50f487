"""Looks for input that does what no input may.

python -m tests.soak.fuzz decode --seconds 600      the decode path
python -m tests.soak.fuzz archive --seconds 600     the archive reader
python -m tests.soak.fuzz api --seconds 600         a server, by the document that it gives of itself
python -m tests.soak.fuzz corpus FOLDER             every file below a folder, decoded and sent to a server once

What is found lies in `fuzz-findings`, with the command that shows it again.
"""

import argparse
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

FINDINGS = Path("fuzz-findings")
TIMEOUT_S = 20
RSS_LIMIT_MB = 2048
TOLD_CHARS = 20_000
"""Enough for the longest traceback and the statistics behind it."""

EXECUTED = re.compile(r"stat::number_of_executed_units:\s*(\d+)")
COVERED = re.compile(r"cov: (\d+)")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run of the fuzzer ended: inputs tried, edges reached, what was found, and the end of what it wrote."""

    executions: int
    covered: int
    findings: list[Path]
    told: str


def fuzz(target: str, seconds: int, corpus: Path | None = None, findings: Path = FINDINGS) -> Outcome:
    """Runs a target in a process of its own for some seconds, or until it finds something.

    `corpus` keeps what reached something new, for the next run.
    """
    findings.mkdir(parents=True, exist_ok=True)
    known = set(findings.iterdir())
    with tempfile.TemporaryDirectory(prefix="carsearch-fuzz-") as scratch:
        seeds = Path(scratch) / "seeds"
        kept = corpus or Path(scratch) / "corpus"
        for folder in (seeds, kept):
            folder.mkdir(parents=True, exist_ok=True)
        _write_seeds(target, seeds)
        # A child is told to have had the peak of who started it.
        limit_mb = RSS_LIMIT_MB + resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        options = (
            f"-max_total_time={seconds}", f"-timeout={TIMEOUT_S}", f"-rss_limit_mb={limit_mb}",
            f"-artifact_prefix={findings}/{target}-", "-print_final_stats=1",
        )  # fmt: skip
        command = [sys.executable, "-m", "tests.soak.fuzz.child", target, *options, str(kept), str(seeds)]
        done = subprocess.run(
            command, text=True, errors="replace", stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            timeout=seconds + 300, check=False,
        )  # fmt: skip
    executions, covered = EXECUTED.search(done.stdout), COVERED.findall(done.stdout)
    found = sorted(set(findings.iterdir()) - known)
    if executions is None or bool(done.returncode) != bool(found):
        raise RuntimeError(f"the fuzzer ended with {done.returncode}:\n{done.stdout[-TOLD_CHARS:]}")
    if not found and not known:
        shutil.rmtree(findings)
    return Outcome(int(executions[1]), int(covered[-1]) if covered else 0, found, done.stdout[-TOLD_CHARS:])


def _write_seeds(target: str, folder: Path) -> None:
    from tests.soak.fuzz.targets import write_seeds

    write_seeds(target, folder)


def main() -> int:
    """Exits with 1 when something was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak.fuzz", description="Looks for input that does harm.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("decode", "archive", "decode-unguarded", "archive-unguarded"):
        command = commands.add_parser(name)
        command.add_argument("--seconds", type=int, default=600)
        command.add_argument("--corpus", type=Path, help="a folder that keeps what was worth keeping")
    api = commands.add_parser("api")
    api.add_argument("--seconds", type=int, default=600)
    api.add_argument("--url", help="of a server that runs; by default one is started")
    corpus = commands.add_parser("corpus")
    corpus.add_argument("folder", type=Path)
    chosen = parser.parse_args()
    if chosen.command == "api":
        from tests.soak.fuzz.api import fuzz_own_server, fuzz_server

        done = fuzz_server(chosen.url, chosen.seconds) if chosen.url else fuzz_own_server(chosen.seconds)
        print(done.stdout)
        return done.returncode
    if chosen.command == "corpus":
        from tests.soak.fuzz.corpus import try_corpus

        told, bad = try_corpus(chosen.folder)
        print("\n".join(told + bad))
        return 1 if bad else 0
    outcome = fuzz(chosen.command, chosen.seconds, chosen.corpus)
    print(f"{chosen.command}: {outcome.executions:,} inputs, {outcome.covered:,} edges of Python reached")
    for path in outcome.findings:
        print(f"{outcome.told}\nfound {path}; again: python -m tests.soak.fuzz.child {chosen.command} {path}")
    return 1 if outcome.findings else 0


if __name__ == "__main__":
    sys.exit(main())
