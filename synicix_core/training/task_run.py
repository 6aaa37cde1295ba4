"""One attempt at one task, in three steps: prepare, train, finish."""

from __future__ import annotations

import contextlib
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from synicix_core.errors import CheckpointError, DatasetError
from synicix_core.hashing import file_sha256
from synicix_core.registry import Registry
from synicix_core.tables.code_digest import code_digest
from synicix_core.training.build import (
    TaskParts,
    accepts,
    building,
    load_parts,
    make_criterion,
    make_metrics,
    make_model,
    make_tier_loader,
    resolve_device,
    trainer_arguments,
)
from synicix_core.training.context import make_context
from synicix_core.training.load import load_state, put_state, score_tier
from synicix_core.training.outcome import make_outcome
from synicix_core.training.provenance import describe_providers
from synicix_core.training.random_state import seed_everything
from synicix_core.training.saved_files import SavedState, publish
from synicix_core.training.spec import TIERS, TaskObserver, TaskOutcome, TaskSpec, TaskState
from synicix_core.training.tiers import Tiers, open_tiers
from synicix_core.training.timed_loader import timed
from synicix_core.training.timing import (
    CHECKPOINT,
    DATA,
    EVALUATION,
    OTHER,
    PARTS,
    TRAINING,
    Stopwatch,
    make_stopwatch,
)
from synicix_core.training.training_profile import profiled

if TYPE_CHECKING:
    from synicix_core.training.data_parallel import DataParallel

__all__ = ["TaskRun"]


