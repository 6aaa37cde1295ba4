"""Learning-rate schedules: torch's schedulers by name, with a linear warm-up in front and the unit made explicit."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch.optim import Optimizer, lr_scheduler

from synicix_core.errors import ParamsError

__all__ = ["SCHEDULES", "LearningRate", "Schedule", "ScheduleName"]

ScheduleName = Literal[
    "cosine", "cosine_restarts", "exponential", "linear", "multistep", "onecycle", "plateau", "polynomial", "step"
]
"""The keys of `SCHEDULES`, as a type, so that a name is checked when a config is inserted."""


@dataclass(frozen=True)
class Schedule:
    """One scheduler of torch and how it is driven.

    Attributes
    ----------
    scheduler : type
        The class in ``torch.optim.lr_scheduler``.
    unit : {"step", "epoch"}
        What it counts.
    length : str
        Its parameter that takes the number of steps of the whole run; empty where it has none.
    defaults : mapping
        Where it departs from torch's defaults.
    """

    scheduler: type[Any]
    unit: Literal["step", "epoch"]
    length: str = ""
    defaults: tuple[tuple[str, Any], ...] = ()


SCHEDULES: dict[str, Schedule] = {
    "cosine": Schedule(lr_scheduler.CosineAnnealingLR, "step", "T_max"),
    "cosine_restarts": Schedule(lr_scheduler.CosineAnnealingWarmRestarts, "epoch"),
    "exponential": Schedule(lr_scheduler.ExponentialLR, "epoch"),
    "linear": Schedule(lr_scheduler.LinearLR, "step", "total_iters", (("start_factor", 1.0), ("end_factor", 0.0))),
    "multistep": Schedule(lr_scheduler.MultiStepLR, "epoch"),
    "onecycle": Schedule(lr_scheduler.OneCycleLR, "step", "total_steps"),
    "plateau": Schedule(lr_scheduler.ReduceLROnPlateau, "epoch"),
    "polynomial": Schedule(lr_scheduler.PolynomialLR, "step", "total_iters"),
    "step": Schedule(lr_scheduler.StepLR, "epoch"),
}
"""The schedules by the name that a training config uses."""

_OURS = ("optimizer", "last_epoch", "verbose", "epochs", "steps_per_epoch", "mode")


class LearningRate:
    """Drives the learning rate of an optimizer.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        Its learning rate, as built, is the one that warm-up leads to and that the schedule starts from.
    name : str or None
        A key of `SCHEDULES`; None keeps the rate constant.
    params : mapping
        Parameters of the scheduler. ``plateau`` also takes ``watch``: ``"train_loss"`` (default) or ``"validation"``, the
        metric of early stopping.
    max_epoch : int
        Epochs of the whole run.
    steps_per_epoch : int or None
        Optimizer steps of an epoch; None where the loader does not know.
    warmup_epochs, warmup_steps : float, int
        Length of the linear warm-up, in either unit.
    higher_is_better : bool
        Direction of the metric that ``plateau`` may watch.

    Raises
    ------
    ParamsError
        If a parameter is unknown, missing or does not fit.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        name: str | None,
        params: Mapping[str, Any],
        *,
        max_epoch: int,
        steps_per_epoch: int | None,
        warmup_epochs: float = 0.0,
        warmup_steps: int = 0,
        higher_is_better: bool = False,
    ) -> None:
        self._optimizer = optimizer
        self._schedule = SCHEDULES[name] if name is not None else None
        self._steps = 0
        self._warmup = warmup_steps or round(
            warmup_epochs * _known(steps_per_epoch, warmup_epochs > 0, "warmup_epochs")
        )
        if self._warmup and name == "onecycle":
            raise _refusal("warmup_epochs", "'onecycle' has a warm-up of its own (pct_start)")
        params = dict(params)
        self._watch = params.pop("watch", "train_loss") if name == "plateau" else "train_loss"
        if self._watch not in ("train_loss", "validation"):
            raise _refusal("scheduler_params.watch", f"expected 'train_loss' or 'validation', got {self._watch!r}")
        self._scheduler: Any = None
        if self._schedule is not None and name is not None:
            total = 0
            if self._schedule.length:
                total = max_epoch * _known(steps_per_epoch, True, "scheduler") - self._warmup
                if total < 1:
                    raise _refusal("warmup_epochs", f"the warm-up of {self._warmup} steps leaves none for the schedule")
            self._total = total
            follows_up = name == "plateau" and self._watch == "validation" and higher_is_better
            self._scheduler = _build(optimizer, name, self._schedule, params, total, follows_up)
        self._base = [group["lr"] for group in optimizer.param_groups]
        self._warm()

    def after_step(self) -> None:
        """Tell that the optimizer made a step; skipped ones do not count."""
        self._steps += 1
        if self._steps <= self._warmup:
            self._warm()
        elif self._schedule is not None and self._schedule.unit == "step" and self._steps - self._warmup <= self._total:
            self._scheduler.step()

    @property
    def is_constant(self) -> bool:
        """Whether no step changes the rate any more before the epoch is over."""
        by_step = self._schedule is not None and self._schedule.unit == "step"
        return self._steps >= self._warmup and not by_step

    def after_steps(self, count: int) -> None:
        """Tell that the optimizer made so many steps."""
        if self.is_constant:
            self._steps += count
        else:
            for _ in range(count):
                self.after_step()

    def after_epoch(self, train_loss: float, validation: float) -> None:
        """Tell that an epoch is over, with the mean training loss and the metric of early stopping."""
        if self._schedule is None or self._schedule.unit == "step" or self._steps < self._warmup:
            return
        if isinstance(self._scheduler, lr_scheduler.ReduceLROnPlateau):
            self._scheduler.step(train_loss if self._watch == "train_loss" else validation)
        else:
            self._scheduler.step()

    def state_dict(self) -> dict[str, Any]:
        """Return the position; the rates themselves are in the optimizer's state."""
        return {"steps": self._steps, "scheduler": None if self._scheduler is None else self._scheduler.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` returned."""
        self._steps = state["steps"]
        if self._scheduler is not None:
            self._scheduler.load_state_dict(state["scheduler"])

    def _warm(self) -> None:
        if self._warmup:
            share = min(1.0, (self._steps + 1) / self._warmup)
            for group, base in zip(self._optimizer.param_groups, self._base, strict=True):
                group["lr"] = base * share if share < 1.0 else base


def _build(
    optimizer: Optimizer, name: str, schedule: Schedule, params: Mapping[str, Any], total: int, follows_up: bool
) -> Any:
    known = inspect.signature(schedule.scheduler).parameters
    free = [key for key in known if key not in _OURS and key != schedule.length]
    mistakes = [
        (f"scheduler_params.{key}", f"{name!r} has no such parameter; it has: {', '.join(free)}")
        for key in params
        if key not in free
    ]
    mistakes += [
        (f"scheduler_params.{key}", f"expected a number, got {value!r}")
        for key, value in params.items()
        if key in known
        and known[key].annotation in (int, float, "int", "float")
        and (isinstance(value, bool) or not isinstance(value, int | float))
    ]
    arguments = {**dict(schedule.defaults), **params}
    if name == "onecycle":
        arguments.setdefault("max_lr", [group["lr"] for group in optimizer.param_groups])
    mistakes += [
        (f"scheduler_params.{key}", f"{name!r} needs this parameter")
        for key in free
        if known[key].default is inspect.Parameter.empty and key not in arguments
    ]
    if mistakes:
        raise ParamsError("the learning-rate schedule cannot be built", mistakes)
    if follows_up:
        arguments["mode"] = "max"
    if schedule.length:
        arguments[schedule.length] = total
    try:
        return schedule.scheduler(optimizer, **arguments)
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise _refusal("scheduler_params", f"{name!r} refuses them: {error}") from error


def _known(steps_per_epoch: int | None, needed: bool, path: str) -> int:
    if steps_per_epoch is None and needed:
        raise _refusal(path, "the sampler does not know its length, so that steps cannot be counted in advance")
    return steps_per_epoch or 0


def _refusal(path: str, message: str) -> ParamsError:
    return ParamsError("the learning-rate schedule cannot be built", [(path, message)])
