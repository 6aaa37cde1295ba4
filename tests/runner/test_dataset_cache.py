"""The dataset cache of a machine: real files on two disks, real processes, real kills."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from synicix_core.errors import DatasetError, DatasetMissing
from synicix_core.hashing import file_sha256
from synicix_core.runner import cache_contents, cache_in_place, cache_locks, dataset_cache
from synicix_core.runner.dataset_cache import DatasetCache
from synicix_core.settings import Settings

PROGRAM = """
import pathlib, resource, sys, time
from synicix_core.runner import cache_contents, cache_in_place, dataset_cache
from synicix_core.settings import Settings

base, cache, log, limit, how, name, sha256 = sys.argv[1:]

def logged(module, function):
    real = getattr(module, function)
    def wrapper(*arguments):
        with open(log, "a") as file:
            file.write(function + "\\n")
        return real(*arguments)
    setattr(module, function, wrapper)

logged(dataset_cache, "copy")
logged(cache_in_place, "digest")

def tick():
    if how == "pause" and any(half.stat().st_size for half in pathlib.Path(cache).glob(f".{sha256}*.half")):
        print("copying", flush=True)
        sys.stdin.readline()
        cache_contents._TICK_SECONDS = 60

cache_contents._TICK_SECONDS = 0
if how == "small":
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
base = pathlib.Path(base)
settings = Settings(base, base / "datasets", pathlib.Path(cache), base / "models", max_cache_bytes=int(limit))
made = dataset_cache.DatasetCache(settings, lambda text: print("warning:", text, flush=True))
print("ready", flush=True)
sys.stdin.readline()
print(made.fetch(name, sha256, tick), flush=True)
sys.stdin.readline()
"""


class Worker:
    """A process that fetches one dataset when told to, and holds it until it is ended."""

    def __init__(self, settings: Settings, name: str, sha256: str, how: str = "plainly") -> None:
        self.log = settings.project_dir / "log"
        arguments = [settings.project_dir, settings.dataset_cache_dir, self.log, settings.max_cache_bytes, how, name]
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *map(str, arguments), sha256],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.line() == "ready"

    def line(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline().strip()

    def go_on(self) -> None:
        assert self.process.stdin
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate()


@pytest.fixture
def workers(settings: Settings) -> Iterator[Callable[..., Worker]]:
    started: list[Worker] = []

    def start(name: str, sha256: str, how: str = "plainly", **changes: object) -> Worker:
        started.append(Worker(replace(settings, **changes), name, sha256, how))  # type: ignore[arg-type]  # any field
        return started[-1]

    yield start
    for worker in started:
        worker.kill()


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    """Datasets on one disk, the cache on another."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK) or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("needs a second file system")
    (tmp_path / "datasets").mkdir()
    cache = memory / f"synicix-{uuid.uuid4().hex}"
    yield Settings(tmp_path, tmp_path / "datasets", cache, tmp_path / "models")
    shutil.rmtree(cache, ignore_errors=True)


@pytest.fixture
def in_place(settings: Settings) -> Settings:
    """The cache on the disk of the datasets."""
    return replace(settings, dataset_cache_dir=settings.project_dir / "cache")


@pytest.fixture(autouse=True)
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_contents, "_TICK_SECONDS", 0.0)


def put(settings: Settings, name: str, content: bytes) -> str:
    """Write a dataset file, as if long ago; return its digest."""
    path = settings.dataset_dir / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    age(path)
    return file_sha256(path)


def put_tree(settings: Settings) -> str:
    for name in ("tree/b/2.bin", "tree/a/1.bin", "tree/.hidden"):
        put(settings, name, name.encode() * 1000)
    (settings.dataset_dir / "tree" / "empty").mkdir()
    return file_sha256(settings.dataset_dir / "tree")


def age(path: Path, seconds: float = 1000.0) -> None:
    os.utime(path, (time.time() - seconds,) * 2)


def counted(monkeypatch: pytest.MonkeyPatch, module: object, function: str) -> list[str]:
    """Count the calls of a function."""
    calls: list[str] = []
    real = getattr(module, function)

    def wrapper(*arguments: object) -> object:
        calls.append(function)
        return real(*arguments)

    monkeypatch.setattr(module, function, wrapper)
    return calls


def copies(settings: Settings) -> set[str]:
    return {path.name for path in settings.dataset_cache_dir.iterdir() if not path.name.startswith(".")}


