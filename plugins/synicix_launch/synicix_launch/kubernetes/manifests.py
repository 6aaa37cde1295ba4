"""Kubernetes' objects as text, and under names that follow from what is in them."""

from __future__ import annotations

import copy
import hashlib
import json
from typing import Any

import yaml

from synicix_launch.errors import LaunchError

__all__ = ["LABEL", "content_digest", "load", "named", "text"]

LABEL = "synicix-launch"
"""Label of everything that is launched; its value tells what is in it."""


class _Mode(int):
    """Permissions of files, which people read in octal."""


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as such and permissions in octal, and repeats what is used twice."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - PyYAML's signature
        return True


_Dumper.add_representer(
    str,
    lambda dumper, value: dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None),
)

# To YAML 1.1, which kubectl reads, a number that begins with 0 is octal.
_Dumper.add_representer(_Mode, lambda dumper, value: dumper.represent_scalar("tag:yaml.org,2002:int", f"0{value:o}"))


def load(text: str, where: str) -> Any:
    """Read one YAML document.

    Raises
    ------
    LaunchError
        If it is not YAML.
    """
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise LaunchError("The template is not valid YAML", where=where, why=" ".join(str(error).split())) from error


def text(document: Any) -> str:
    """Write one YAML document."""
    return yaml.dump(_with_modes(document), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def _with_modes(value: Any) -> Any:
    """Return a copy of `value` in which the permissions of volumes and of their items can be told from other numbers."""
    if isinstance(value, list):
        return [_with_modes(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        key: _Mode(item) if key in ("defaultMode", "mode") and type(item) is int else _with_modes(item)
        for key, item in value.items()
    }


def content_digest(*documents: Any) -> str:
    """Return 8 hexadecimal digits of what the workers are, whatever they are called and however many there are."""
    kept = copy.deepcopy(documents)
    for document in kept:
        document.get("metadata", {}).pop("name", None)
        for count in ("parallelism", "completions", "maxFailedIndexes"):
            document.get("spec", {}).pop(count, None)
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:8]


def named(document: dict[str, Any], name: str, digest: str) -> dict[str, Any]:
    """Return a copy of an object under a name, labelled with the digest."""
    metadata = document.get("metadata", {})
    labels = {**metadata.get("labels", {}), LABEL: digest}
    return {**document, "metadata": {"name": name, **metadata, "labels": labels} | {"name": name}}
