"""One step of learning of several processes together: each from its part of a batch, all by the gradient of the whole."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch.utils.data import DataLoader

from synicix_core.errors import ConfigurationError
from synicix_core.training.batches import cut
from synicix_core.training.data_parallel import DataParallel
from synicix_core.training.loaders import TaskDataLoader
from synicix_core.training.loss_sums import LossSums
from synicix_core.training.optimization import Losses, Optimization, losses_of
from synicix_core.training.precision import Precision
from synicix_core.training.timing import OPTIMIZER

__all__ = ["ParallelOptimization"]


class ParallelOptimization(Optimization):
    """Makes the steps of one rank.

    The gradients of the ranks are averaged as they are found. So each rank counts its loss as many times as there are ranks,
    and by its share of the samples: the mean is then the gradient of the whole batch, however unequal the parts, and the
    penalty, which every rank has found whole, counts once. All ranks make the same step by it.

    Parameters
    ----------
    parallel : DataParallel
        Which rank this is.
    loader : DataLoader
        Gives this rank's part of each batch, and tells what the whole was.
    *arguments, **options
        As for `Optimization`.

    Raises
    ------
    ConfigurationError
        If batches are to be split further and the model has batch normalization, which takes its statistics from all ranks at
        once.
    """

    def __init__(self, parallel: DataParallel, loader: DataLoader[Any], *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        if self.parts > 1 and any(isinstance(module, torch.nn.SyncBatchNorm) for module in self.model.modules()):
            raise ConfigurationError(
                "a batch of this task does not fit into the memory of its devices, and cannot be split further",
                why="the model has batch normalization, whose statistics are those of the whole batch",
                hint="Take a smaller batch_size, or more devices.",
            )
        assert isinstance(loader, TaskDataLoader)  # tasks have no others
        self._parallel = parallel
        self._loader = loader
        self._averaging = parallel.averaging(self.model)
        self.losses = self._losses

    def step(self, batches: Sequence[Any], sums: LossSums) -> None:
        """Learn from this rank's parts of one batch, or of several as from one."""
        wholes = self._loader.wholes(len(batches))
        samples = sum(whole.size for whole in wholes)
        ranks = self._parallel.ranks
        # A batch that was not cut is learnt from by all ranks, whose mean is right as it is, and is counted by one of them.
        pieces = [
            (piece, ranks if is_cut else 1, is_cut or self._parallel.is_first)
            for batch, is_cut in zip(batches, (self._parallel.share.cuts(whole.size) for whole in wholes), strict=True)
            for piece in (cut(batch, self.parts) if self.parts > 1 else [batch])
        ]
        self._uncut = self._uncut or (self.parts > 1 and len(pieces) == len(batches) and samples > ranks * len(batches))
        self.stopwatch.switch(OPTIMIZER)
        self.fast_step.zero_grad()
        learnt = []
        for number, (piece, times, counts) in enumerate(pieces, 1):
            with nullcontext() if number == len(pieces) else self._averaging.no_sync():
                losses = self._learn(piece, samples, times)
            if losses is None:
                self.skipped_steps += 1
                return
            if counts:
                learnt.append(losses)
        self._make(learnt, sums)

    def _losses(self, _model: Any, criterion: Any, precision: Precision, inputs: Any, targets: Any) -> Losses:
        return losses_of(self._averaging, criterion, precision, inputs, targets)

    def _is_finite(self, objective: torch.Tensor) -> bool:
        # All ranks leave a step out, or none does.
        (unusable,) = self._parallel.any(not super()._is_finite(objective))
        return not unusable