def unfinished(settings: Settings) -> list[str]:
    ends = (".half", ".reserved", ".new")
    return [path.name for path in settings.dataset_cache_dir.iterdir() if path.name.endswith(ends)]


def test_a_file_on_another_disk_is_copied_and_verified(settings):
    sha256 = put(settings, "mouse.h5", b"brain")
    cache = DatasetCache(settings)
    assert not cache.is_at_hand("mouse.h5", sha256)
    path = cache.fetch("mouse.h5", sha256)
    assert path == settings.dataset_cache_dir / f"{sha256}.h5"
    assert path.read_bytes() == b"brain"
    assert cache.is_at_hand("mouse.h5", sha256)
    path.unlink()
    assert not cache.is_at_hand("mouse.h5", sha256)
    assert unfinished(settings) == []


def test_a_compressed_file_keeps_both_parts_of_its_suffix(settings):
    sha256 = put(settings, "mouse.2024.nii.gz", b"brain")
    assert DatasetCache(settings).fetch("mouse.2024.nii.gz", sha256).name == f"{sha256}.nii.gz"


def test_eight_processes_at_once_make_one_copy(settings, workers):
    sha256 = put(settings, "mouse.h5", os.urandom(8 << 20))
    started = [workers("mouse.h5", sha256) for _ in range(8)]
    for worker in started:
        worker.go_on()
    paths = {worker.line() for worker in started}
    assert paths == {str(settings.dataset_cache_dir / f"{sha256}.h5")}
    assert file_sha256(paths.pop()) == sha256
    assert started[0].log.read_text().split() == ["copy"]


def test_eight_processes_at_once_read_a_file_in_place_once(in_place, workers):
    sha256 = put(in_place, "mouse.h5", os.urandom(8 << 20))
    started = [workers("mouse.h5", sha256, dataset_cache_dir=in_place.dataset_cache_dir) for _ in range(8)]
    for worker in started:
        worker.go_on()
    assert {worker.line() for worker in started} == {str(in_place.dataset_dir / "mouse.h5")}
    assert started[0].log.read_text().split() == ["digest"]


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_what_is_read_in_place_is_verified_once_until_it_changes(in_place, monkeypatch, kind):
    name = "mouse.h5" if kind == "file" else "tree"
    sha256 = put(in_place, "mouse.h5", b"brain") if kind == "file" else put_tree(in_place)
    inside = in_place.dataset_dir / ("mouse.h5" if kind == "file" else "tree/a/1.bin")
    read = counted(monkeypatch, cache_in_place, "digest")
    for _ in range(3):
        assert DatasetCache(in_place).fetch(name, sha256) == in_place.dataset_dir / name
    assert len(read) == 1
    age(inside, 500)
    DatasetCache(in_place).fetch(name, sha256)
    assert len(read) == 2
    inside.write_bytes(b"x" * inside.stat().st_size)
    age(inside, 400)
    for _ in range(2):
        with pytest.raises(DatasetError, match=f"has changed since.*row says {sha256}") as caught:
            DatasetCache(in_place).fetch(name, sha256)
        assert file_sha256(in_place.dataset_dir / name) in str(caught.value)
    assert len(read) == 3


def test_a_file_written_a_moment_ago_is_read_again(in_place):
    # Two writes within one tick of the file system's clock leave the same modification time.
    path = in_place.dataset_dir / "mouse.h5"
    path.write_bytes(b"one")
    stat, sha256 = path.stat(), file_sha256(path)
    cache = DatasetCache(in_place)
    cache.fetch("mouse.h5", sha256)
    path.write_bytes(b"two")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    with pytest.raises(DatasetError, match="has changed"):
        cache.fetch("mouse.h5", sha256)


def test_a_torn_record_is_none(in_place):
    sha256 = put(in_place, "mouse.h5", b"brain")
    DatasetCache(in_place).fetch("mouse.h5", sha256)
    (record,) = in_place.dataset_cache_dir.glob(".in-place-*.json")
    for content in ("", '{"path": "x"', "[]", '{"path": "x"}'):
        record.write_text(content)
        assert DatasetCache(in_place).fetch("mouse.h5", sha256).exists()


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_a_source_that_is_not_what_the_row_says_is_no_copy(settings, monkeypatch, kind):
    name = "mouse.h5" if kind == "file" else "tree"
    found = put(settings, "mouse.h5", b"brain") if kind == "file" else put_tree(settings)
    made = counted(monkeypatch, dataset_cache, "copy")
    for _ in range(2):
        with pytest.raises(DatasetError, match=f"sha256 is {found}, the row says {'0' * 64}") as caught:
            DatasetCache(settings).fetch(name, "0" * 64)
        assert caught.value.file == str(settings.dataset_dir / name)
    assert len(made) == 1, "the second time it is known"
    assert copies(settings) == set()
    assert unfinished(settings) == []


