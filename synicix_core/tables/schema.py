"""Bind the tables to a connection, declare them once, and recognise a schema that is not ours."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from synicix_core.database.adapters import AccessRefused
from synicix_core.database.dialect import advisory_lock, columns_of, quote_table, table_exists
from synicix_core.database.quiet import datajoint as dj
from synicix_core.database.reconnect import execute
from synicix_core.errors import ConfigurationError
from synicix_core.tables.config_table import Services
from synicix_core.tables.dataset_config import DatasetConfig
from synicix_core.tables.model_config import ModelConfig
from synicix_core.tables.training_attempt import TrainingAttempt
from synicix_core.tables.training_config import TrainingConfig
from synicix_core.tables.training_result import TrainingResult
from synicix_core.tables.training_task import TrainingTask
from synicix_core.version import __version__

__all__ = ["SCHEMA_VERSION", "VERSION_TABLE", "Tables", "bind", "declare", "is_declared"]

SCHEMA_VERSION = 2
"""Raised whenever the columns change."""

JOB_COLUMNS = frozenset(
    {"training_task_md5_hash", "status", "priority", "created_time", "scheduled_time", "reserved_time"}
    | {"error_message", "error_stack", "user", "host", "pid"}
)
"""The columns of DataJoint's job table that the queue touches."""

_CLASS_LEVEL = {"insert_tuples", "insert_tuple", "insert_prepared", "prepare", "existing"}
_TABLES = {
    "DatasetConfig": "dataset_config",
    "ModelConfig": "model_config",
    "TrainingConfig": "training_config",
    "TrainingTask": "training_task",
    "TrainingAttempt": "training_attempt",
    "TrainingResult": "__training_result",
}
_JOBS = "~~training_result"
VERSION_TABLE = "synicix_schema"
"""Holds the version row."""


class _TableMeta(type(dj.Manual)):  # type: ignore[misc]
    """Lets people call the methods of this project's tables on the class, as DataJoint lets them call its own."""

    def __getattribute__(cls, name: str) -> Any:
        if name in _CLASS_LEVEL:
            return getattr(cls(), name)
        return super().__getattribute__(name)


class SynicixSchema:
    """The version row: which columns the schema has, and who declared it."""

    definition = """
    # Version of the columns of this schema
    schema_version  : int32
    ---
    synicix_version : varchar(32)
    declared_at     : datetime(3)
    """


@dataclass(frozen=True)
class Tables:
    """The tables of one schema on one connection.

    Attributes
    ----------
    connection : datajoint.Connection
        Where they are.
    schema : datajoint.Schema
        The schema, for ``dj.Diagram``.
    schema_name : str
        Its name.
    DatasetConfig, ModelConfig, TrainingConfig, TrainingTask, TrainingAttempt, TrainingResult : type
        DataJoint table classes.
    """

    connection: Any
    schema: Any
    schema_name: str
    DatasetConfig: Any
    ModelConfig: Any
    TrainingConfig: Any
    TrainingTask: Any
    TrainingAttempt: Any
    TrainingResult: Any

    @property
    def jobs_name(self) -> str:
        """Quoted full name of the job table."""
        return quote_table(self.connection.adapter, self.schema_name, _JOBS)


def is_declared(connection: Any, schema_name: str) -> bool:
    """Tell whether the schema holds our tables, whole and of this version.

    Raises
    ------
    ConfigurationError
        If it holds tables of these names that are not ours, or those of a newer version.
    """
    found = {name: set(columns_of(connection, schema_name, table)) for name, table in _TABLES.items()}
    foreign = {name: columns for name, columns in found.items() if columns and columns != _columns(name)}
    if foreign:
        name, columns = next(iter(foreign.items()))
        odd = sorted(columns ^ _columns(name))
        raise ConfigurationError(
            f"the schema {schema_name!r} holds a table {name} that is not of this version of Synicix",
            why=f"its columns differ: {', '.join(odd[:6])}{' …' if len(odd) > 6 else ''}",
            hint="It is left alone. Set another schema_name in synicix.toml or SYNICIX_SCHEMA_NAME.",
        )
    if not table_exists(connection, schema_name, VERSION_TABLE):
        return False
    row = execute(
        connection, f"SELECT MAX(schema_version) FROM {quote_table(connection.adapter, schema_name, VERSION_TABLE)}"
    ).fetchone()
    if row[0] is None:
        return False
    if row[0] != SCHEMA_VERSION:
        raise ConfigurationError(
            f"the schema {schema_name!r} is of version {row[0]}; this synicix-core knows version {SCHEMA_VERSION}",
            hint="Install the synicix-core that made it, or a newer one.",
        )
    return True


def declare(connection: Any, schema_name: str) -> bool:
    """Create the schema and its tables under a lock, so that any number of processes may do so at once.

    Tables that an interrupted declaration left behind are empty; they are made anew, because DataJoint writes their
    types in a second step that may be missing.

    Returns
    -------
    bool
        Whether anything was created.
    """
    _check_name(schema_name)
    with advisory_lock(connection, f"synicix/declare/{schema_name}", timeout=120):
        if is_declared(connection, schema_name):
            return False
        try:
            _declare(connection, schema_name)
        except dj.errors.DataJointError as error:
            # DataJoint puts another error in the place of the refusal.
            refused = error if isinstance(error, AccessRefused) else error.__context__
            if not isinstance(refused, AccessRefused):
                raise
            raise ConfigurationError(
                "the database user may not make tables",
                where=f"user {connection.conn_info['user']}, schema {schema_name}",
                why=refused.why,
                hint=refused.hint,
            ) from error
    return True


