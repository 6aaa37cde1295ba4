"""find_files: names and globs below the dataset directory, and nothing outside it."""

import pytest

from synicix_core.experiment.files import find_files


@pytest.fixture
def datasets(tmp_path):
    root = tmp_path / "datasets"
    for name in ("b.h5", "a.h5", "a.txt", "deep/c.h5", "deep/er/d.h5", ".hidden.h5", ".cache/e.h5", "rec[1].h5"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (root / "volume.zarr" / "chunks").mkdir(parents=True)
    (root / "volume.zarr" / "chunks" / "0").touch()
    (tmp_path / "outside.h5").touch()
    return root


def find(root, *patterns, **options):
    mistakes = []
    names = find_files(root, patterns, "here", mistakes, **options)
    assert all(where == "here" for where, _ in mistakes)
    return names, [message for _, message in mistakes]


@pytest.mark.parametrize(
    ("patterns", "names"),
    [
        (["*.h5"], ("a.h5", "b.h5", "rec[1].h5")),
        (["b.h5", "a.h5", "*.h5"], ("a.h5", "b.h5", "rec[1].h5")),
        (["[ab].h5"], ("a.h5", "b.h5")),
        (["rec[1].h5"], ("rec[1].h5",)),
        (["deep/*.h5"], ("deep/c.h5",)),
        (["./deep//c.h5"], ("deep/c.h5",)),
        (["**/*.h5"], ("a.h5", "b.h5", "deep/c.h5", "deep/er/d.h5", "rec[1].h5")),
        (["deep/**"], ("deep/c.h5", "deep/er/d.h5")),
        (["*.zarr"], ("volume.zarr",)),
        (["volume.zarr"], ("volume.zarr",)),
        ([".hidden.h5"], (".hidden.h5",)),
        ([".cache/*"], (".cache/e.h5",)),
    ],
)
def test_names_and_globs(datasets, patterns, names):
    assert find(datasets, *patterns) == (names, [])


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("../outside.h5", "leads out of the dataset directory with '..'"),
        ("deep/../a.h5", "leads out"),
        ("../*", "leads out"),
        ("/etc/passwd", "absolute path"),
        ("C:/data/a.h5", "absolute path"),
        ("deep\\c.h5", "forward slashes"),
        (".", "names nothing"),
        ("a\0", "NUL"),
        ("**.h5", "stands alone between slashes"),
    ],
)
def test_patterns_that_are_refused(datasets, pattern, message):
    names, (mistake,) = find(datasets, pattern)
    assert names == ()
    assert message in mistake


def test_what_matches_nothing_says_what_there_is(datasets):
    _, (mistake,) = find(datasets, "deep/??.txt")
    assert mistake == "'deep/??.txt' matches nothing; deep/ in the dataset directory holds c.h5, er/"
    _, (mistake,) = find(datasets, "deep/cc.h5")
    assert "'deep/cc.h5' does not exist; did you mean 'deep/c.h5'?" in mistake
    (datasets / "empty").mkdir()
    assert "empty/ in the dataset directory is empty" in find(datasets, "empty/*")[1][0]
    for number in range(20):
        (datasets / "empty" / f"{number:02}").touch()
    assert "holds 00, 01, 02, 03, 04, 05, 06, 07, 08, 09 and 10 more" in find(datasets, "empty/x")[1][0]


def test_all_patterns_are_looked_at(datasets):
    names, mistakes = find(datasets, "a.h5", "x", "y")
    assert names == ("a.h5",)
    assert len(mistakes) == 2


def test_a_dataset_directory_that_is_missing(tmp_path):
    assert "does not exist" in find(tmp_path / "none", "*", "a")[1][0]
    (tmp_path / "file").touch()
    assert "is not a directory" in find(tmp_path / "file", "*")[1][0]


def test_links_that_lead_out_are_refused_unless_they_may(datasets):
    (datasets / "link.h5").symlink_to(datasets.parent / "outside.h5")
    (datasets / "up").symlink_to(datasets.parent)
    for pattern, name in (
        ("link.h5", "link.h5"),
        ("l*.h5", "link.h5"),
        ("up/outside.h5", "up/outside.h5"),
        ("up", "up"),
    ):
        names, (mistake,) = find(datasets, pattern)
        assert names == ()
        assert f"{name!r} is a link that leads out of the dataset directory; set follow_symlinks = true" in mistake
        assert find(datasets, pattern, follow_symlinks=True) == ((name,), [])


def test_links_within_are_fine_and_a_dataset_directory_may_be_one(datasets):
    (datasets / "link.h5").symlink_to(datasets / "a.h5")
    (datasets.parent / "alias").symlink_to(datasets)
    assert find(datasets.parent / "alias", "link.h5") == (("link.h5",), [])


def test_links_to_nothing_and_loops(datasets):
    (datasets / "gone.h5").symlink_to("nowhere")
    (datasets / "loop.h5").symlink_to("loop.h5")
    (datasets / "deep" / "again").symlink_to(datasets / "deep")
    assert find(datasets, "gone.h5")[1] == ["'gone.h5' is a link to nothing"]
    assert find(datasets, "loop.h5")[1] == ["'loop.h5' is a link to nothing"]
    assert find(datasets, "deep/**/*.h5") == (("deep/c.h5", "deep/er/d.h5"), [])