def test_a_directory_is_copied_with_all_in_it(settings):
    sha256 = put_tree(settings)
    path = DatasetCache(settings).fetch("tree", sha256)
    assert path == settings.dataset_cache_dir / sha256
    assert file_sha256(path) == sha256
    assert (path / "empty").is_dir()
    assert (path / ".hidden").read_bytes() == (settings.dataset_dir / "tree" / ".hidden").read_bytes()
    assert not DatasetCache(settings).is_at_hand("tree", sha256)


def test_links_in_a_directory_obey_follow_symlinks(settings, in_place, tmp_path):
    put_tree(settings)
    tree = settings.dataset_dir / "tree"
    (tree / "to-file").symlink_to("a/1.bin")
    (tree / "to-folder").symlink_to("b")
    (tree / "b" / "loop").symlink_to("..")
    (tree / "nowhere").symlink_to(tmp_path / "not-there")
    sha256 = file_sha256(tree)
    path = DatasetCache(settings).fetch("tree", sha256)
    assert not (path / "to-file").is_symlink()
    assert (path / "to-file").read_bytes() == (tree / "a" / "1.bin").read_bytes()
    assert (path / "to-folder" / "2.bin").read_bytes() == (tree / "b" / "2.bin").read_bytes()
    assert not (path / "b" / "loop").exists()
    assert DatasetCache(settings).fetch("tree", sha256) == path

    outside = tmp_path / "outside.bin"
    outside.write_bytes(b"elsewhere")
    (tree / "out").symlink_to(outside)
    sha256 = file_sha256(tree)
    for each in (settings, in_place):
        with pytest.raises(DatasetError, match="a link in the dataset leads out of dataset_dir"):
            DatasetCache(each).fetch("tree", sha256)
        path = DatasetCache(replace(each, follow_symlinks=True)).fetch("tree", sha256)
        assert (path / "out").read_bytes() == b"elsewhere"


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_a_damaged_copy_is_made_again(settings, kind):
    name = "mouse.h5" if kind == "file" else "tree"
    sha256 = put(settings, "mouse.h5", b"brain" * 1000) if kind == "file" else put_tree(settings)
    reader = DatasetCache(settings)
    path = reader.fetch(name, sha256)
    inside = path if kind == "file" else path / "b" / "2.bin"
    os.truncate(inside, 10)
    assert DatasetCache(settings).fetch(name, sha256) == path  # although the first one has not released it
    assert file_sha256(path) == sha256
    inside.unlink()
    assert file_sha256(DatasetCache(settings).fetch(name, sha256)) == sha256
    (record,) = settings.dataset_cache_dir.glob(f".{sha256}*.json")
    record.unlink()
    inside.write_bytes(b"who knows")
    assert file_sha256(DatasetCache(settings).fetch(name, sha256)) == sha256
    assert unfinished(settings) == []


def test_a_source_that_changes_while_it_is_copied_is_noticed(settings):
    sha256 = put(settings, "mouse.h5", b"x" * (4 << 20))
    source = settings.dataset_dir / "mouse.h5"

    def tick() -> None:
        if any(half.stat().st_size for half in settings.dataset_cache_dir.glob(".*.half")):
            source.write_bytes(b"y" * (4 << 20))

    with pytest.raises(DatasetError, match="changes while it is read"):
        DatasetCache(settings).fetch("mouse.h5", sha256, tick)
    assert copies(settings) == set()


def test_what_cannot_be_read_names_its_cause(settings):
    # The first page of a process's memory is a file that the system refuses to read.
    (settings.dataset_dir / "broken").symlink_to("/proc/self/mem")
    with pytest.raises(DatasetError, match="cannot be read") as caught:
        DatasetCache(replace(settings, follow_symlinks=True)).fetch("broken", "0" * 64)
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.EIO
    assert unfinished(settings) == []
    with pytest.raises(DatasetMissing):
        DatasetCache(settings).fetch("nothing", "0" * 64)


