"""Where directories, the schema and the workers' defaults come from.

A setting is looked up in this order: what the caller passes (a command-line flag), a ``SYNICIX_*`` environment variable,
the project's ``synicix.toml``, the default. The database and its stores are not here: DataJoint's own configuration says
where they are (see `synicix_core.database`).
"""

from __future__ import annotations

import difflib
import math
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from synicix_core.errors import ConfigurationError

__all__ = ["PROJECT_FILE", "Settings", "WorkerSettings", "create_project", "find_project", "load_settings"]

PROJECT_FILE = "synicix.toml"


@dataclass(frozen=True)
class WorkerSettings:
    """Defaults of ``synicix-run populate``; every time is in seconds."""

    lease_seconds: float = 300.0
    """A claim whose heartbeat is older than this goes back to pending."""
    heartbeat_seconds: float = 15.0
    grace_seconds: float = 25.0
    """How long a worker may take to stop after a signal."""
    stall_timeout_seconds: float = 3600.0
    """Training without progress for this long counts as hung."""
    max_attempts: int = 3
    db_timeout_seconds: float = 600.0
    """How long a worker waits for a database that went away."""
    retry_seconds: float = 60.0
    """Pause before the second attempt; it doubles with each further one."""
    checkpoint_seconds: float = 30.0
    """Time between checkpoints; a large one, which takes long to write, comes less often."""
    checkpoint_epochs: int = 0
    """A checkpoint after so many epochs, too; 0 leaves it to the time."""
    threads: int = 1
    """CPU threads of an executor that trains on the CPU; 0 leaves the choice to torch.

    One, because several workers side by side use the cores of a machine better than one worker's threads do, and because
    the last digits of a result depend on the number of threads.
    """
    fuse: str | int = "auto"
    """How many tasks that are alike are trained together: ``auto``, ``off``, or a number from 2 on."""
    devices_per_task: int = 1
    """How many devices train one task: the worker's, and those that follow it. Above 1 every task is trained by itself."""

    resident_share: float = 0.25
    """Datasets that have ``tensors()``, and take no more than this share of the device's free memory, are put there whole and
    kept for the next task; 0 leaves all of them where they are."""

    @property
    def group_size(self) -> int | None:
        """Number of tasks to train together that somebody named; None where ``fuse`` is ``auto``, 1 where it is ``off``.

        A task of several devices is always trained by itself.
        """
        if self.devices_per_task > 1:
            return 1
        return None if self.fuse == "auto" else 1 if self.fuse == "off" else int(self.fuse)

    def with_fuse(self, fuse: str | int) -> WorkerSettings:
        """Return the same with another ``fuse``.

        Raises
        ------
        ConfigurationError
            If it is none of the values that ``fuse`` takes.
        """
        mistakes: list[str] = []
        checked = _check(_BY_KEY["worker.fuse"], fuse, "fuse", mistakes)
        if mistakes:
            raise ConfigurationError("The settings are wrong", why=mistakes[0])
        return replace(self, fuse=checked)


@dataclass(frozen=True)
class Settings:
    """Everything that is configured outside the database; all paths are absolute."""

    project_dir: Path
    dataset_dir: Path
    dataset_cache_dir: Path
    model_save_dir: Path
    schema_name: str = "synicix"
    num_workers: int = 0
    """Data-loading processes."""
    max_cache_bytes: int = 0
    """Size to which `dataset_cache_dir` is kept; 0 is no limit."""
    follow_symlinks: bool = False
    """Whether links inside `dataset_dir` may lead out of it."""
    worker: WorkerSettings = field(default_factory=WorkerSettings)
    plugins: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """What stands in the tables ``[plugins.DISTRIBUTION]``, by distribution, as it was read: each plugin checks its own."""


def find_project(start: str | Path | None = None) -> Path | None:
    """Return the nearest directory with a ``synicix.toml``, from `start` (the working directory) upward."""
    here = _absolute(start or ".")
    return next((folder for folder in (here, *here.parents) if (folder / PROJECT_FILE).is_file()), None)


