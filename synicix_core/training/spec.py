"""What the executor is told about a task, and what it answers. No torch here: the supervisor reads this too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Protocol, runtime_checkable

from synicix_core.training import wire

__all__ = ["TIERS", "Component", "NoteTaker", "TaskObserver", "TaskOutcome", "TaskSpec", "TaskState", "Unheard"]

TIERS = ("train", "validation", "test")


@dataclass(frozen=True)
class Component:
    """A provider as a row names it, with its parameters.

    Attributes
    ----------
    kind : str
        Kind of provider.
    provider : str
        Stored qualified name, such as ``synicix-mlp/SimpleMLP`` or ``my-lab/Net@2``.
    params : dict
        JSON, as stored.
    """

    kind: str
    provider: str
    params: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TaskSpec:
    """Everything needed to train one task on this machine, without a database.

    Attributes
    ----------
    task, attempt : str, int
        md5 of the TrainingTask, and the number of this try.
    dataset, dataset_path : Component, str
        The dataset, and the absolute path of its file here.
    samplers : dict of str to Component or None
        By tier; None is the default sampler.
    input_shape, output_shape : list or dict
        Nested lists, a dict for several named inputs.
    additional_model_params : dict
        What the dataset supplies to the model; may hold NumPy arrays.
    model, trainer, optimizer, criterion : Component
        What is trained, and how.
    metrics : tuple of Component
        The first is the score.
    batch_size, epoch_limit, seed : int
        From the training config.
    device : str
        ``"auto"`` (the GPU if there is one), ``"cpu"``, ``"cuda:0"`` ….
    num_workers : int
        Data-loading processes.
    model_save_path, checkpoint_path : str
        Absolute paths of files; this attempt's own.
    resume_from : tuple of str
        Checkpoints of earlier attempts, absolute paths, the latest first; any of them may be missing or damaged.
    checkpoint_seconds, checkpoint_epochs : float, int
        A checkpoint is due after so many seconds, or so many epochs; 0 epochs leaves it to the seconds.
    micro_batches : int
        Into how many parts a batch is split, because a whole one did not fit into memory; 1 leaves it whole.
    project_commit : str
        git commit of the project; empty where there is none.
    dataset_sha256 : str
        Of the dataset file, which was verified. With it, what was read may be kept for the next task; empty: it is not.
    resident_share : float
        A dataset that takes no more than this share of the device's free memory is put there whole; 0: none is.
    seconds_before : dict of str to float
        What this attempt took before the executor heard of it, by the parts of `timing.PARTS`.
    devices : int
        How many devices train it together, `device` and those after it; one for a trainer that cannot use more.
    profile : str
        Absolute path of the file to which a profile of the training is written; empty: there is none.
    """

    task: str
    attempt: int
    dataset: Component
    dataset_path: str
    samplers: dict[str, Component | None]
    input_shape: Any
    output_shape: Any
    additional_model_params: dict[str, Any]
    model: Component
    trainer: Component
    optimizer: Component
    criterion: Component
    metrics: tuple[Component, ...]
    batch_size: int
    epoch_limit: int
    seed: int
    device: str
    num_workers: int
    model_save_path: str
    checkpoint_path: str
    resume_from: tuple[str, ...] = ()
    checkpoint_seconds: float = 30.0
    checkpoint_epochs: int = 0
    micro_batches: int = 1
    project_commit: str = ""
    dataset_sha256: str = ""
    resident_share: float = 0.25
    seconds_before: dict[str, float] = field(default_factory=dict)
    devices: int = 1
    profile: str = ""

    def components(self) -> tuple[Component, ...]:
        """Return every component that takes part, each provider once."""
        samplers = [self.samplers.get(tier) for tier in TIERS]
        used = [self.dataset, *samplers, self.model, self.trainer, self.optimizer, self.criterion, *self.metrics]
        return tuple({(c.kind, c.provider): c for c in used if c is not None}.values())

    def to_wire(self) -> dict[str, Any]:
        """Return it as JSON data."""
        return {item.name: wire.to_wire(_unfold(getattr(self, item.name)), item.name) for item in fields(self)}

    @classmethod
    def from_wire(cls, data: Mapping[str, Any]) -> TaskSpec:
        """Return what `to_wire` was called on."""
        values = {key: wire.from_wire(value) for key, value in data.items()}
        for key in ("dataset", "model", "trainer", "optimizer", "criterion"):
            values[key] = Component(**values[key])
        values["samplers"] = {tier: held and Component(**held) for tier, held in values["samplers"].items()}
        values["resume_from"] = tuple(values["resume_from"])
        values["metrics"] = tuple(Component(**metric) for metric in values["metrics"])
        return cls(**values)


@dataclass(frozen=True)
class TaskOutcome:
    """The result of a task.

    Attributes
    ----------
    status : {"completed", "early_stopped", "diverged", "no_test"}
        How it ended. ``no_test`` only where there is nothing worse to say.
    test_score : float or None
        The first metric on the test tier; None where it is not finite or there is no test tier.
    metrics : dict
        ``{tier: {metric: value or None}}``.
    best_epoch, epochs : int or None, int
        The epoch whose weights were kept, from 1, and the number of epochs trained.
    training_epoch_loss_history, validation_epoch_loss_history, regularization_loss_history : list of float
        One per epoch. The losses are without penalty, which has the last one.
    model_class_params_history : list
        Per epoch, by parameter: mean, std and norm; or what the model or trainer makes of it.
    model_sha256 : str
        Of the saved file.
    train_seconds : float
        Wall time of training, all attempts that this one went on from included.
    provenance : dict
        Where the numbers come from.
    notes : tuple of str
        What a reader should know.
    """

    status: str
    test_score: float | None
    metrics: dict[str, dict[str, float | None]]
    best_epoch: int | None
    epochs: int
    training_epoch_loss_history: list[float]
    validation_epoch_loss_history: list[float]
    regularization_loss_history: list[float]
    model_class_params_history: Any
    model_sha256: str
    train_seconds: float
    provenance: dict[str, Any]
    notes: tuple[str, ...] = ()

    def to_wire(self) -> dict[str, Any]:
        """Return it as JSON data."""
        return {item.name: wire.to_wire(getattr(self, item.name), item.name) for item in fields(self)}

    @classmethod
    def from_wire(cls, data: Mapping[str, Any]) -> TaskOutcome:
        """Return what `to_wire` was called on."""
        values = {key: wire.from_wire(value) for key, value in data.items()}
        return cls(**{**values, "notes": tuple(values["notes"])})


@dataclass
class TaskState:
    """How far a task has come and what its trainer turned out to be able to do; kept up to date while it runs.

    Attributes
    ----------
    epochs : int
        Epochs finished, those of the attempts that this one went on from included.
    can_checkpoint : bool
        Whether the trainer saved, loaded or asked for checkpoints.
    can_split : bool
        Whether the trainer asked into how many parts to split a batch.
    """

    epochs: int = 0
    can_checkpoint: bool = False
    can_split: bool = False


@runtime_checkable
class NoteTaker(Protocol):
    """An observer that also takes what people are to be told at once, and not only with the result."""

    def note(self, message: str) -> None:
        """Take a sentence."""


class TaskObserver(Protocol):
    """Who is told how a task goes, and who may ask it to stop. Called between steps, so it must be quick."""

    def stop_requested(self) -> bool:
        """Tell whether to stop as soon as possible."""

    def epoch_finished(self, **fields: Any) -> None:
        """Take ``epoch``, ``epoch_limit``, the three losses, ``metrics`` and ``seconds`` of a finished epoch."""

    def checkpoint_saved(self, path: str, epoch: int) -> None:
        """Take the path of a checkpoint that is on the disk, and the epochs finished."""

    def checkpoint_failed(self, message: str) -> None:
        """Take the reason why a checkpoint could not be written; told once, training goes on."""

    def progress(self) -> None:
        """Take note that the task is alive; called at most once a second."""


class Unheard:
    """A `TaskObserver` that tells nobody and stops nothing."""

    def stop_requested(self) -> bool:
        """Never."""
        return False

    def epoch_finished(self, **fields: Any) -> None:
        """Do nothing."""

    def checkpoint_saved(self, path: str, epoch: int) -> None:
        """Do nothing."""

    def checkpoint_failed(self, message: str) -> None:
        """Do nothing."""

    def progress(self) -> None:
        """Do nothing."""


def _unfold(value: Any) -> Any:
    if isinstance(value, Component):
        return {"kind": value.kind, "provider": value.provider, "params": value.params}
    if isinstance(value, dict):
        return {key: _unfold(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_unfold(item) for item in value]
    return value