def test_a_killed_copy_is_removed_by_the_next_one(settings, workers):
    sha256 = put(settings, "mouse.h5", os.urandom(4 << 20))
    other = put(settings, "other.h5", b"other")
    worker = workers("mouse.h5", sha256, "pause")
    worker.go_on()
    assert worker.line() == "copying"
    assert copies(settings) == set()
    worker.kill()
    assert len(unfinished(settings)) == 2
    cache = DatasetCache(settings)
    assert file_sha256(cache.fetch("mouse.h5", sha256)) == sha256
    assert unfinished(settings) == []

    cache.release()
    shutil.rmtree(settings.dataset_cache_dir)
    worker = workers("mouse.h5", sha256, "pause")
    worker.go_on()
    assert worker.line() == "copying"
    worker.kill()
    cache.fetch("other.h5", other)
    assert unfinished(settings) == [], "the next one removes it whatever it copies"


def test_nobody_touches_what_another_process_is_copying(settings, workers):
    sha256 = put(settings, "mouse.h5", os.urandom(4 << 20))
    other = put(settings, "other.h5", b"other")
    copying, waiting = workers("mouse.h5", sha256, "pause"), workers("mouse.h5", sha256)
    copying.go_on()
    assert copying.line() == "copying"
    waiting.go_on()
    DatasetCache(settings).fetch("other.h5", other)
    assert len(unfinished(settings)) == 2
    copying.go_on()
    path = str(settings.dataset_cache_dir / f"{sha256}.h5")
    assert (copying.line(), waiting.line()) == (path, path)
    assert file_sha256(path) == sha256
    assert copying.log.read_text().split() == ["copy"]
    assert unfinished(settings) == []


def test_what_was_used_longest_ago_leaves_first(settings):
    settings = replace(settings, max_cache_bytes=2500)
    digests = {name: put(settings, name, name.encode() * 1000) for name in "abcd"}
    foreign = settings.dataset_cache_dir / "notes.txt"
    settings.dataset_cache_dir.mkdir()
    foreign.write_bytes(b"x" * 5000)
    cache = DatasetCache(settings)
    for name in "abac":
        cache.fetch(name, digests[name])
        cache.release()
    assert copies(settings) == {digests["a"], digests["c"], "notes.txt"}
    assert not list(settings.dataset_cache_dir.glob(f".{digests['b']}*"))
    cache.fetch("d", digests["d"])
    assert copies(settings) == {digests["c"], digests["d"], "notes.txt"}


def test_a_killed_worker_has_used_what_it_fetched(settings, workers):
    settings = replace(settings, max_cache_bytes=2500)
    digests = {name: put(settings, name, name.encode() * 1000) for name in "abc"}
    cache = DatasetCache(settings)
    for name in "ab":
        cache.fetch(name, digests[name])
        cache.release()
    worker = workers("a", digests["a"], max_cache_bytes=2500)
    worker.go_on()
    assert worker.line() == str(settings.dataset_cache_dir / digests["a"])
    worker.kill()
    cache.fetch("c", digests["c"])
    assert copies(settings) == {digests["a"], digests["c"]}


def test_a_directory_counts_and_leaves_like_a_file(settings):
    sha256 = put_tree(settings)
    size = sum(path.stat().st_size for path in settings.dataset_dir.rglob("*") if path.is_file())
    other = put(settings, "other", b"x" * 100)
    settings = replace(settings, max_cache_bytes=size + 99)
    cache = DatasetCache(settings)
    cache.fetch("tree", sha256)
    cache.release()
    cache.fetch("other", other)
    assert copies(settings) == {other}
    assert unfinished(settings) == []


def test_what_is_in_use_never_leaves(settings, workers):
    limit = 1500
    first, second = put(settings, "first", b"1" * 1000), put(settings, "second", b"2" * 1000)
    holder = workers("first", first, max_cache_bytes=limit)
    holder.go_on()
    assert holder.line() == str(settings.dataset_cache_dir / first)
    said: list[str] = []
    cache = DatasetCache(replace(settings, max_cache_bytes=limit), said.append)
    for _ in range(2):
        assert cache.fetch("second", second) == settings.dataset_dir / "second"
        assert copies(settings) == {first}
    assert len(said) == 1
    assert "max_cache_bytes = 1500 beside the copies that are in use" in said[0]
    holder.kill()
    assert cache.fetch("second", second) == settings.dataset_cache_dir / second
    assert copies(settings) == {second}
    # Held by this very process, until it is released.
    assert cache.fetch("first", first) == settings.dataset_dir / "first"
    cache.close()
    assert cache.fetch("first", first) == settings.dataset_cache_dir / first
    assert copies(settings) == {first}


