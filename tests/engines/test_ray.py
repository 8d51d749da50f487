"""`carsearch index --engine ray` on a cluster of three nodes."""

import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import boto3
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
from ray.cluster_utils import Cluster

from indexer.build import BuildResult, build_index
from indexer.distributed.on_ray import embed_on_ray
from indexer.embed import EmbeddedBatch, embed_photos, nothing_known, nothing_unchanged
from indexer.items import GalleryItem, ItemTable
from indexer.manifest import ITEMS_NAME, MANIFEST_NAME
from indexer.versions import IndexDirectory
from model.dataset import Photo, read_items
from model.embedder import Embedder, Progress, silent
from model.errors import EngineFailed, GalleryShrank
from model.storage import sha256_file
from service.demo.gallery import DemoGallery
from tests.conftest import ROOT
from tests.e2e.test_readme import commands, run
from tests.engines.cluster import NODE, LoggedPhoto, UnmountedPhoto, reads_in, running_cluster, running_storage
from tests.support.photos import write_gallery

pytestmark = [pytest.mark.engines, pytest.mark.timeout(600), pytest.mark.usefixtures("cluster")]
pytestmark += [pytest.mark.filterwarnings(f"ignore:::{package}") for package in ("ray", "moto", "botocore")]


@pytest.fixture(scope="module")
def storage() -> Iterator[str]:
    """A bucket of S3."""
    with running_storage() as url:
        yield url


