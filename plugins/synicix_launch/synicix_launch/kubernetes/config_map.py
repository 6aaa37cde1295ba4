"""The ConfigMap: the project's settings and its database as pods see them, without secrets."""

from __future__ import annotations

import dataclasses
import json
import re
import tomllib
from collections.abc import Mapping
from typing import Any

from synicix_launch.contract import LaunchRequest
from synicix_launch.database import STORE
from synicix_launch.errors import LaunchError
from synicix_launch.launchers import OURS
from synicix_launch.toml_text import toml_text

__all__ = ["config_files", "left_out"]

_SECRET = re.compile(r"(?i)pass(word|wd|phrase)?$|secret|token|credential|api_?key|access_?key|private_?key")
_PROJECT_WIDE = ("schema_name", "num_workers", "follow_symlinks")


def config_files(base: Mapping[str, str], request: LaunchRequest) -> dict[str, str]:
    """Return ``synicix.toml`` and ``datajoint.json`` for pods.

    Parameters
    ----------
    base : mapping
        The same files as deploy/kubernetes has them. Their directories, and the size of the cache, are those of the container,
        so they stay; what is not at its default in the project replaces the rest.
    request : LaunchRequest
        Its options name the database's host, where that is another one for pods.

    Raises
    ------
    LaunchError
        If pods cannot reach the database.
    """
    return {
        "synicix.toml": toml_text(_settings(tomllib.loads(base["synicix.toml"]), request)),
        "datajoint.json": json.dumps(_datajoint(json.loads(base["datajoint.json"]), request), indent=2) + "\n",
    }


def left_out(request: LaunchRequest) -> list[str]:
    """Return the paths of settings that are not rendered because they look like secrets."""
    return _plugin_tables(request)[1]


def _settings(base: dict[str, Any], request: LaunchRequest) -> dict[str, Any]:
    merged = {key: value for key, value in base.items() if key != "worker"}
    merged |= _changed(request.settings, _PROJECT_WIDE)
    worker = request.settings.worker
    names = tuple(field.name for field in dataclasses.fields(worker))
    merged["worker"] = base.get("worker", {}) | _changed(worker, names)
    if request.grace_seconds is not None:
        merged["worker"]["grace_seconds"] = request.grace_seconds
    # Other plugins work in pods as they do here; ours does not.
    tables, _ = _plugin_tables(request)
    return merged | ({"plugins": tables} if tables else {})


def _plugin_tables(request: LaunchRequest) -> tuple[dict[str, Any], list[str]]:
    left_out: list[str] = []
    tables = {
        name: _without_secrets(table, f"plugins.{name}", left_out)
        for name, table in request.settings.plugins.items()
        if name != OURS
    }
    return tables, left_out


def _without_secrets(value: Any, path: str, left_out: list[str]) -> Any:
    if isinstance(value, list):
        return [_without_secrets(item, f"{path}[{at}]", left_out) for at, item in enumerate(value)]
    if not isinstance(value, Mapping):
        return value
    kept = {}
    for key, item in value.items():
        if _SECRET.search(key):
            left_out.append(f"{path}.{key}")
        else:
            kept[key] = _without_secrets(item, f"{path}.{key}", left_out)
    return kept


def _changed(settings: Any, names: tuple[str, ...]) -> dict[str, Any]:
    """Return the fields `names` of a dataclass that are not at their defaults."""
    defaults = {field.name: field.default for field in dataclasses.fields(settings)}
    return {name: getattr(settings, name) for name in names if getattr(settings, name) != defaults[name]}


def _datajoint(base: dict[str, Any], request: LaunchRequest) -> dict[str, Any]:
    database = request.database
    if database.embedded:
        raise LaunchError(
            "Pods cannot reach the project's database",
            why="it is the PostgreSQL inside the project, which listens on no network port",
            hint="Set up a server, configure it in datajoint.json and move the tables there with `synicix-run db export` and "
            "`synicix-run db import`.",
        )
    if database.is_local and not request.options.database_host:
        raise LaunchError(
            "Pods cannot reach the project's database",
            why=f"it is {database}, and in a pod that is the pod itself",
            hint="Say by which name pods reach it. Run: synicix-run launch kubernetes --database-host db.example.org",
        )
    host, _, port = (request.options.database_host or database.host).partition(":")
    merged: dict[str, Any] = {"backend": database.backend, "host": host, "port": int(port or database.port)}
    merged |= {"name": database.name} if database.name else {}
    merged |= {"use_tls": database.use_tls} if database.use_tls is not None else {}
    stores = base.get("stores", {})
    if (store := dict(database.store or {})) and store.get("protocol") != "file":
        # An object store is in the same place for everybody; a folder is where the claim is mounted.
        stores = {**stores, STORE: store}
    kept = {key: value for key, value in base.items() if key not in ("database", "stores")}
    return {"database": merged, "stores": stores} | kept
