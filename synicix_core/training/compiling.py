"""Compiling the forward pass and the loss where it pays, and going back where it does not."""

from __future__ import annotations

import importlib.util
import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import nn

from synicix_core.errors import ConfigurationError
from synicix_core.training.batches import map_tensors
from synicix_core.training.optimization import Losses, Optimization, losses_of
from synicix_core.training.rehearsal import rehearse
from synicix_core.training.timing import COMPILING

__all__ = ["Compilation", "compiling_message", "forget_compiled", "missing_compiler", "require_compiler"]

_COLD_SECONDS = {"cpu": 30.0, "cuda": 45.0}
"""What compiling a small model takes before any was compiled in this process: measured on one core, with an empty cache; a
guess for a GPU."""

_EXPECTED_GAIN = {"cpu": 0.1, "cuda": 0.4}
"""Share of a step that compiling is expected to save, until it was measured. On a CPU -0.2 to 0.2 was measured with
multi-layer perceptrons of 2,000 to 900,000 weights; a guess for a GPU."""


@dataclass(frozen=True)
class _Known:
    """What was learnt in this process about one shape of model and batch.

    Attributes
    ----------
    compiled, eager : float
        Seconds a step; infinite as long as not measured.
    refusal : str
        Why it cannot be compiled; empty where it was.
    """

    compiled: float = math.inf
    eager: float = math.inf
    refusal: str = ""


_known: dict[Hashable, _Known] = {}
_seconds: dict[str, float] = {}
"""How long the latest new shape took to compile, by type of device."""