def load_settings(start: str | Path | None = None, *, required: bool = True, **overrides: Any) -> Settings:
    """Read the settings of the project that `start` lies in.

    Parameters
    ----------
    start : path, optional
        A directory inside the project; the working directory by default.
    required : bool
        Whether a missing project is an error. If not, `start` itself takes the project's place: the way for a notebook
        that works with a configured server and has no project.
    **overrides
        Values that win over everything else, by the setting's name; a worker's are called ``worker_lease_seconds`` and
        so on. None means not given.

    Raises
    ------
    ConfigurationError
        No project is found; or a file, variable or value is wrong. All mistakes are reported at once.
    """
    project = find_project(start)
    if project is None and required:
        raise ConfigurationError(
            "There is no Synicix project here",
            where=str(_absolute(start or ".")),
            why=f"no {PROJECT_FILE} in this directory or any above it",
            hint="Run `synicix-run init` in the directory that shall hold the project, or change into an existing one.",
        )
    mistakes: list[str] = []
    values = _from_file(project / PROJECT_FILE, mistakes) if project else {}
    values |= _from_environment(os.environ, mistakes)
    values |= _from_caller(overrides, mistakes)
    return _build(project or _absolute(start or "."), values, mistakes)


def create_project(path: str | Path) -> Settings:
    """Make `path` a project: a commented ``synicix.toml`` and the directories it names; nothing is overwritten.

    Raises
    ------
    ConfigurationError
        A file is in the way, the place is not writable, or the ``synicix.toml`` that is there is wrong.
    """
    project = _absolute(path)
    try:
        project.mkdir(parents=True, exist_ok=True)
        _write_new(project / PROJECT_FILE, TEMPLATE)
        settings = load_settings(project)
        for folder in (settings.dataset_dir, settings.dataset_cache_dir, settings.model_save_dir):
            folder.mkdir(parents=True, exist_ok=True)
        (project / ".synicix").mkdir(exist_ok=True)
        # The database, the cache and the stores lie in there: nothing for a version control system.
        _write_new(project / ".synicix" / ".gitignore", "*\n")
    except OSError as error:
        raise ConfigurationError(
            "The project cannot be created", where=str(error.filename or project), why=error.strerror or str(error)
        ) from error
    return settings


TEMPLATE = """\
# A Synicix project. Each setting below is shown with its default; remove the "#" to change it.
# An environment variable wins over this file (SYNICIX_DATASET_DIR, SYNICIX_WORKER_LEASE_SECONDS, ...), and a
# command-line flag over both. Directories that do not start with "/" are relative to this file.
# The database is not configured here: without datajoint.json or DJ_* variables it is a PostgreSQL inside .synicix.

# schema_name = "synicix"             # the tables' schema: one word in lower case
# dataset_dir = "datasets"            # the dataset files; may be a symbolic link
# dataset_cache_dir = ".synicix/cache"  # a fast local disk: files that lie on another disk are copied here
# model_save_dir = "models"           # trained models and checkpoints
# num_workers = 0                     # data-loading processes
# max_cache_bytes = 0                 # what was read longest ago leaves the cache above this size; 0 is no limit
# follow_symlinks = false             # whether links inside dataset_dir may lead out of it

[worker]
# lease_seconds = 300.0               # a claim with an older heartbeat goes back to pending
# heartbeat_seconds = 15.0
# grace_seconds = 25.0                # time to stop after a signal
# stall_timeout_seconds = 3600.0      # training without progress for this long counts as hung
# max_attempts = 3
# db_timeout_seconds = 600.0          # how long to wait for a database that went away
# retry_seconds = 60.0                # pause before the second attempt; doubles with each further one
# checkpoint_seconds = 30.0           # time between checkpoints; large ones come less often
# checkpoint_epochs = 0               # a checkpoint after so many epochs, too; 0: by time alone
# threads = 1                         # CPU threads of one worker; 0 leaves the choice to torch
# fuse = "auto"                       # tasks that are alike are trained together: "auto", "off" or how many
# devices_per_task = 1                # GPUs to train one task on; above 1 tasks are trained one by one
# resident_share = 0.25               # datasets up to this share of the free memory stay on the device; 0: none does
"""


