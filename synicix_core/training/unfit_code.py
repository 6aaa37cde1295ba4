"""What it was in somebody's model, loss or metric that cannot be done for several models at once, in plain words."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from types import FrameType

from torch import nn

from synicix_core.errors import SynicixError

__all__ = ["brief", "is_of_stacking", "what_cannot_be_stacked"]

_MOST = 200
_FOUND = (
    ("data-dependent control flow", "decides by the values of a tensor (a data-dependent `if` or `while`)"),
    (".item()", "reads a number out of a tensor (`.item()`, `float()` or `int()`)"),
    ("randomness", "draws random numbers of its own; only torch.nn's layers of dropout may"),
    ("inplace arithmetic", "writes into a tensor that it has just made"),
    ("in-place", "writes into a tensor that it has just made"),
    ("data-dependent", "makes a tensor whose size depends on values (`nonzero`, `unique`, indexing by a mask)"),
    ("dynamic shape", "makes a tensor whose size depends on values (`nonzero`, `unique`, indexing by a mask)"),
)
"""What torch says of an operation, and what it is that it says."""
_INTERNAL = ("vmap", "functorch", "functionalize", "batching rule", "batchedtensor", "github.com")
"""Words of torch's own, which tell nobody anything about a model."""


def what_cannot_be_stacked(error: Exception) -> str:
    """Return what an error says that was raised by a step of several models as one, but not by the step of each alone.

    Parameters
    ----------
    error : Exception
        With its traceback, by which the code is named that is to blame.
    """
    if isinstance(error, SynicixError):
        return brief(error)
    text = str(error)
    known = next((words for sign, words in _FOUND if sign in text), "")
    whose = _whose(error)
    if not known:
        said = "" if is_of_stacking(error) else f" ({brief(error)})"
        known = f"does something that cannot be done for several models at once{said}"
    return f"{whose} {known}"


def is_of_stacking(error: Exception) -> bool:
    """Tell whether an error speaks of several models as one, so that a task alone would not have raised it."""
    return any(word in str(error).lower() for word in _INTERNAL)


def brief(error: Exception) -> str:
    """Return the first line of an error, not too much of it."""
    text = str(error) if isinstance(error, SynicixError) else f"{type(error).__name__}: {error}"
    first = " ".join(text.strip().split("\n")[0].split())
    return first if len(first) <= _MOST else first[: _MOST - 1] + "…"


def _whose(error: Exception) -> str:
    """Name the code that raised an error: the innermost that is neither torch's nor ours, else the innermost layer."""
    foreign, layer = "", ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        owner = frame.f_locals.get("self")
        if isinstance(owner, nn.Module) and frame.f_code.co_name == "forward":
            layer = f"the forward of {type(owner).__name__}"
        if _is_foreign(frame):
            name = frame.f_code.co_name
            named = f"the {name} of {type(owner).__name__}" if owner is not None else f"the function {name}"
            foreign = f"{named} ({Path(frame.f_code.co_filename).name}, line {line})"
    return foreign or layer or "its model, or its criterion,"


def _is_foreign(frame: FrameType) -> bool:
    package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
    return package not in ("torch", "synicix_core", "contextlib") and package not in sys.stdlib_module_names