def test_processes_that_copy_at_once_keep_the_limit_together(settings, workers):
    limit = 5 << 20
    digests = {f"{number}.h5": put(settings, f"{number}.h5", os.urandom(2 << 20)) for number in range(4)}
    started = [workers(name, sha256, "pause", max_cache_bytes=limit) for name, sha256 in digests.items()]
    lines = []
    for worker in started:
        worker.go_on()
        lines.append(worker.line())
    # The first two are half done; the others see what those two will need.
    assert [line.partition(" ")[0] for line in lines] == ["copying", "copying", "warning:", "warning:"]
    for worker in started[:2]:
        worker.go_on()
    paths = [worker.line() for worker in started]
    assert [Path(path).parent == settings.dataset_cache_dir for path in paths] == [True, True, False, False]
    assert [file_sha256(path) for path in paths] == list(digests.values())


def test_a_dataset_larger_than_the_limit_is_read_where_it_is(settings):
    sha256 = put(settings, "mouse.h5", b"x" * 1000)
    small = put(settings, "small.h5", b"y")
    said: list[str] = []
    settings = replace(settings, max_cache_bytes=999)
    cache = DatasetCache(settings, said.append)
    cache.fetch("small.h5", small)
    cache.release()
    for _ in range(2):
        assert cache.fetch("mouse.h5", sha256) == settings.dataset_dir / "mouse.h5"
    assert cache.is_at_hand("mouse.h5", sha256)
    assert len(said) == 1
    assert "'mouse.h5'" in said[0]
    assert "1000 bytes are more than max_cache_bytes = 999" in said[0]
    assert copies(settings) == {f"{small}.h5"}
    with pytest.raises(DatasetError, match="has changed"):
        cache.fetch("mouse.h5", "0" * 64)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_fills_up_is_said_once(settings, monkeypatch, number):
    digests = {name: put(settings, name, name.encode() * 1000) for name in "ab"}

    def full(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", full)
    made = counted(monkeypatch, dataset_cache, "copy")
    said: list[str] = []
    cache = DatasetCache(settings, said.append)
    for name in "abab":
        assert cache.fetch(name, digests[name]) == settings.dataset_dir / name
    assert len(said) == 1
    assert os.strerror(number) in said[0]
    assert len(made) == 2, "not for every task again"
    assert copies(settings) == set()
    assert unfinished(settings) == []
    monkeypatch.undo()
    assert DatasetCache(settings).fetch("a", digests["a"]) == settings.dataset_cache_dir / digests["a"]


def test_a_copy_that_the_system_cuts_short_is_none(settings, workers):
    sha256 = put(settings, "mouse.h5", os.urandom(3 << 20))
    worker = workers("mouse.h5", sha256, "small")
    worker.go_on()
    assert os.strerror(errno.EFBIG) in worker.line()
    assert worker.line() == str(settings.dataset_dir / "mouse.h5")
    assert copies(settings) == set()
    assert unfinished(settings) == []


def test_a_disk_without_room_loses_old_copies_before_a_new_one_is_given_up(settings, monkeypatch):
    first, second, large = (put(settings, name, b"x" * size) for name, size in (("f", 900), ("s", 800), ("l", 2000)))
    said: list[str] = []
    cache = DatasetCache(settings, said.append)
    cache.fetch("f", first)
    cache.release()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10000, 9900, 100))
    assert cache.fetch("l", large) == settings.dataset_dir / "l"
    assert copies(settings) == {first}, "nothing is removed in vain"
    assert "what is free on its disk" in said[0]
    cache.fetch("s", second)
    assert copies(settings) == {second}


def test_a_cache_that_cannot_be_made_is_no_error(settings):
    sha256 = put(settings, "mouse.h5", b"brain")
    settings.dataset_cache_dir.write_text("in the way")
    said: list[str] = []
    try:
        assert DatasetCache(settings, said.append).fetch("mouse.h5", sha256) == settings.dataset_dir / "mouse.h5"
    finally:
        settings.dataset_cache_dir.unlink()
    assert len(said) == 1


