"""An index on a real file system that has no locks and cannot sync directories, as network and FUSE mounts may be."""

import errno
import json
import os
from pathlib import Path

import pytest

from indexer.versions import IndexDirectory
from tests.support.photos import car_photo, write_gallery
from tests.support.poor_file_system import poor_file_system
from tests.support.servers import run_cli

pytestmark = pytest.mark.deploy


def test_an_index_is_built_switched_and_searched_and_each_loss_is_told_once(tmp_path: Path) -> None:
    photos = write_gallery(tmp_path / "photos", classes=2, photos=2)
    with poor_file_system(tmp_path) as mount:
        index = IndexDirectory(mount / "index")
        printed = []
        for number in range(2):
            command = ["index", str(photos), "--index", str(index.root), "--model", "resnet18"]
            done = run_cli(*command)
            assert done.returncode == 0, done.stderr
            printed.append(" ".join(done.stderr.split()))
            (photos / "car 1" / "more.jpg").write_bytes(car_photo(1, 9))
            assert len(index.versions()) == number + 1
        for told in printed:
            assert told.count(f"cannot sync directories ({os.strerror(errno.EINVAL)})") == 1
            assert told.count(f"has no locks ({os.strerror(errno.ENOTSUP)})") == 1
        held = index.root / ".lock.holder"
        held.write_text("Process 1 on elsewhere")
        done = run_cli("index", "--index", str(index.root), "--rollback")
        assert done.returncode == 1
        assert f"or remove {held} if it was killed" in " ".join(done.stderr.split())
        held.unlink()
        assert run_cli("index", "--index", str(index.root), "--rollback").returncode == 0
        assert run_cli("index", "--index", str(index.root), "--verify").returncode == 0
        found = run_cli("search", str(photos / "car 1" / "0.jpg"), "--index", str(index.root), "--json")
        assert json.loads(found.stdout)["nearest"]["class"] == "car 1"
