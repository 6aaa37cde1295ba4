"""The specifications of a group on their way to the executor: what all have in common is sent once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from synicix_core.training.spec import TaskSpec

__all__ = ["pack", "unpack"]

_HEAVY = "additional_model_params"
"""May hold arrays, so it is read once, too."""


def pack(specs: Sequence[TaskSpec]) -> list[dict[str, Any]]:
    """Return the first specification on the wire, and of each other one the fields that differ from it."""
    first = specs[0]
    packed = [first.to_wire()]
    for spec in specs[1:]:
        own = [
            field.name for field in fields(TaskSpec) if _differ(getattr(spec, field.name), getattr(first, field.name))
        ]
        written = (spec if _HEAVY in own else replace(spec, additional_model_params={})).to_wire()
        packed.append({name: written[name] for name in own})
    return packed


def unpack(packed: Sequence[Mapping[str, Any]]) -> list[TaskSpec]:
    """Return the specifications that `pack` was given."""
    first = TaskSpec.from_wire(packed[0])
    light = {**packed[0], _HEAVY: {}}
    specs = [first]
    for own in packed[1:]:
        spec = TaskSpec.from_wire({**light, **own})
        specs.append(spec if _HEAVY in own else replace(spec, additional_model_params=first.additional_model_params))
    return specs


def _differ(one: Any, other: Any) -> bool:
    if one is other:
        return False
    try:
        return bool(one != other)
    except ValueError:  # arrays that are not the same object
        return True