@dataclass(frozen=True)
class _Setting:
    key: str
    """As in the file: ``dataset_dir``, ``worker.lease_seconds``."""
    kind: type
    wanted: str
    """The sentence that completes "must be ..."."""
    accepts: Callable[[Any], bool] = lambda _: True

    @property
    def flat(self) -> str:
        return self.key.replace(".", "_")

    @property
    def variable(self) -> str:
        return f"SYNICIX_{self.flat.upper()}"


_RESERVED_SCHEMAS = {"information_schema", "mysql", "performance_schema", "public", "sys"}


def _is_schema_name(value: str) -> bool:
    # DataJoint folds names to lower case on PostgreSQL, whose names are at most 63 bytes long.
    return (
        re.fullmatch(r"[a-z][a-z0-9_-]{0,62}", value) is not None
        and value not in _RESERVED_SCHEMAS
        and not value.startswith("pg_")
    )


def _is_fuse(value: str) -> bool:
    return value in ("auto", "off") or (re.fullmatch(r"[0-9]{1,6}", value) is not None and int(value) >= 2)


def _positive(key: str) -> _Setting:
    return _Setting(
        f"worker.{key}", float, "a number of seconds above 0", lambda value: math.isfinite(value) and value > 0
    )


_SETTINGS = (
    _Setting(
        "schema_name",
        str,
        "a name of at most 63 lower-case letters, digits, '_' or '-' that starts with a letter and is not the server's own",
        _is_schema_name,
    ),
    _Setting("dataset_dir", Path, "a path"),
    _Setting("dataset_cache_dir", Path, "a path"),
    _Setting("model_save_dir", Path, "a path"),
    _Setting("num_workers", int, "an integer from 0 on", lambda value: value >= 0),
    _Setting("max_cache_bytes", int, "a number of bytes, or 0 for no limit", lambda value: value >= 0),
    _Setting("follow_symlinks", bool, "true or false"),
    _positive("lease_seconds"),
    _positive("heartbeat_seconds"),
    _positive("grace_seconds"),
    _positive("stall_timeout_seconds"),
    _Setting("worker.max_attempts", int, "an integer from 1 on", lambda value: value >= 1),
    _positive("db_timeout_seconds"),
    _positive("retry_seconds"),
    _positive("checkpoint_seconds"),
    _Setting("worker.checkpoint_epochs", int, "an integer from 0 on", lambda value: value >= 0),
    _Setting("worker.threads", int, "an integer from 0 on", lambda value: value >= 0),
    _Setting("worker.fuse", str, '"auto", "off" or an integer from 2 on', _is_fuse),
    _Setting("worker.devices_per_task", int, "an integer from 1 on", lambda value: value >= 1),
    _Setting("worker.resident_share", float, "a number from 0 to 0.9", lambda value: 0 <= value <= 0.9),
)
_BY_KEY = {setting.key: setting for setting in _SETTINGS}
_BY_FLAT = {setting.flat: setting for setting in _SETTINGS}
_DEFAULT_DIRS = {"dataset_dir": "datasets", "dataset_cache_dir": ".synicix/cache", "model_save_dir": "models"}


def _from_file(path: Path, mistakes: list[str]) -> dict[str, Any]:
    try:
        # Editors on Windows put a byte order mark in front, which TOML does not allow.
        document = tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise ConfigurationError(f"{PROJECT_FILE} cannot be read", where=str(path), why=error.strerror or "") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{PROJECT_FILE} is not valid TOML", where=str(path), why=str(error)) from error

    worker = document.pop("worker", {})
    if not isinstance(worker, dict):
        mistakes.append(f"{path}: worker: must be a table: write [worker] and the settings below it")
        worker = {}
    plugins = _plugin_tables(path, document.pop("plugins", {}), mistakes)
    given = document | {f"worker.{key}": value for key, value in worker.items()}
    values: dict[str, Any] = {"plugins": plugins}
    for key, value in given.items():
        setting = _BY_KEY.get(key)
        if setting is None:
            mistakes.append(f"{path}: {key}: there is no such setting; {_suggestion(key)}")
        elif (checked := _check(setting, value, f"{path}: {key}", mistakes)) is not None:
            values[key] = path.parent / checked if isinstance(checked, Path) else checked
    return values