class TaskRun:
    """Trains a task step by step, so that several can be trained at the same time.

    Whoever uses it restores torch's global state afterwards, and calls `close` at the end, whatever that was.

    Parameters
    ----------
    spec : TaskSpec
        What to train.
    registry : Registry
        Where the providers are found.
    observer : TaskObserver
        Who is told, and who may ask to stop.
    state : TaskState, optional
        Tells, also after an exception, how far the task came and what its trainer can do.
    stopwatch : Stopwatch, optional
        Where the time goes; one of its own, if left out.
    like : TaskRun, optional
        Another task of the same dataset config and providers, whose dataset and providers this one shares.
    parallel : DataParallel, optional
        Which of several processes this is that train the task together.

    Attributes
    ----------
    trainer : Trainer
        After `prepare`.
    context : TaskContext
        What it was given, or would have been.
    how : dict
        Further entries of the provenance.
    """

    def __init__(
        self,
        spec: TaskSpec,
        registry: Registry,
        observer: TaskObserver,
        state: TaskState | None = None,
        stopwatch: Stopwatch | None = None,
        like: TaskRun | None = None,
        parallel: DataParallel | None = None,
    ) -> None:
        begun = perf_counter()
        self.spec = spec
        self.parts: TaskParts = like.parts if like is not None else load_parts(spec, registry)
        self.device = resolve_device(spec.device)
        self.trainer: Any = None
        self.how: dict[str, Any] = {"devices": parallel.ranks if parallel is not None else 1}
        self._registry = registry
        # Beside the final name, so that giving it that name cannot fail halfway.
        final = Path(spec.model_save_path)
        self._partial = final.with_name(f".{final.stem}.partial{final.suffix}")
        self.stopwatch = stopwatch if stopwatch is not None else make_stopwatch(self.device, begun)
        for part, seconds in spec.seconds_before.items():
            self.stopwatch.add(PARTS.index(part), seconds)
        self._observer = observer
        seed_everything(spec.seed)
        with self.stopwatch.during(DATA):
            self.tiers: Tiers = like.tiers if like is not None else open_tiers(spec, self.parts, self.device)
        self.code: str = like.code if like is not None else code_digest(describe_providers(spec, registry))
        self.metrics = make_metrics(spec, self.parts, make_criterion(spec, self.parts))
        self.context = make_context(
            spec,
            self.parts.trainer,
            self.metrics,
            self.device,
            observer,
            code=self.code,
            state=state,
            stopwatch=self.stopwatch,
        )
        self.context.data_parallel = parallel

    def prepare(self) -> None:
        """Build the trainer, and with it the model."""
        target = self.parts.trainer.load()
        with_context = accepts(target, "context")
        # A trainer that cannot ask whether to stop is stopped by its loaders.
        after_batch = self.context.progress if with_context else self.context.progress_or_stop
        loaders = {}
        for tier in TIERS:
            loaders[tier] = make_tier_loader(
                self.spec,
                self.parts,
                self.tiers.datasets[tier],
                tier,
                self.device,
                after_batch=after_batch,
                resident=self.tiers.resident[tier],
            )
            self.context.watch(tier, loaders[tier])
            if (loader := loaders[tier]) is not None:
                if tier == "train" and self.context.data_parallel is not None:
                    loader.share = self.context.data_parallel.share
                timed(loader, self.stopwatch, trains=tier == "train")
        arguments = trainer_arguments(self.spec, self.parts, loaders, self.device, str(self._partial))
        if with_context:
            arguments["context"] = self.context
        _make_directory(self._partial.parent)
        # Again, so that the first weights of a model do not depend on what the dataset drew.
        seed_everything(self.spec.seed)
        with building(self.parts.trainer):
            self.trainer = target(**arguments)

    def train(self) -> None:
        """Train.

        Raises
        ------
        TrainingInterrupted
            If the observer asked to stop.
        """
        with building(self.parts.trainer):
            self.context.start()
            part = OTHER if self.stopwatch.by_trainer else TRAINING
            with profiled(self.spec, self.stopwatch, self.device, self._observer), self.stopwatch.during(part):
                self.trainer.train()
            self.context.finish()

    def finish(self, scores: dict[str, dict[str, float | None]] | None = None) -> TaskOutcome:
        """Score what was saved, and give the file its name.

        Parameters
        ----------
        scores : dict, optional
            ``{tier: {metric: value or None}}``, if they are known already.

        Raises
        ------
        CheckpointError
            If the trainer left no ``state_dict`` that fits the model, or the disk refuses it.
        TrainingInterrupted
            If the observer asked to stop.
        """
        if scores is None:
            with building(self.parts.trainer):
                self.trainer.load_best_performing_model()
        with self.stopwatch.during(CHECKPOINT):
            sha256 = self._digest()
        saved = getattr(self.trainer, "saved", None)
        # What the trainer says that it wrote, where the file is that to the bit.
        saved = saved if isinstance(saved, SavedState) and saved.sha256 == sha256 else None
        if scores is None:
            with self.stopwatch.during(EVALUATION):
                scores = self._score(saved)
        outcome = make_outcome(
            self.spec,
            self.parts,
            self._registry,
            self.trainer,
            self.context,
            self.device,
            scores,
            sha256,
            self.tiers.datasets,
        )
        if self.context.group is not None:
            outcome.provenance["fused"] = dict(self.context.group)
        outcome.provenance.update(self.how)
        with self.stopwatch.during(CHECKPOINT):
            publish(self._partial, self.spec.model_save_path, on_disk=saved is not None and saved.on_disk)
        outcome.provenance["timing"] = self.stopwatch.describe()
        return outcome

    def close(self) -> None:
        """Remove what is not whole."""
        with contextlib.suppress(OSError):
            self._partial.unlink()

    def _digest(self) -> str:
        """Return the sha256 of what the trainer left; empty if there is no file, which is told where it is needed."""
        if not self._partial.is_file():
            return ""
        try:
            return file_sha256(self._partial)
        except DatasetError as error:
            raise CheckpointError("the saved model cannot be read", where=error.file or "", why=error.why) from error

    def _score(self, saved: SavedState | None) -> dict[str, dict[str, float | None]]:
        spec, parts = self.spec, self.parts
        # A new model, of nothing but what is in the file, which is what the scores belong to.
        model = make_model(spec, parts)
        try:
            if saved is not None:
                put_state(model, saved.state, self._partial)
            else:
                load_state(model, self._partial)
        except CheckpointError as error:
            raise CheckpointError(
                f"the trainer {parts.trainer.qualified} left no usable model",
                where=spec.model_save_path,
                why=f"{error.what}: {error.why}" if error.why else error.what,
                hint="A trainer leaves model.state_dict() at model_save_path, by torch.save.",
            ) from error
        model.to(self.device)
        scores = {}
        for tier in TIERS:
            values = score_tier(
                spec,
                parts,
                self.metrics,
                model,
                self.tiers.datasets[tier],
                tier,
                self.device,
                after_batch=self.context.progress_or_stop,
                resident=self.tiers.resident[tier],
            )
            scores[tier] = values if values is not None else dict.fromkeys(self.metrics)
        return scores


def _make_directory(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(
            "the directory of the models cannot be made", where=str(directory), why=error.strerror or str(error)
        ) from error
