"""What the options of `NNTrainer` may be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from synicix_core.errors import ParamsError
from synicix_core.training.contract import Metric, TrainingContext
from synicix_core.training.metrics import Loss
from synicix_core.training.schedules import SCHEDULES

__all__ = ["check_options", "choose_metric"]


def check_options(options: Mapping[str, Any]) -> None:
    """Refuse options that make no sense, all at once.

    Raises
    ------
    ParamsError
        Names each by its parameter.
    """
    mistakes: list[tuple[str, str]] = []

    def expect(name: str, fits: bool, expected: str) -> None:
        if not fits:
            mistakes.append((name, f"expected {expected}, got {options[name]!r}"))

    expect("max_epoch", options["max_epoch"] >= 1, "1 or more")
    patience = options["early_stopping_patience"]
    expect("early_stopping_patience", patience is None or patience >= 0, "0 or more, or null")
    expect("early_stopping_min_delta", options["early_stopping_min_delta"] >= 0, "0 or more")
    scheduler = options["scheduler"]
    expect("scheduler", scheduler is None or scheduler in SCHEDULES, f"one of {', '.join(SCHEDULES)}")
    expect("scheduler_params", scheduler is not None or not options["scheduler_params"], "none without a scheduler")
    expect("warmup_epochs", options["warmup_epochs"] >= 0, "0 or more")
    expect("warmup_steps", options["warmup_steps"] >= 0, "0 or more")
    expect("warmup_steps", not (options["warmup_steps"] and options["warmup_epochs"]), "0 beside warmup_epochs")
    for name in ("gradient_clip_norm", "gradient_clip_value"):
        expect(name, options[name] is None or options[name] > 0, "more than 0, or null")
    expect("accumulate_batches", options["accumulate_batches"] >= 1, "1 or more")
    decay = options["ema_decay"]
    expect("ema_decay", decay is None or 0 < decay < 1, "more than 0 and less than 1, or null")
    expect("compile", options["compile"] in ("off", "auto", "on"), "off, auto or on")
    expect("cuda_graphs", options["cuda_graphs"] in ("off", "auto"), "off or auto")
    expect("nan_policy", options["nan_policy"] in ("stop", "skip", "raise"), "stop, skip or raise")
    if mistakes:
        raise ParamsError("NNTrainer cannot be built", mistakes)


def choose_metric(name: str | None, context: TrainingContext | None, criterion: Any) -> Metric:
    """Return the metric that early stopping follows.

    Raises
    ------
    ParamsError
        If the training config has no metric of that name.
    """
    metrics = context.metrics if context is not None else {}
    if name is None and metrics:
        return next(iter(metrics.values()))
    if name is not None and name in metrics:
        return metrics[name]
    if name in (None, "loss"):
        return Metric("loss", Loss(criterion), higher_is_better=False)
    known = ", ".join([*metrics, "loss"])
    raise ParamsError(
        "NNTrainer cannot be built", [("early_stopping_metric", f"expected one of {known}; got {name!r}")]
    )