def _plugin_tables(path: Path, tables: Any, mistakes: list[str]) -> dict[str, Mapping[str, Any]]:
    if not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()):
        mistakes.append(f"{path}: plugins: must hold a table for each plugin: [plugins.the-name-of-its-distribution]")
        return {}
    return {re.sub(r"[-_.]+", "-", name).lower(): table for name, table in tables.items()}


def _from_environment(environment: Mapping[str, str], mistakes: list[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for setting in _SETTINGS:
        text = environment.get(setting.variable, "").strip()
        if text:
            checked = _check(setting, _parse(setting.kind, text), setting.variable, mistakes)
            if checked is not None:
                values[setting.key] = checked
    return values


def _from_caller(overrides: Mapping[str, Any], mistakes: list[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in overrides.items():
        setting = _BY_FLAT.get(name)
        if setting is None:
            mistakes.append(f"{name}: there is no such setting; {_suggestion(name, _BY_FLAT)}")
        elif value is not None and (checked := _check(setting, value, name, mistakes)) is not None:
            values[setting.key] = checked
    return values


def _parse(kind: type, text: str) -> Any:
    """Turn a variable's text into a value of `kind`, or return the text for `_check` to refuse."""
    if kind is bool:
        lower = text.lower()
        return True if lower in ("1", "true", "yes", "on") else False if lower in ("0", "false", "no", "off") else text
    if kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            return text
    return text


def _check(setting: _Setting, value: Any, where: str, mistakes: list[str]) -> Any:
    """Return `value` as the setting's type, or None after adding to `mistakes`."""
    if setting.kind is Path and isinstance(value, str | Path) and str(value) and "\0" not in str(value):
        try:
            # Expanded now; the callers make it absolute, because a file's paths are relative to the file.
            return Path(value).expanduser()
        except RuntimeError as error:
            mistakes.append(f"{where}: {error}")
            return None
    if setting.kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if setting.key == "worker.fuse" and isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if type(value) is not setting.kind or not setting.accepts(value):
        mistakes.append(f"{where}: must be {setting.wanted}, not {value!r}")
        return None
    return int(str(value)) if setting.key == "worker.fuse" and str(value).isdecimal() else value


def _suggestion(key: str, names: Mapping[str, _Setting] = _BY_KEY) -> str:
    if key in ("database", "stores"):
        return "it is configured the way DataJoint does it, in datajoint.json or by DJ_* variables"
    # `lease_seconds` at top level is a likely slip, so the last part alone is compared, too.
    by_last_part = {name.rpartition(".")[2]: name for name in names}
    close = difflib.get_close_matches(key, names, 1) or [
        by_last_part[match] for match in difflib.get_close_matches(key.rpartition(".")[2], by_last_part, 1)
    ]
    if close:
        return f"did you mean {close[0]}?"
    return f"the settings are {', '.join(names)}"


def _build(project: Path, values: dict[str, Any], mistakes: list[str]) -> Settings:
    for key, default in _DEFAULT_DIRS.items():
        values[key] = _absolute(values.get(key, project / default))
    worker = WorkerSettings(**{f.name: values.pop(f"worker.{f.name}", f.default) for f in fields(WorkerSettings)})
    # A beat or two may be late or lost without the claim expiring.
    if worker.lease_seconds < 2 * worker.heartbeat_seconds:
        mistakes.append(
            f"worker.lease_seconds ({worker.lease_seconds:g}) must be at least twice worker.heartbeat_seconds "
            f"({worker.heartbeat_seconds:g})"
        )
    if mistakes:
        raise ConfigurationError(
            "The settings are wrong",
            why=mistakes[0] if len(mistakes) == 1 else "".join(f"\n  {line}" for line in mistakes),
        )
    return Settings(project_dir=project, worker=worker, **values)


def _absolute(path: str | Path) -> Path:
    # Not resolved: dataset_dir may be a symbolic link that is pointed elsewhere later.
    return Path(os.path.abspath(path))  # noqa: PTH100


def _write_new(path: Path, text: str) -> None:
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        if not path.is_file():
            raise
