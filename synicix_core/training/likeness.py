"""Whether two models differ in nothing but the values of their parameters and buffers, so that they can be stacked."""

from __future__ import annotations

import functools
import types
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.utils import parametrize

from synicix_core.training.dropout import TaskDropout

__all__ = ["difference", "plain_attributes"]

_TENSORS = set(vars(nn.Module())) - {"training"}
"""What torch itself keeps in a module: its tensors, which are compared by themselves, and its hooks, which models of a stack
must not have."""
_OF_DROPOUT = {"p", "sources"}
"""What each model of a stack has for itself."""


def difference(one: nn.Module, other: nn.Module) -> str:
    """Say in what two models differ besides the values of tensors; empty where in nothing.

    Numbers, strings, functions and whatever else hangs on a module belong to all models of a stack, so they must be the
    same. What cannot be compared counts as different.
    """
    mine, theirs = dict(one.named_modules(remove_duplicate=False)), dict(other.named_modules(remove_duplicate=False))
    if mine.keys() != theirs.keys():
        return "one has other layers than another"
    comparison = _Comparison(one, other)
    for name, module in mine.items():
        where = f"{type(one).__name__}.{name}" if name else type(one).__name__
        if why := _module_difference(module, theirs[name], comparison):
            return f"{where}{why}"
    return ""


def plain_attributes(owner: Any) -> dict[str, str]:
    """Return all numbers, strings and the like that hang on an object, however deep, as text; to see what changes."""
    found: dict[str, str] = {}
    _collect(owner, type(owner).__name__, found, set())
    return found


def _collect(value: Any, where: str, found: dict[str, str], seen: set[int]) -> None:
    if isinstance(value, bool | int | float | complex | str | bytes | type(None)):
        found[where] = repr(value)
        return
    if id(value) in seen or isinstance(value, torch.Tensor | np.ndarray | torch.Generator | type | types.ModuleType):
        return
    seen.add(id(value))
    if isinstance(value, Mapping):
        for key, item in value.items():
            _collect(item, f"{where}[{key!r}]", found, seen)
    elif isinstance(value, list | tuple | set | frozenset):
        for index, item in enumerate(value):
            _collect(item, f"{where}[{index}]", found, seen)
    elif isinstance(value, nn.Module):
        for name, module in value.named_children():
            _collect(module, f"{where}.{name}", found, seen)
        for key, item in vars(value).items():
            if key not in _TENSORS:
                _collect(item, f"{where}.{key}", found, seen)
    elif isinstance(value, types.FunctionType):
        for cell in value.__closure__ or ():
            _collect(cell.cell_contents, f"{where} of a function", found, seen)
    else:
        for key, item in getattr(value, "__dict__", {}).items():
            _collect(item, f"{where}.{key}", found, seen)


def _module_difference(one: nn.Module, other: nn.Module, comparison: _Comparison) -> str:
    if _kind(one) is not _kind(other):
        return f" is a {type(one).__name__} in one and a {type(other).__name__} in another"
    for kind in ("_parameters", "_buffers"):
        tensors, others = getattr(one, kind), getattr(other, kind)
        if [(name, _form(tensor)) for name, tensor in tensors.items()] != [
            (name, _form(tensor)) for name, tensor in others.items()
        ]:
            return " has tensors of other shapes in one than in another"
    own = _OF_DROPOUT if isinstance(one, TaskDropout) else set()
    state, others = ({k: v for k, v in vars(m).items() if k not in _TENSORS | own} for m in (one, other))
    if state.keys() != others.keys():
        return f" has {', '.join(sorted(state.keys() ^ others.keys()))} in one and not in another"
    for name, value in state.items():
        if not comparison.same(value, others[name]):
            return f".{name} differs{_shown(value, others[name])}"
    if isinstance(one, TaskDropout) and (one.p in (0.0, 1.0) or other.p in (0.0, 1.0)) and one.p != other.p:
        return ".p is 0 or 1 in one and not in another"
    return ""


def _kind(module: nn.Module) -> type:
    # A parametrized module is of a class that was made for it alone.
    return parametrize.type_before_parametrizations(module) if parametrize.is_parametrized(module) else type(module)


def _form(tensor: torch.Tensor | None) -> Any:
    return None if tensor is None else (tensor.shape, tensor.dtype, tensor.requires_grad, tensor.layout)


def _shown(one: Any, other: Any) -> str:
    plain = (bool, int, float, str, type(None))
    return f": {one!r} in one, {other!r} in another" if isinstance(one, plain) and isinstance(other, plain) else ""


class _Comparison:
    """Compares what hangs on the modules of two models."""

    def __init__(self, one: nn.Module, other: nn.Module) -> None:
        self._mine, self._theirs = _names(one), _names(other)
        self._seen: set[tuple[int, int]] = set()

    def same(self, one: Any, other: Any) -> bool:
        """Tell whether two values are the same, or the same part of either model."""
        if one is other or (id(one), id(other)) in self._seen:
            return True
        if type(one) is not type(other):
            return False
        self._seen.add((id(one), id(other)))
        if id(one) in self._mine:
            return self._mine[id(one)] == self._theirs.get(id(other))
        if isinstance(one, torch.Generator):
            return False  # each draws from its own
        by_kind: tuple[tuple[Any, Callable[[], object]], ...] = (
            (nn.Module, lambda: not difference(one, other)),  # one that hangs on a module without being a part of it
            (torch.Tensor, lambda: one.shape == other.shape and one.dtype == other.dtype and torch.equal(one, other)),
            (np.ndarray, lambda: one.dtype == other.dtype and np.array_equal(one, other)),
            (Mapping, lambda: list(one) == list(other) and self._all(one.values(), other.values())),
            (list | tuple, lambda: len(one) == len(other) and self._all(one, other)),
            (types.FunctionType, lambda: one.__code__ is other.__code__ and self._all(_beside(one), _beside(other))),
            (types.MethodType, lambda: one.__func__ is other.__func__ and self.same(one.__self__, other.__self__)),
            (functools.partial, lambda: self._all(_bound(one), _bound(other))),
            (weakref.ref, lambda: self.same(one(), other())),
            (_PLAIN, lambda: one == other),
        )
        for kinds, compare in by_kind:
            if isinstance(one, kinds):
                return bool(compare())
        state, others = getattr(one, "__dict__", None), getattr(other, "__dict__", None)
        if state is not None and others is not None and not hasattr(type(one), "__slots__"):
            return self.same(state, others)
        try:
            return bool(one == other)
        except Exception:  # whatever a foreign type raises: it cannot be compared
            return False

    def _all(self, ones: Iterable[Any], others: Iterable[Any]) -> bool:
        return all(self.same(one, other) for one, other in zip(ones, others, strict=True))


_PLAIN = (set, frozenset, str, bytes, int, float, complex, bool, torch.dtype, torch.device)


def _names(model: nn.Module) -> dict[int, str]:
    """Return the name of every part of a model by its identity."""
    parts = (*model.named_modules(), *model.named_parameters(), *model.named_buffers())
    return {id(part): name for name, part in parts}


def _beside(function: types.FunctionType) -> list[Any]:
    closed_over = [cell.cell_contents for cell in function.__closure__ or ()]
    return [function.__defaults__, function.__kwdefaults__, function.__dict__, len(closed_over), *closed_over]


def _bound(function: functools.partial[Any]) -> list[Any]:
    return [function.func, function.args, function.keywords]