def _declare(connection: Any, schema_name: str) -> None:
    _drop_remains(connection, schema_name)
    tables = bind(connection, schema_name, services=None, create=True)
    _check_codecs(tables)
    tables.TrainingResult.jobs  # noqa: B018 - reading it declares the job table
    versions = _table(SynicixSchema, dj.Manual, {})
    dj.Schema(schema_name, connection=connection)(versions, context={})
    versions.insert1(
        {
            "schema_version": SCHEMA_VERSION,
            "synicix_version": __version__,
            "declared_at": datetime.now(UTC).replace(tzinfo=None),
        }
    )


def bind(
    connection: Any,
    schema_name: str,
    services: Services | None,
    *,
    create: bool = False,
    enqueue: Callable[[], Any] | None = None,
    run_worker: Callable[..., Any] | None = None,
) -> Tables:
    """Build the table classes for one connection.

    Parameters
    ----------
    connection : datajoint.Connection
        Where the schema is.
    schema_name : str
        Its name.
    services : Services
        What the tables need from above.
    create : bool
        Whether to create what is missing.
    enqueue, run_worker : callable
        What inserting tasks and `TrainingResult.populate` call.
    """
    schema = dj.Schema(schema_name, connection=connection, create_schema=create, create_tables=create)
    bound: dict[str, Any] = {}
    configs: dict[str, type] = {
        "DatasetConfig": DatasetConfig,
        "ModelConfig": ModelConfig,
        "TrainingConfig": TrainingConfig,
        "TrainingTask": TrainingTask,
    }
    for name, mixin in configs.items():
        bound[name] = _table(
            mixin, dj.Manual, {"services": services, "tables": bound, "enqueue": staticmethod(enqueue or _cannot)}
        )
        schema(bound[name], context=bound)
    bound["TrainingAttempt"] = _table(TrainingAttempt, dj.Manual, {})
    schema(bound["TrainingAttempt"], context=bound)
    bound["TrainingResult"] = _table(TrainingResult, dj.Computed, {"run_worker": staticmethod(run_worker or _cannot)})
    schema(bound["TrainingResult"], context=bound)
    if not create:
        _check_jobs(connection, schema_name)
    return Tables(connection, schema, schema_name, **bound)


def _table(mixin: type, tier: type, attributes: dict[str, Any]) -> Any:
    names = {"__doc__": mixin.__doc__, "__module__": mixin.__module__, **attributes}
    return _TableMeta(mixin.__name__, (mixin, tier), names)


def _cannot(*_: Any, **__: Any) -> Any:
    raise ConfigurationError("these tables are bound for declaring alone", hint="Use synicix_core.Pipeline.")


def _columns(name: str) -> set[str]:
    """Return the column names that a table's definition declares, foreign keys included."""
    mixins = (DatasetConfig, ModelConfig, TrainingConfig, TrainingTask, TrainingAttempt, TrainingResult)
    mixin = next(mixin for mixin in mixins if mixin.__name__ == name)
    columns = set(re.findall(r"^\s*(\w+)\s*(?:=[^:]*)?:", mixin.definition, re.MULTILINE))
    parents = re.findall(r"->\s*(\w+)", mixin.definition)
    return columns | {f"{_TABLES[parent]}_md5_hash" for parent in parents}


def _drop_remains(connection: Any, schema_name: str) -> None:
    for table in (_JOBS, *reversed(_TABLES.values())):
        if table_exists(connection, schema_name, table):
            full_name = quote_table(connection.adapter, schema_name, table)
            if execute(connection, f"SELECT COUNT(*) FROM {full_name}").fetchone()[0]:
                raise ConfigurationError(
                    f"the schema {schema_name!r} has rows in {table} but no version row",
                    why="it was not declared by Synicix, or its version row was deleted",
                    hint="It is left alone. Set another schema_name in synicix.toml or SYNICIX_SCHEMA_NAME.",
                )
            execute(connection, f"DROP TABLE {full_name}")


def _check_codecs(tables: Tables) -> None:
    """Make sure that DataJoint reads blobs back as blobs; it keeps that in comments, written in a second step."""
    for table in (tables.DatasetConfig, tables.TrainingResult):
        for name in re.findall(r"(\w+)\s*: <blob", table.definition):
            if table.heading[name].codec is None:
                raise ConfigurationError(
                    f"the column {name} of {table.__name__} was declared without its type",
                    hint="Drop the schema and declare it again.",
                )


def _check_jobs(connection: Any, schema_name: str) -> None:
    missing = JOB_COLUMNS - set(columns_of(connection, schema_name, _JOBS))
    if missing:
        raise ConfigurationError(
            f"the job table of schema {schema_name!r} lacks the columns {', '.join(sorted(missing))}",
            why="DataJoint changed its layout, or the table was dropped",
            hint="Install the DataJoint version that synicix-core asks for.",
        )


def _check_name(schema_name: str) -> None:
    if not re.fullmatch(r"[a-z][a-z0-9_-]{0,62}", schema_name):
        raise ConfigurationError(
            f"the schema name {schema_name!r} is not allowed",
            why="it is lower-case letters, digits, '_' and '-', starting with a letter, at most 63 characters",
            hint="Set another schema_name in synicix.toml or SYNICIX_SCHEMA_NAME.",
        )
