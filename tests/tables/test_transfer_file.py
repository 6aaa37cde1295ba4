"""An export is whole or not there, and a file that is not what was exported is not imported."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import uuid
import zipfile
from pathlib import Path

import pytest

from synicix_core import Pipeline
from synicix_core.errors import ConfigurationError
from synicix_core.registry import Registry
from synicix_core.settings import create_project
from synicix_core.tables.transfer_columns import TABLES
from synicix_core.tables.transfer_export import export_database
from synicix_core.tables.transfer_file import ExportFile, written_whole
from synicix_core.tables.transfer_import import import_database
from tests.rows import insert_tasks
from tests.transferred import MD5, drop_schema, fill, rewrite

pytestmark = pytest.mark.database


@pytest.fixture(scope="module")
def exported(server, tmp_path_factory):
    """A schema with everything in it, exported; what the tests change is a copy."""
    folder, schema = tmp_path_factory.mktemp("exported"), f"test_{uuid.uuid4().hex[:12]}"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**server, "SYNICIX_SCHEMA_NAME": schema, "DJ_IGNORE_CONFIG_FILE": "1"}.items():
            patch.setenv(name, value)
        settings = create_project(folder / "project")
        (settings.dataset_dir / "line.txt").write_text("2.0")
        source = Pipeline(settings=settings, declare=True)
        fill(source)
        export_database(source.tables, folder / "lab.synicix", settings.model_save_dir, "the lab's")
        drop_schema(source.connection, schema)
        source.connection.close()
    return folder / "lab.synicix"


@pytest.fixture
def path(exported, tmp_path):
    path = tmp_path / "exports" / "lab.synicix"
    path.parent.mkdir()
    return Path(shutil.copy(exported, path))


def refused(pipeline, path):
    """Return why an import is refused, and make sure that it wrote nothing."""
    with pytest.raises(ConfigurationError) as error:
        import_database(pipeline.tables, ExportFile(path), pipeline.settings.model_save_dir, pipeline.registry)
    assert not any(len(getattr(pipeline, table)()) for table in TABLES[:-1])
    assert len(pipeline.TrainingResult().jobs) == 0
    return str(error.value)


def test_the_format(path):
    with zipfile.ZipFile(path) as archive:
        assert sorted(archive.namelist()) == sorted(["manifest.json", *(f"{name}.jsonl" for name in TABLES)])
        assert archive.namelist()[-1] == "manifest.json"
        manifest = json.loads(archive.read("manifest.json"))
        rows = [json.loads(line) for line in archive.read("TrainingTask.jsonl").splitlines()]
        result = json.loads(archive.read("TrainingResult.jsonl").splitlines()[0])
    assert (manifest["format"], manifest["format_version"], manifest["schema_version"]) == (
        "synicix database export",
        1,
        2,
    )
    assert manifest["tables"]["TrainingTask"]["rows"] == len(rows) == 16
    assert manifest["tables"]["TrainingTask"]["columns"] == list(rows[0]) and rows == sorted(
        rows, key=lambda row: row[MD5]
    )
    assert result["training_epoch_loss_history"].keys() == {"hash", "path", "schema", "store", "size"}
    assert len(result["utc_insert_time"]) == len("2026-01-31T08:30:00.123")


def test_cut_short(path, pipeline):
    whole = path.read_bytes()
    for size in (0, 10, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        assert "no whole export of a database" in refused(pipeline, path)


def test_something_else(path, pipeline, tmp_path):
    other = tmp_path / "other"
    other.write_text("id,score\n1,2\n")
    assert "no whole export of a database" in refused(pipeline, other)
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("readme.txt", "hello")
    assert "no whole export of a database" in refused(pipeline, other)
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("manifest.json", json.dumps({"format": "of somebody else"}))
    assert "no export of a database" in refused(pipeline, other) and "db export FILE" in refused(pipeline, other)
    assert "Is a directory" in refused(pipeline, tmp_path)
    assert "No such file" in refused(pipeline, tmp_path / "nowhere")


@pytest.mark.parametrize("place", [0.02, 0.3, 0.6])
def test_a_flipped_bit(path, pipeline, place):
    data = bytearray(path.read_bytes())
    data[int(len(data) * place)] ^= 0x10
    path.write_bytes(bytes(data))
    text = refused(pipeline, path)
    assert "changed or damaged" in text or "no whole export" in text


def test_other_versions_say_which(path, pipeline):
    def manifest(**facts):
        return lambda data: json.dumps(json.loads(data) | facts).encode()

    rewrite(path, "manifest.json", manifest(format_version=2, synicix_version="9.1"))
    text = refused(pipeline, path)
    assert "format 2 and schema version 2, made by synicix-core 9.1" in text and "knows format 1" in text
    rewrite(path, "manifest.json", manifest(format_version=1, schema_version=1, synicix_version="0.0.9"))
    text = refused(pipeline, path)
    assert "schema version 1, made by synicix-core 0.0.9" in text and "schema version 2" in text
    rewrite(path, "manifest.json", manifest(schema_version=2, tables={}))
    assert "does not describe its tables" in refused(pipeline, path)


def swapped(data):
    first, second, *rest = data.splitlines(keepends=True)
    return b"".join([second, first, *rest])


def without_last(data):
    return b"".join(data.splitlines(keepends=True)[:-1])


def test_a_changed_row_does_not_match_the_digest(path, pipeline):
    rewrite(path, "TrainingTask.jsonl", without_last, keep_digest=True)
    assert "changed or damaged" in refused(pipeline, path)


@pytest.mark.parametrize(
    ("member", "change", "why"),
    [
        ("TrainingResult.jsonl", lambda data: data.replace(b'"epochs":3', b'"epochs":"x"', 1), "epochs is not of the kind"),
        ("TrainingResult.jsonl", lambda data: data.replace(b'"epochs":3,', b"", 1), "the columns differ: epochs"),
        ("TrainingResult.jsonl", lambda data: data.replace(b"T", b" noon ", 1), "utc_insert_time Invalid isoformat"),
        ("TrainingConfig.jsonl", lambda data: data.replace(b'"batch_size":8', b'"batch_size":9', 1), "md5 of its content"),
        ("DatasetConfig.jsonl", lambda data: data.replace(b"_sha256\":\"", b"_sha256\":\"f", 1), "md5 of its content"),
        ("ModelConfig.jsonl", lambda data: data.replace(b"0.30000000000000004", b"0.3", 1), "md5 of its content"),
        ("ModelConfig.jsonl", swapped, "line 2 of ModelConfig is out of order"),
        ("ModelConfig.jsonl", without_last, "refers to a config that is not in the export"),
        ("TrainingTask.jsonl", without_last, "of a task that is not in the export"),
        ("Job.jsonl", lambda data: b"not json\n" + data, "line 1 of Job is no row"),
        ("Job.jsonl", lambda data: b"[]\n" + data, "line 1 of Job is no row"),
    ],
)  # fmt: skip
def test_rows_that_were_changed_with_their_digest(path, pipeline, member, change, why):
    rewrite(path, member, change)
    assert why in refused(pipeline, path)


def test_an_md5_is_computed_without_what_is_neutral_and_left_unproved_where_that_is_unknown(
    pipeline, tmp_path, monkeypatch
):
    line = pipeline.registry.resolve("model", "Line").provider
    monkeypatch.setitem(vars(line), "neutral", ("penalty",))
    insert_tasks(pipeline, models=[{"model_class_params": {"penalty": 0.5}}])
    path = tmp_path / "lab.synicix"
    export_database(pipeline.tables, path, pipeline.settings.model_save_dir, "")

    def unproved(registry):
        return import_database(pipeline.tables, ExportFile(path), tmp_path, registry).unproved

    assert unproved(pipeline.registry) == ()
    monkeypatch.setenv("SYNICIX_DISABLE_PLUGINS", "toy-lab")
    assert unproved(Registry.discover()) == ("toy-lab/Line",)
    monkeypatch.setitem(vars(line), "neutral", ())
    with pytest.raises(ConfigurationError, match=r"ModelConfig .*: the md5 of its content is another one"):
        unproved(pipeline.registry)


def test_a_full_disk_leaves_nothing(pipeline, path):
    fill(pipeline)
    whole = path.read_bytes()
    program = (
        "import resource, sys, pathlib\n"
        "from synicix_core import Pipeline\n"
        "from synicix_core.tables.transfer_export import export_database\n"
        "pipeline = Pipeline()\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))\n"
        "try:\n"
        "    export_database(pipeline.tables, pathlib.Path(sys.argv[1]), pipeline.settings.model_save_dir, '')\n"
        "except Exception as error:\n"
        "    print(type(error).__name__, error)\n"
    )
    for file in (path, path.with_name("new")):
        ended = subprocess.run(
            [sys.executable, "-c", program, str(file)], capture_output=True, text=True, timeout=120, cwd=Path.cwd()
        )
        assert "ConfigurationError the export cannot be written" in ended.stdout and "File too large" in ended.stdout
        assert "Name a file on a disk with room." in ended.stdout
        assert ended.stderr == ""
    assert [each.name for each in path.parent.iterdir()] == [path.name] and path.read_bytes() == whole


def test_a_directory_that_is_not_there(pipeline, tmp_path):
    with pytest.raises(ConfigurationError, match=r"cannot be written .*: No such file.* in a directory that is there"):
        export_database(pipeline.tables, tmp_path / "no" / "file", pipeline.settings.model_save_dir, "")


def test_a_directory_that_is_closed(tmp_path, monkeypatch):
    def refuse(path, *_, **__):
        raise PermissionError(13, "Permission denied", str(path))

    # Not by its mode: nothing is closed to root.
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ConfigurationError) as error, written_whole(tmp_path / "lab.synicix"):
        pass
    assert "Permission denied. Name a file in a directory that you may write to." in str(error.value)
    assert "disk with room" not in str(error.value)


def test_a_member_that_is_missing(path, pipeline):
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist() if name != "Job.jsonl"}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    assert "changed or damaged" in (text := refused(pipeline, path)) and "Job.jsonl is missing" in text