class Enough(OSError):
    """An error that could be taken for one of the disk."""


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_a_tick_that_raises_leaves_nothing(settings, kind):
    name = "mouse.h5" if kind == "file" else "tree"
    sha256 = put(settings, "mouse.h5", b"x" * (3 << 20)) if kind == "file" else put_tree(settings)
    for allowed in range(100):  # at the first tick, at the second, and so on, until there are no more
        try:
            DatasetCache(settings).fetch(name, sha256, raising_after(allowed))
        except Enough:
            assert unfinished(settings) == []
            assert copies(settings) == set()
            assert_unlocked(settings)
        else:
            break
    assert 2 < allowed < 99
    assert len(copies(settings)) == 1


def test_a_tick_that_raises_ends_the_reading_in_place(in_place):
    sha256 = put(in_place, "mouse.h5", b"x" * (3 << 20))
    with pytest.raises(Enough):
        DatasetCache(in_place).fetch("mouse.h5", sha256, raising_after(2))
    assert_unlocked(in_place)


def test_a_tick_that_raises_ends_the_waiting_for_another_process(settings, workers):
    sha256 = put(settings, "mouse.h5", os.urandom(2 << 20))
    copying = workers("mouse.h5", sha256, "pause")
    copying.go_on()
    assert copying.line() == "copying"
    with pytest.raises(Enough):
        DatasetCache(settings).fetch("mouse.h5", sha256, raising_after(20))
    assert len(unfinished(settings)) == 2
    copying.go_on()
    assert copying.line() == str(settings.dataset_cache_dir / f"{sha256}.h5")


def test_without_locks_copies_appear_whole_and_none_is_removed(settings, monkeypatch):
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    sha256, tree = put(settings, "mouse.h5", b"x" * (3 << 20)), put_tree(settings)
    for name, digest in (("mouse.h5", sha256), ("tree", tree)):
        faster: list[Path] = []

        def tick(name=name, digest=digest, faster=faster) -> None:
            # Another process makes the same copy while this one is half done.
            if not faster and list(settings.dataset_cache_dir.glob(f".{digest}*.half")):
                faster.append(settings.dataset_cache_dir)
                faster.append(DatasetCache(settings).fetch(name, digest))

        path = DatasetCache(settings).fetch(name, digest, tick)
        assert path == faster[1]
        assert path.parent == settings.dataset_cache_dir
        assert file_sha256(path) == digest
        assert file_sha256(DatasetCache(settings).fetch(name, digest)) == digest
    assert unfinished(settings) == []

    said: list[str] = []
    other = put(settings, "other", b"other")
    cache = DatasetCache(replace(settings, max_cache_bytes=(3 << 20) + 10), said.append)
    assert cache.fetch("other", other) == settings.dataset_dir / "other"
    assert "no locks" in said[0]
    os.truncate(settings.dataset_cache_dir / f"{sha256}.h5", 10)
    assert cache.fetch("mouse.h5", sha256) == settings.dataset_dir / "mouse.h5"
    assert "is damaged" in said[1]


def test_a_lock_on_a_file_that_was_removed_meanwhile_is_none(tmp_path, monkeypatch):
    path = tmp_path / "lock"
    real = fcntl.flock
    removed: list[Path] = []

    def flock(descriptor: int, operation: int) -> None:
        if not removed:  # its holder removes it after this process has opened it
            path.unlink()
            removed.append(path)
        real(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    with cache_locks.acquire(path, lambda: None):
        assert path.exists()
        assert cache_locks.try_acquire(path) is None
        assert cache_locks.try_acquire(path, shared=True) is None
    with cache_locks.acquire(path, lambda: None, shared=True), cache_locks.acquire(path, lambda: None, shared=True):
        assert cache_locks.try_acquire(path) is None


def raising_after(allowed: int) -> Callable[[], None]:
    left = iter(range(allowed))

    def tick() -> None:
        if next(left, None) is None:
            raise Enough("no more")

    return tick


def assert_unlocked(settings: Settings) -> None:
    for path in settings.dataset_cache_dir.iterdir():
        if path.suffix in (".lock", ".use"):
            with path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
