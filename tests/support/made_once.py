"""Models, and tools, that take seconds to make: made by the first test process that asks, and kept between runs."""

import fcntl
import hashlib
import shutil
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / ".pytest_cache" / "models"
SOURCES = ("model", "tests/conftest.py", "tests/support/photos.py")
PACKAGES = ("nncf", "openvino", "timm", "torch", "torchvision")


def made_once(name: str, make: Callable[[Path], object], key: str | None = None) -> Path:
    """The directory that `make(directory)` filled; read only.

    It is made again when the key changes, by default a hash of the code of `model` and the versions of PACKAGES. A lock
    lets one process make it while the others wait.
    """
    folder = KEPT / name
    folder.mkdir(parents=True, exist_ok=True)
    made = folder / (key or _key())
    with (KEPT / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.is_dir():
            for old in folder.iterdir():
                shutil.rmtree(old)
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                make(Path(scratch) / "made")
                (Path(scratch) / "made").rename(made)
    return made


def _key() -> str:
    """A hash of everything that the models are made of."""
    digest = hashlib.sha256()
    for source in SOURCES:
        for path in sorted((ROOT / source).rglob("*.py")) or [ROOT / source]:
            digest.update(path.read_bytes())
    for package in PACKAGES:
        digest.update(f"{package} {version(package)}".encode())
    return digest.hexdigest()[:16]
