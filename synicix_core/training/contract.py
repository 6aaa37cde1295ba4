"""What a trainer is, and what it is given. Anything of this shape is a trainer; nothing has to be subclassed.

A trainer is called with these keyword arguments, and with its own parameters from the training config:

``train_dataloader``, ``validation_dataloader``, ``test_dataloader``
    Real ``torch.utils.data.DataLoader`` objects of ``(input, target)`` batches, with ``.dataset`` and ``.sampler``.
    ``test_dataloader`` is None where the test tier is empty.
``device``
    A ``torch.device``.
``model_class``, ``model_class_params``
    ``model_class(**model_class_params)`` builds the model.
``optimizer_class``, ``optimizer_class_params``
    ``optimizer_class(model.parameters(), **optimizer_class_params)`` builds the optimizer.
``criterion_class``, ``criterion_class_params``
    ``criterion_class(**criterion_class_params)`` builds the criterion.
``model_save_path``
    Absolute path of a file. The trainer leaves a ``state_dict`` there by ``torch.save``.
``max_epoch``
    The most epochs to train.
``context``
    A `TrainingContext`; passed only to a trainer whose signature names it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from synicix_core.errors import SynicixError

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from synicix_core.training.precision import Precision

__all__ = ["Metric", "Trainer", "TrainingContext", "TrainingDiverged", "TrainingInterrupted"]


@runtime_checkable
class Trainer(Protocol):
    """The methods of a trainer.

    After ``train()`` these attributes are read where they are present; a missing one is stored empty and said once:
    ``training_epoch_loss_history``, ``validation_epoch_loss_history``, ``regularization_loss_history`` (one float per
    epoch), ``model_class_params_history`` (anything plain, per epoch) and ``best_epoch`` (from 1). A trainer may also have
    ``status`` (``"completed"``, ``"early_stopped"`` or ``"diverged"``), ``epochs`` (how many were trained), ``precision``
    (a `Precision`), ``notes`` (strings that the result shows) and ``how`` (plain data for the provenance).
    """

    def train(self) -> Any:
        """Train, and leave the weights to keep as a ``state_dict`` at ``model_save_path``."""

    def validate(self) -> float:
        """Return the loss on the validation tier, without penalty."""

    def evaluate(self, return_outputs_targets_and_loss: bool = False) -> Any:
        """Return the loss on the test tier, or a dict with ``outputs``, ``targets`` and ``loss``."""

    def load_best_performing_model(self) -> Any:
        """Make the best weights the current ones."""


@runtime_checkable
class TrainingContext(Protocol):
    """What the pipeline offers to a trainer: seeds, metrics, mixed precision, observers, preemption and resume.

    A trainer that uses it well is a loop of this form::

        state = context.load_checkpoint()           # last thing before the loop: restores the random state too
        if state: ...                               # load_state_dict of model and optimizer, the epoch
        for epoch in range(first, max_epoch + 1):
            for x, y in train_dataloader:
                with context.precision.autocast():
                    output, penalty = model(x)
                optimizer.zero_grad()
                context.precision.backward(criterion(output.float(), y) + penalty)
                context.precision.step(optimizer)
            context.epoch_finished(epoch, train_loss=..., validation_loss=...)
            stop = context.stop_requested()
            if stop or context.checkpoint_due():
                context.save_checkpoint({"model": model.state_dict(), "epoch": epoch, ...})
            if stop:
                raise TrainingInterrupted(epoch)
    """

    @property
    def seed(self) -> int:
        """Seed of the task. Python, NumPy and torch are seeded with it before the trainer is built."""

    @property
    def generator(self) -> torch.Generator:
        """Return a CPU generator for the trainer's own use; its state travels with the checkpoints."""

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """The metrics of the training config by name, in order; the first is the score.

        ``metrics[name](outputs, targets, loader.column)`` computes one from what was collected in a pass over `loader`.
        """

    @property
    def precision(self) -> Precision:
        """Autocast and gradient scaling, from the trainer's parameter ``precision`` (``"auto"`` without one)."""

    @property
    def micro_batches(self) -> int:
        """Into how many parts to split each batch, because a whole one did not fit into memory; usually 1.

        Asking tells the pipeline that the trainer can do it: it gets another try with more parts when memory runs out.
        """

    def stop_requested(self) -> bool:
        """Tell whether to stop now: save a checkpoint and raise `TrainingInterrupted`. Cheap; ask after each step."""

    def epoch_finished(
        self,
        epoch: int,
        *,
        train_loss: Any = None,
        validation_loss: Any = None,
        regularization_loss: Any = None,
        metrics: Mapping[str, Any] | None = None,
    ) -> None:
        """Tell observers that `epoch` epochs are done. Losses are without penalty; numbers or tensors of one element."""

    def checkpoint_due(self) -> bool:
        """Tell whether it is time for a checkpoint. Cheap; ask after each epoch, or after each step of long ones."""

    def save_checkpoint(self, state: Mapping[str, Any]) -> None:
        """Write `state`, and the random state of everything, so that a crash leaves the old file or the new one.

        A disk that refuses raises nothing: training goes on with the old file, and the result says so.

        Parameters
        ----------
        state : mapping
            Tensors, numbers, strings and None in nested dicts, lists and tuples.

        Raises
        ------
        CheckpointError
            If it holds anything else, named by its path.
        """

    def load_checkpoint(self) -> dict[str, Any] | None:
        """Return the state that was saved, tensors on the CPU, and restore the random state; None where there is none.

        It is that of this attempt, or of the latest earlier one whose file is whole.

        Call it when everything is built, right before the loop: building a model draws random numbers.
        """