@pytest.fixture(scope="module")
def cluster(storage: str) -> Iterator[Cluster]:
    """Three nodes, which inherit the way to the bucket; this process is connected."""
    del storage
    with running_cluster(3) as cluster:
        ray.init(cluster.address, log_to_driver=False)
        yield cluster


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six classes of 40 photos, two of them equal, and a file that is no photo."""
    folder = write_gallery(tmp_path_factory.mktemp("photos"), classes=6, photos=40)
    first = min(folder.rglob("*.jpg"))
    shutil.copy(first, first.with_name("copy.jpg"))
    first.with_name("broken.jpg").write_bytes(b"no photo")
    return folder


def files_of(index: IndexDirectory, *but: str) -> dict[str, str]:
    """The sha256 of each file of the current version but the manifest, which has the time."""
    folder = index.path_of(index.current())
    return {path.name: sha256_file(path) for path in folder.iterdir() if path.name not in (MANIFEST_NAME, *but)}


def items_of(index: IndexDirectory) -> list[GalleryItem]:
    """Without the stamps of files, which photos elsewhere have none of."""
    table = ItemTable(index.path_of(index.current()) / ITEMS_NAME)
    return [replace(item, stamp=None) for item in table]


def content_of(index: IndexDirectory) -> str:
    return index.manifest(index.current()).content_sha256


def logged(folder: Path, log: Path) -> list[LoggedPhoto]:
    log.mkdir()
    return [LoggedPhoto(one.id, one.label, one.path, one.metadata, log) for one in read_items(folder).items]


def on_ray(photos: Sequence[Photo], embedder: Embedder, work: Path, progress: Progress = silent) -> list[EmbeddedBatch]:
    return list(embed_on_ray(photos, embedder, nothing_known, [], nothing_unchanged, work, progress))


def refuse_differing(found: list[EmbeddedBatch], folder: Path, embedder: Embedder) -> None:
    """Fails unless a cluster gave what one process gives: photos in order, vectors bit for bit, skipped ones."""
    expected = list(embed_photos(read_items(folder).items, embedder))
    of_both = []
    for batches in (found, expected):
        embedded = [one for batch in batches for one in batch.embedded]
        of_both.append((
            [(one.photo.id, one.photo.label, one.sha256) for one in embedded],
            [skipped for batch in batches for skipped in batch.skipped],
            np.stack([one.embedding for one in embedded]).tobytes(),
        ))  # fmt: skip
    assert of_both[0] == of_both[1]


def test_the_demo_s_gallery_gives_the_index_that_one_process_gives(tmp_path: Path, shipped_embedder: Embedder) -> None:
    gallery = DemoGallery.load().photos
    one, many = IndexDirectory(tmp_path / "one"), IndexDirectory(tmp_path / "many")
    build_index(gallery, one, shipped_embedder)
    result = build_index(gallery, many, shipped_embedder, engine=embed_on_ray)
    assert result.embedded == result.photos > 200
    assert files_of(many) == files_of(one)
    assert content_of(many) == content_of(one)


def test_what_the_version_before_has_is_not_embedded_again(
    tmp_path: Path, photos: Path, fake_embedder: Embedder
) -> None:
    gallery, index = shutil.copytree(photos, tmp_path / "gallery"), IndexDirectory(tmp_path / "index")

    def build() -> BuildResult:
        return build_index(gallery, index, fake_embedder, engine=embed_on_ray)

    first = build()
    assert (first.photos, first.embedded, len(first.skipped), len(first.copies)) == (241, 240, 1, 1)
    assert not build().changed
    added = write_gallery(tmp_path / "more", classes=1, photos=2, first_kind=50)
    shutil.copytree(added, gallery, dirs_exist_ok=True)
    second = build()
    assert (second.photos, second.embedded, second.reused) == (243, 2, 241)
    alone = IndexDirectory(tmp_path / "alone")
    build_index(gallery, alone, fake_embedder)
    assert files_of(index) == files_of(alone)
    shutil.rmtree(min(gallery.iterdir()))
    with pytest.raises(GalleryShrank):
        build()


def test_a_node_that_is_killed_loses_and_doubles_nothing(
    tmp_path: Path, cluster: Cluster, photos: Path, fake_embedder: Embedder
) -> None:
    log = tmp_path / "log"
    killed: list[tuple[str, int]] = []

    def kill_a_node(done: int, _total: int) -> None:
        busy = {node for node, _ in reads_in(log)}
        worker = next((node for node in cluster.worker_nodes if node.node_id in busy), None)
        if done and worker is not None and not killed:
            killed.append((worker.node_id, done))
            cluster.remove_node(worker, allow_graceful=False)

    found = on_ray(logged(photos, log), fake_embedder, tmp_path / "work", kill_a_node)
    cluster.add_node(**NODE)
    cluster.wait_for_nodes()
    ((node, done),) = killed
    assert done < 242
    assert {other for other, _ in reads_in(log)} > {node}
    refuse_differing(found, photos, fake_embedder)


def test_photos_of_parts_that_were_written_are_neither_read_nor_embedded_again(
    tmp_path: Path, photos: Path, fake_embedder: Embedder
) -> None:
    class Stopped(Exception):
        """As by Ctrl-C."""

    done: list[int] = []

    def stop(count: int, _total: int) -> None:
        done.append(count)
        if count > 50:
            raise Stopped

    with pytest.raises(Stopped):
        on_ray(logged(photos, tmp_path / "first"), fake_embedder, tmp_path / "work", stop)
    changed = min(photos.rglob("*.jpg"))
    again = logged(photos, tmp_path / "second")
    os.utime(changed)
    found = on_ray(again, fake_embedder, tmp_path / "work")
    read = [identity for _, identity in reads_in(tmp_path / "second")]
    assert len(set(read)) == len(read)
    assert 242 - done[-1] <= len(read) <= 242 - done[-1] + 1  # and the one that looks as if it had changed
    refuse_differing(found, photos, fake_embedder)


def test_a_driver_that_is_killed_goes_on_where_it_was(
    tmp_path: Path, cluster: Cluster, shipped_embedder: Embedder
) -> None:
    gallery, index = DemoGallery.load().photos, IndexDirectory(tmp_path / "index")
    command = [sys.executable, "-m", "carsearch", "index", str(gallery), "--index", str(index.root)]
    command += ["--model", "resnet18", "--engine", "ray"]
    environment = os.environ | {"RAY_ADDRESS": cluster.address}
    driver = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    while not list(index.root.glob("work/*/parts/*.parquet")):
        assert driver.poll() is None
        time.sleep(0.01)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    kept = {path: sha256_file(path) for path in sorted(index.root.glob("work/*/parts/*.parquet"))}
    before = sum(pq.read_metadata(path).num_rows for path in kept)

    def look(done: int, total: int) -> None:
        if (done, total) == (before, total):
            assert {path: sha256_file(path) for path in kept} == kept

    result = build_index(gallery, index, shipped_embedder, engine=embed_on_ray, progress=look)
    assert 0 < before < result.photos
    assert result.embedded == result.photos - before
    alone = IndexDirectory(tmp_path / "alone")
    build_index(gallery, alone, shipped_embedder)
    assert files_of(index) == files_of(alone)


def test_a_photo_that_only_a_node_cannot_read_ends_the_job(
    tmp_path: Path, photos: Path, fake_embedder: Embedder
) -> None:
    """A node on which the gallery is not mounted must not make a hole in it."""
    elsewhere = [UnmountedPhoto(one.id, one.label, one.path, {}, os.getpid()) for one in read_items(photos).items]
    with pytest.raises(EngineFailed, match="one path on every node"):
        on_ray(elsewhere, fake_embedder, tmp_path / "work")


def test_a_node_that_cannot_run_the_model_ends_the_job_in_a_sentence(
    tmp_path: Path, photos: Path, fake_model: Path
) -> None:
    model = shutil.copytree(fake_model, tmp_path / "model")
    embedder = Embedder.load(model, "fake")
    next(path for path in model.iterdir() if path.suffix == ".jpg").write_bytes(b"another photo")
    with pytest.raises(EngineFailed, match=r"A node cannot embed: .*golden.*run the same command again"):
        on_ray(read_items(photos).items, embedder, tmp_path / "work")


def uploaded(folder: Path, bucket: str, prefix: str) -> str:
    client = boto3.client("s3")
    for path in folder.rglob("*"):
        if path.is_file():
            client.upload_file(str(path), bucket.removeprefix("s3://"), f"{prefix}/{path.relative_to(folder)}")
    return f"{bucket}/{prefix}"


def write_shards(photos: Path, shards: Path) -> None:
    """Three tar files with the paths of a folder, and three Parquet files with ids, classes and bytes."""
    shards.mkdir()
    paths = sorted(path for path in photos.rglob("*") if path.is_file())
    for number in range(3):
        with tarfile.open(shards / f"{number}.tar", "w") as archive:
            for path in paths[number::3]:
                archive.add(path, path.relative_to(photos))
        of_shard = [item for item in read_items(photos).items if item.path in paths[number::3]]
        columns = {"id": [one.id for one in of_shard], "class": [one.label for one in of_shard]}
        table = pa.table(columns | {"image": [one.read() for one in of_shard]})
        pq.write_table(table, shards / f"{number}.parquet", row_group_size=7)


def test_photos_in_s3_give_the_index_of_the_folder(
    tmp_path: Path, storage: str, photos: Path, fake_embedder: Embedder
) -> None:
    url = uploaded(photos, storage, "folder")
    remote, local = IndexDirectory(tmp_path / "remote"), IndexDirectory(tmp_path / "local")
    result = build_index(url, remote, fake_embedder, engine=embed_on_ray)
    build_index(photos, local, fake_embedder)
    assert files_of(remote, ITEMS_NAME) == files_of(local, ITEMS_NAME)
    assert items_of(remote) == items_of(local)
    assert remote.manifest(result.version).gallery["root"] == url
    assert not build_index(f"{url}/", remote, fake_embedder, engine=embed_on_ray).changed


def test_shards_in_s3_give_the_index_of_the_folder(
    tmp_path: Path, storage: str, photos: Path, fake_embedder: Embedder
) -> None:
    write_shards(photos, tmp_path / "shards")
    url = uploaded(tmp_path / "shards", storage, "shards")
    local = IndexDirectory(tmp_path / "local")
    build_index(photos, local, fake_embedder)
    for kind in ("tar", "parquet"):
        remote = IndexDirectory(tmp_path / kind)
        build_index(f"{url}/*.{kind}", remote, fake_embedder, engine=embed_on_ray)
        assert files_of(remote, ITEMS_NAME) == files_of(local, ITEMS_NAME)
        assert items_of(remote) == items_of(local)


def test_the_commands_about_clusters_work(tmp_path: Path, storage: str, cluster: Cluster) -> None:
    photos = write_gallery(tmp_path / "photos", classes=2, photos=2)
    uploaded(photos, storage, "photos")
    write_shards(photos, tmp_path / "shards")
    uploaded(tmp_path / "shards", storage, "shards")
    lines = commands(ROOT / "docs" / "cluster.md")
    assert len(lines) == 4
    run([line.replace("10.0.0.5:6379", cluster.address) for line in lines], tmp_path)
