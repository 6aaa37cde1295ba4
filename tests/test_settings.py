"""Settings come from flag, variable, file and default, in this order, and every mistake is told at once."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import pytest

from synicix_core.errors import ConfigurationError
from synicix_core.settings import PROJECT_FILE, TEMPLATE, WorkerSettings, create_project, find_project, load_settings


def project(folder: Path, text: str = "") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / PROJECT_FILE).write_text(text)
    return folder


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test works in a directory that lies in no project."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def test_an_empty_file_means_the_defaults(tmp_path: Path) -> None:
    folder = project(tmp_path / "lab")
    found = load_settings(folder)
    assert found.project_dir == folder
    assert found.dataset_dir == folder / "datasets"
    assert found.dataset_cache_dir == folder / ".synicix" / "cache"
    assert found.model_save_dir == folder / "models"
    assert (found.schema_name, found.num_workers, found.follow_symlinks) == ("synicix", 0, False)
    assert found.worker == WorkerSettings()


def test_a_project_is_found_from_any_folder_below_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    below = project(tmp_path / "lab") / "a" / "b"
    below.mkdir(parents=True)
    assert find_project(below) == tmp_path / "lab"
    monkeypatch.chdir(below)
    assert load_settings().project_dir == tmp_path / "lab"
    assert find_project(project(below)) == below


def test_without_a_project_the_error_says_how_to_make_one(elsewhere: Path) -> None:
    with pytest.raises(ConfigurationError, match=rf"no Synicix project here \({elsewhere}\).*synicix-run init"):
        load_settings()


def test_a_notebook_with_a_server_needs_no_project(elsewhere: Path) -> None:
    found = load_settings(required=False, dataset_dir="data")
    assert found.project_dir == elsewhere
    assert found.dataset_dir == elsewhere / "data"
    assert found.model_save_dir == elsewhere / "models"
    assert list(elsewhere.iterdir()) == []


def test_flag_wins_over_variable_over_file_over_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = project(tmp_path / "lab", "num_workers = 1\n[worker]\nmax_attempts = 5\n")
    assert load_settings(folder).num_workers == 1
    monkeypatch.setenv("SYNICIX_NUM_WORKERS", "2")
    assert load_settings(folder).num_workers == 2
    assert load_settings(folder, num_workers=3, schema_name=None).num_workers == 3
    assert load_settings(folder).worker.max_attempts == 5
    assert load_settings(folder, worker_max_attempts=1).worker.max_attempts == 1


def test_directories_are_relative_to_where_they_are_written(
    tmp_path: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = project(tmp_path / "lab", 'dataset_dir = "../shared"\nmodel_save_dir = "/models"\n')
    assert load_settings(folder).dataset_dir == tmp_path / "shared"
    assert load_settings(folder).model_save_dir == Path("/models")
    monkeypatch.setenv("SYNICIX_DATASET_DIR", "from_variable")
    assert load_settings(folder).dataset_dir == elsewhere / "from_variable"
    assert load_settings(folder, dataset_dir="from_flag").dataset_dir == elsewhere / "from_flag"


def test_a_home_directory_is_expanded_and_a_symlink_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "link").symlink_to(tmp_path / "old")
    folder = project(tmp_path / "lab", 'dataset_dir = "~/link"\n')
    assert load_settings(folder).dataset_dir == tmp_path / "link"


@pytest.mark.parametrize(
    ("variable", "text", "attribute", "value"),
    [
        ("SYNICIX_SCHEMA_NAME", "lab_two", "schema_name", "lab_two"),
        ("SYNICIX_FOLLOW_SYMLINKS", "yes", "follow_symlinks", True),
        ("SYNICIX_FOLLOW_SYMLINKS", "0", "follow_symlinks", False),
        ("SYNICIX_NUM_WORKERS", " 4 ", "num_workers", 4),
        ("SYNICIX_NUM_WORKERS", "", "num_workers", 0),
    ],
)
def test_variables_are_read_as_their_setting_s_type(
    variable: str, text: str, attribute: str, value: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, text)
    assert getattr(load_settings(project(tmp_path / "lab")), attribute) == value


def test_every_setting_has_a_variable_and_a_flag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = project(tmp_path / "lab")
    for name in [f"worker_{f.name}" for f in dataclasses.fields(WorkerSettings)]:
        value = 0.5 if name == "worker_resident_share" else 40
        with monkeypatch.context() as patch:
            patch.setenv(f"SYNICIX_{name.upper()}", str(value))
            by_variable = load_settings(folder)
        assert getattr(by_variable.worker, name.removeprefix("worker_")) == value
        assert load_settings(folder, **{name: value}) == by_variable
        assert by_variable != load_settings(folder)


def test_variables_that_are_no_settings_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SYNICIX_STRICT", "SYNICIX_DISABLE_PLUGINS", "SYNICIX_WHATEVER"):
        monkeypatch.setenv(name, "1")
    load_settings(project(tmp_path / "lab"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('num_workers = "4"', "num_workers: must be an integer from 0 on, not '4'"),
        ("num_workers = -1", "num_workers: must be an integer from 0 on, not -1"),
        ("num_workers = true", "num_workers: must be an integer from 0 on, not True"),
        ("follow_symlinks = 1", "follow_symlinks: must be true or false, not 1"),
        ("dataset_dir = 3", "dataset_dir: must be a path, not 3"),
        ('dataset_dir = ""', "dataset_dir: must be a path, not ''"),
        ('schema_name = "MySchema"', "schema_name: must be a name of at most 63 lower-case letters"),
        ('schema_name = "information_schema"', "schema_name: must be a name"),
        ("worker.lease_seconds = 0", "worker.lease_seconds: must be a number of seconds above 0, not 0.0"),
        ("worker.lease_seconds = inf", "worker.lease_seconds: must be a number of seconds above 0, not inf"),
        ("worker.max_attempts = 1.5", "worker.max_attempts: must be an integer from 1 on, not 1.5"),
        ("worker = 3", "worker: must be a table"),
        ('datset_dir = "x"', "datset_dir: there is no such setting; did you mean dataset_dir?"),
        ("lease_seconds = 10", "lease_seconds: there is no such setting; did you mean worker.lease_seconds?"),
        (
            "worker.leas_seconds = 10",
            "worker.leas_seconds: there is no such setting; did you mean worker.lease_seconds?",
        ),
        ("zzz = 1", "zzz: there is no such setting; the settings are schema_name, dataset_dir,"),
        ('database.host = "x"', "database: there is no such setting; it is configured the way DataJoint does it"),
    ],
)
def test_a_mistake_is_told_with_file_key_and_what_is_allowed(line: str, message: str, tmp_path: Path) -> None:
    folder = project(tmp_path / "lab", line)
    with pytest.raises(ConfigurationError) as caught:
        load_settings(folder)
    assert f"{folder / PROJECT_FILE}: {message}" in str(caught.value)


def test_a_table_of_a_plugin_is_left_to_the_plugin_s_own_check(tmp_path: Path) -> None:
    (tmp_path / "synicix.toml").write_text('[plugins.My_Lab.report]\ntitle = "Autumn"\n[plugins.synicix-launch]\n')
    assert load_settings(tmp_path).plugins == {"my-lab": {"report": {"title": "Autumn"}}, "synicix-launch": {}}
    (tmp_path / "synicix.toml").write_text("")
    assert load_settings(tmp_path).plugins == {}


@pytest.mark.parametrize("line", ["plugins = 3", "plugins.my-lab = 3"])
def test_a_plugin_s_settings_stand_in_a_table(line: str, tmp_path: Path) -> None:
    (tmp_path / "synicix.toml").write_text(line)
    with pytest.raises(ConfigurationError, match=r"plugins: must hold a table for each plugin: \[plugins\."):
        load_settings(tmp_path)


def test_all_mistakes_are_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = project(tmp_path / "lab", 'num_workers = "many"\ncolour = 1\n')
    monkeypatch.setenv("SYNICIX_WORKER_GRACE_SECONDS", "soon")
    with pytest.raises(ConfigurationError) as caught:
        load_settings(folder, follow_symlinks="perhaps", datasets="x")
    text = str(caught.value)
    for part in ("num_workers", "colour", "SYNICIX_WORKER_GRACE_SECONDS", "'soon'", "follow_symlinks", "dataset_dir?"):
        assert part in text
    assert len(text.splitlines()) == 6


def test_a_lease_that_one_late_heartbeat_would_end_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigurationError, match=r"lease_seconds \(20\) must be at least twice worker\.heartbeat_seconds"
    ):
        load_settings(project(tmp_path / "lab"), worker_lease_seconds=20)


@pytest.mark.parametrize("content", [b"schema_name = ", b"\xff\xfe", b"a = 1\na = 2"])
def test_what_is_not_toml_is_told_with_the_file(content: bytes, tmp_path: Path) -> None:
    folder = project(tmp_path / "lab")
    (folder / PROJECT_FILE).write_bytes(content)
    with pytest.raises(ConfigurationError, match=re.escape(f"not valid TOML ({folder / PROJECT_FILE})")):
        load_settings(folder)


def test_a_byte_order_mark_does_no_harm(tmp_path: Path) -> None:
    folder = project(tmp_path / "lab")
    (folder / PROJECT_FILE).write_bytes(b"\xef\xbb\xbfnum_workers = 2\n")
    assert load_settings(folder).num_workers == 2


def test_the_template_shows_every_setting_with_its_default(tmp_path: Path) -> None:
    uncommented = re.sub(r"^# (?=\w+ = )", "", TEMPLATE, flags=re.MULTILINE)
    assert load_settings(project(tmp_path / "a", uncommented)) == load_settings(project(tmp_path / "a", ""))
    flat = set(re.findall(r"^(\w+) = ", uncommented, flags=re.MULTILINE))
    names = {f.name for f in (*dataclasses.fields(load_settings(tmp_path / "a")), *dataclasses.fields(WorkerSettings))}
    assert flat == names - {"project_dir", "worker", "plugins"}


def test_a_new_project_has_its_file_and_directories(tmp_path: Path) -> None:
    made = create_project(tmp_path / "new" / "lab")
    assert made == load_settings(tmp_path / "new" / "lab")
    for folder in (made.dataset_dir, made.dataset_cache_dir, made.model_save_dir):
        assert folder.is_dir()
    assert (made.project_dir / ".synicix" / ".gitignore").read_text() == "*\n"


def test_nothing_that_is_there_is_overwritten(tmp_path: Path) -> None:
    folder = project(tmp_path / "lab", 'dataset_dir = "mine"\n')
    (folder / ".synicix").mkdir()
    (folder / ".synicix" / ".gitignore").write_text("cache\n")
    create_project(folder)
    assert (folder / PROJECT_FILE).read_text() == 'dataset_dir = "mine"\n'
    assert (folder / ".synicix" / ".gitignore").read_text() == "cache\n"
    assert (folder / "mine").is_dir()
    assert not (folder / "datasets").exists()


@pytest.mark.parametrize("name", ["datasets", ".synicix", PROJECT_FILE])
def test_what_is_in_the_way_of_a_new_project_is_told(name: str, tmp_path: Path) -> None:
    if name == PROJECT_FILE:
        (tmp_path / name).mkdir()
    else:
        (tmp_path / name).write_text("")
    with pytest.raises(ConfigurationError, match=name):
        create_project(tmp_path)


def test_reading_the_settings_loads_neither_datajoint_nor_numpy(tmp_path: Path) -> None:
    code = "import sys; from synicix_core.settings import load_settings; load_settings(sys.argv[1]); "
    code += "print(sorted({'datajoint', 'numpy', 'torch', 'pandas'} & set(sys.modules)))"
    command = [sys.executable, "-c", code, str(project(tmp_path / "lab"))]
    root = Path(__file__).parent.parent
    assert subprocess.run(command, capture_output=True, text=True, cwd=root).stdout == "[]\n"