@dataclass(frozen=True)
class Metric:
    """A number that says how good a model is on a tier.

    Attributes
    ----------
    name : str
        Its name within the training config.
    function : callable
        ``(outputs, targets)`` of a whole tier, on the CPU, to a float or to one value per output.
    higher_is_better : bool
        Its direction.
    takes_column : bool
        Whether the function also takes ``column``, itself a function of a name that returns what the dataset's
        ``column`` says of each row of the outputs, (n,).
    """

    name: str
    function: Callable[..., Any]
    higher_is_better: bool
    takes_column: bool = False

    def __call__(self, outputs: Any, targets: Any, column: Callable[[str], Any] | None = None) -> float:
        """Return the value, averaged over outputs in double precision; NaN where there is none.

        Parameters
        ----------
        outputs, targets : nested tensors
            Of a whole tier, or of a part of it.
        column : callable, optional
            The method ``column`` of the loader whose latest pass gave them. Needed by a metric that takes it.

        Raises
        ------
        SynicixError
            If a metric needs a column, and was not given it or the dataset does not have it.
        """
        import numpy as np

        further = {"column": self._checked(column, outputs)} if self.takes_column else {}
        value = self.function(outputs, targets, **further)
        if hasattr(value, "detach"):
            value = value.detach().cpu().double().numpy()
        values = np.asarray(value, dtype=np.float64)
        return float(values.mean()) if values.size else math.nan

    def _checked(self, column: Callable[[str], Any] | None, outputs: Any) -> Callable[[str], NDArray[Any]]:
        import numpy as np

        from synicix_core.training.batches import batch_size

        what = f"the metric {self.name!r} cannot be computed"
        if column is None:
            raise SynicixError(
                what,
                why="it needs to know which examples the outputs belong to",
                hint="Pass the column method of the loader that was read: metric(outputs, targets, loader.column).",
            )

        def read(name: str) -> NDArray[Any]:
            try:
                values = np.asarray(column(name))
            except Exception as error:
                why = str(error) if isinstance(error, SynicixError) else f"{type(error).__name__}: {error}"
                raise SynicixError(what, why=f"it needs the column {name!r} of the dataset; {why}") from error
            if values.shape != (batch_size(outputs),):
                why = f"there are {batch_size(outputs)} outputs, and the column {name!r} has shape {values.shape}"
                raise SynicixError(what, why=why, hint="The outputs must be those of the latest pass over the loader.")
            return values

        return read


class TrainingInterrupted(BaseException):
    """Raised by a trainer that was asked to stop, after it saved what it needs to go on.

    No `Exception`, so that ``except Exception`` in a training loop does not swallow it.

    Parameters
    ----------
    epochs : int
        Epochs that were finished.
    """

    def __init__(self, epochs: int = 0) -> None:
        self.epochs = epochs
        super().__init__(f"training was interrupted after {epochs} finished epochs")


class TrainingDiverged(SynicixError):
    """The loss or the weights are no longer finite and the trainer was told to raise."""

    exit_code = 1