class Compilation:
    """Computes the losses of an `Optimization` by compiled code from the epoch on from which it pays.

    Code is compiled for one shape of batch, the first of an epoch; others, the smaller last one above all, are computed as
    ever. Torch keeps it, so the next task of the same shape in this process has it at once. Before it is used, loss and
    gradients are compared with those of the model itself, and the model is left as if nothing had been tried.

    Parameters
    ----------
    optimization : Optimization
        Its ``losses`` are from now on computed here.
    mode : {"auto", "on"}
        ``"auto"``: when the epochs left are expected to pay the time that compiling takes, and until it is seen that
        compiled steps are not faster. ``"on"``: from the first step on.
    tell : callable, optional
        Takes what people are to be told at once.

    Attributes
    ----------
    first, last : int or None
        The first and the last epoch with compiled steps, from 1.
    note : str
        Why not, or not any more; empty otherwise.
    in_use : bool
        Whether batches of the usual shape are computed by compiled code.
    undecided : bool
        Whether it is to be decided, before the next step, what this epoch is computed by.
    """

    def __init__(
        self, optimization: Optimization, mode: Literal["auto", "on"], tell: Callable[[str], None] = lambda _: None
    ) -> None:
        self.first: int | None = None
        self.last: int | None = None
        self.note = ""
        self.undecided = False
        self._optimization = optimization
        self.mode = mode
        self.tell = tell
        self._shape: Hashable = None
        self._key: Hashable = None
        self.in_use = False
        self._given_up = False
        self._eager = math.inf
        self._compiled: list[float] = []
        self._epoch, self._left = 0, 0
        self._steps_per_epoch = 0
        self._began = 0.0
        missing = missing_compiler(optimization.device)
        if missing:
            self._give_up(f"nothing was compiled: {missing}")
        optimization.losses = self
        optimization.compilation = self

    def begin_epoch(self, epoch: int, left: int) -> None:
        """Note that an epoch begins, or goes on after a checkpoint.

        Parameters
        ----------
        epoch : int
            Its number, from 1.
        left : int
            Epochs that can be expected, this one included.
        """
        self._epoch, self._left = epoch, left
        self.undecided = not (self._given_up or self.in_use)
        if self.in_use:
            self.last = epoch
        self._began = time.monotonic()

    def end_epoch(self, steps: int) -> None:
        """Take the time of an epoch of so many steps, after the device was waited for."""
        if not steps:
            return
        seconds = (time.monotonic() - self._began) / steps
        self._steps_per_epoch = max(self._steps_per_epoch, steps)
        known = _known.get(self._key, _Known())
        if not self.in_use:
            self._eager = min(self._eager, seconds)
            return
        self._compiled.append(seconds)
        eager = min(self._eager, known.eager)
        _known[self._key] = replace(known, compiled=min(known.compiled, seconds), eager=eager)
        # The first epoch also warms up what was compiled.
        slower = len(self._compiled) >= 2 and min(self._compiled) >= eager
        if self.mode == "auto" and slower and self._left > 1:
            self._give_up(
                f"compiled steps were not faster ({_milliseconds(min(self._compiled))} against {_milliseconds(eager)}), so "
                f"from epoch {self._epoch + 1} on nothing is compiled"
            )

    def decide(self, inputs: Any, targets: Any) -> None:
        """Decide, with the first batch, what the steps of this epoch are computed by, and compile if it is to be."""
        self.undecided = False
        self._shape = _shapes((inputs, targets))
        self._key = _key(self._optimization, self._shape)
        known = _known.get(self._key)
        if known is not None and known.refusal:
            self._give_up(known.refusal)
        elif self.mode == "on" or self._pays(known):
            self._compile(inputs, targets)

    def __call__(self, model: nn.Module, criterion: Any, precision: Any, inputs: Any, targets: Any) -> Losses:
        """Return what `losses_of` returns."""
        if not self.in_use or _shapes((inputs, targets)) != self._shape:
            return losses_of(model, criterion, precision, inputs, targets)
        try:
            return _code()(model, criterion, precision, inputs, targets)
        except Exception as error:  # whatever code that was made by a compiler raises: the model itself is still there
            self._give_up(
                f"compiled code failed in epoch {self._epoch} ({_first_line(error)}); training went on without it"
            )
            return losses_of(model, criterion, precision, inputs, targets)

    def describe(self) -> bool | str:
        """Return what provenance says: whether steps were compiled, or in which epochs."""
        if self.first is None:
            return False
        if self.last is not None and self._given_up:
            return f"epochs {self.first} to {self.last}"
        return True if self.first == 1 else f"from epoch {self.first}"

    def state_dict(self) -> dict[str, Any]:
        """Return in which epochs steps were compiled."""
        return {"first": self.first, "last": self.last}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` returned. Whether to compile again is decided anew: it may be another machine."""
        self.first, self.last = state["first"], state["last"]

    def _pays(self, known: _Known | None) -> bool:
        if known is not None and known.compiled < math.inf:
            eager = min(self._eager, known.eager)
            return eager < math.inf and known.compiled < eager
        if self._eager == math.inf:
            return False  # an epoch is measured first
        kind = self._optimization.device.type
        cost = _seconds.get(kind, _COLD_SECONDS.get(kind, math.inf))
        gain = self._eager * _EXPECTED_GAIN.get(kind, 0.0)
        return gain * self._steps_per_epoch * self._left > cost

    def _compile(self, inputs: Any, targets: Any) -> None:
        began = time.monotonic()
        kind = self._optimization.device.type
        known = _known.get(self._key)
        if known is None:
            self.tell(compiling_message(type(self._optimization.model).__name__))
        with self._optimization.stopwatch.during(COMPILING):
            try:
                unlike = rehearse(self._optimization, _code(), inputs, targets)
            except Exception as error:  # a compiler can fail in any way, and no task shall
                unlike = f"compiling failed ({_first_line(error)})"
        seconds = time.monotonic() - began
        self._began += seconds
        if unlike:
            refusal = f"nothing was compiled: {unlike}"
            _known[self._key] = replace(known or _Known(), refusal=refusal)
            self._give_up(refusal)
            return
        if known is None:
            _known[self._key] = _Known(eager=self._eager)
            _seconds[kind] = seconds
        self.in_use = True
        self._compiled = []
        self.first = self.first if self.first is not None else self._epoch
        self.last = self._epoch

    def _give_up(self, note: str) -> None:
        self.in_use, self.undecided, self._given_up = False, False, True
        self.note = note


def compiling_message(what: str) -> str:
    """Say that something is compiled now, and that nothing else is to be expected for a while."""
    return f"compiling {what}; this may take a minute"


def require_compiler(device: torch.device) -> None:
    """Refuse ``compile = "on"`` where nothing can be compiled.

    Raises
    ------
    ConfigurationError
        If there is no compiler for the device.
    """
    missing = missing_compiler(device)
    if missing:
        raise ConfigurationError(
            'compile is "on" and nothing can be compiled here',
            why=missing,
            hint='Install it, or set compile to "auto" or "off".',
        )


def missing_compiler(device: torch.device) -> str:
    """Return what torch lacks to compile for a device; empty where it has it."""
    if device.type == "cuda":
        if importlib.util.find_spec("triton") is None:
            return "Triton is not installed"
        if not (os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")):
            return "there is no C compiler, which Triton needs (gcc)"
        return ""
    compiler = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
    if device.type == "cpu" and shutil.which(compiler) is None:
        return f"there is no C++ compiler ({compiler})"
    return ""


def forget_compiled() -> None:
    """Forget what was measured in this process, but not torch's code: as if every shape were new."""
    _known.clear()
    _seconds.clear()


_compiled_code: list[Callable[..., Losses]] = []


def _code() -> Callable[..., Losses]:
    """Return the compiled `losses_of`, one for all models: torch tells them apart, and keeps code by what it depends on."""
    if not _compiled_code:
        # The masks of dropout are those of the model itself, so that a seed means the same either way.
        _compiled_code.append(torch.compile(losses_of, dynamic=False, options={"fallback_random": True}))
    return _compiled_code[0]


def _shapes(value: Any) -> Hashable:
    """Return what compiled code depends on in a batch."""
    if isinstance(value, torch.Tensor):
        return (value.shape, value.dtype)
    if isinstance(value, tuple | list):
        return tuple(map(_shapes, value))
    found: list[Hashable] = []
    map_tensors(lambda tensor: found.append((tensor.shape, tensor.dtype)), value)
    return tuple(found)


def _key(optimization: Optimization, shape: Hashable) -> Hashable:
    model, criterion = optimization.model, optimization.criterion
    return (
        type(model),
        repr(model),
        tuple((name, tensor.shape, tensor.dtype) for name, tensor in model.state_dict().items()),
        type(criterion),
        repr(criterion) if isinstance(criterion, nn.Module) else "",
        optimization.precision.resolved,
        str(optimization.device),
        optimization.channels_last,
        shape,
    )


def _milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:.3g} ms"


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
