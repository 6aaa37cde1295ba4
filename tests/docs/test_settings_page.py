"""docs/settings.md says what `synicix_core.settings` does."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from synicix_core.settings import Settings, WorkerSettings, create_project, load_settings

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"
ROWS = re.findall(r"^\| `([a-z_.]+)` \| `(SYNICIX_\w+)` \| `([^`]+)` \|", PAGE.read_text(), re.MULTILINE)


def value(settings: Settings, key: str) -> object:
    part = settings.worker if key.startswith("worker.") else settings
    return getattr(part, key.removeprefix("worker."))


def test_every_setting_has_a_row():
    keys = set(Settings.__dataclass_fields__) - {"project_dir", "worker", "plugins"}
    assert "`[plugins.NAME]`" in PAGE.read_text()
    assert {key for key, _, _ in ROWS} == keys | {f"worker.{name}" for name in WorkerSettings.__dataclass_fields__}


def test_the_defaults_are_those_of_the_page(tmp_path, monkeypatch):
    for _, variable, _ in ROWS:
        monkeypatch.delenv(variable, raising=False)
    settings = create_project(tmp_path)
    for key, _, default in ROWS:
        expected = tomllib.loads(f"x = {default}")["x"]
        assert value(settings, key) == (tmp_path / expected if key.endswith("_dir") else expected), key


def test_every_variable_is_read(tmp_path, monkeypatch):
    create_project(tmp_path)
    given = {
        "schema_name": "other",
        "follow_symlinks": "true",
        "worker.lease_seconds": "300.0",
        "worker.heartbeat_seconds": "7",
        "worker.resident_share": "0.5",
    }
    for key, variable, _ in ROWS:
        monkeypatch.setenv(variable, given.get(key, str(tmp_path / "x") if key.endswith("_dir") else "41"))
    settings = load_settings(tmp_path)
    for key, _, default in ROWS:
        if key != "worker.lease_seconds":
            assert str(value(settings, key)) != default.strip('"'), key
