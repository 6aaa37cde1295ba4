"""The scores of several tasks of one dataset at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext

from torch.utils.data import SequentialSampler

from synicix_core.training.build import make_tier_loader
from synicix_core.training.loaders import TaskDataLoader
from synicix_core.training.random_state import derive_seed, seed_everything
from synicix_core.training.spec import TIERS
from synicix_core.training.stacked_model import StackedModel, too_much_output
from synicix_core.training.stacked_pass import run_stack
from synicix_core.training.task_run import TaskRun
from synicix_core.training.torch_state import set_float32_precision

__all__ = ["Scores", "stacked_scores"]

Scores = dict[str, dict[str, float | None]]
"""``{tier: {metric: value or None}}``"""


def stacked_scores(tasks: Sequence[TaskRun]) -> list[Scores] | None:
    """Score the best weights of each task on every tier, as `TaskRun.finish` does for one; None where that cannot be.

    Parameters
    ----------
    tasks : sequence of TaskRun
        After training, of one group, whose stack can be measured as one.
    """
    first = tasks[0]
    # The same for all of them, because the dataset config, with its samplers, and the metrics are.
    loaders = {tier: _in_order(first, tier) for tier in TIERS}
    held = [tier for tier in TIERS if len(first.tiers.datasets[tier])]
    if any(loaders[tier] is None for tier in held) or any(metric.takes_column for metric in first.metrics.values()):
        return None
    largest = [resident for resident in first.tiers.resident.values() if resident is not None]
    if any(too_much_output(len(tasks), resident) for resident in largest):
        return None
    set_float32_precision(tf32=False)
    for task in tasks:
        task.trainer.load_best_performing_model()
    model = StackedModel([task.trainer.model for task in tasks], first.trainer.criterion, nullcontext, "forward")
    scores: list[Scores] = [{tier: dict.fromkeys(task.metrics) for tier in TIERS} for task in tasks]
    criterion = first.trainer.criterion
    try:
        for tier in held:
            loader, resident = loaders[tier], first.tiers.resident[tier]
            assert loader is not None and resident is not None
            for task, own, found in zip(
                tasks, scores, run_stack(model, loader, resident, criterion, collect=True), strict=True
            ):
                # As alone, whatever a metric draws.
                seed_everything(derive_seed(task.spec.seed, f"score:{tier}"))
                values = {name: metric(found.outputs, found.targets) for name, metric in task.metrics.items()}
                own[tier] = {name: _finite(value) for name, value in values.items()}
    finally:
        model.release()
    return scores


def _in_order(task: TaskRun, tier: str) -> TaskDataLoader | None:
    resident = task.tiers.resident[tier]
    loader = make_tier_loader(
        task.spec,
        task.parts,
        task.tiers.datasets[tier],
        tier,
        task.device,
        in_order=tier == "train" and task.parts.samplers["train"] is None,
        resident=resident,
    )
    return loader if loader is not None and type(loader.sampler) is SequentialSampler and loader.batch_size else None


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
