"""What a plugin may implement. A plugin is a module named by an entry point in the group ``synicix``.

Every function below is a hook. A plugin implements those it needs, decorated with ``@hookimpl``, under the same name.
A hook module should import nothing heavy: providers name their targets as strings, which are imported when used.
"""

from __future__ import annotations

from collections.abc import Iterable
from types import ModuleType
from typing import TYPE_CHECKING

import pluggy

from synicix_core.providers import (
    CriterionProvider,
    DatasetProvider,
    MetricProvider,
    ModelProvider,
    OptimizerProvider,
    SamplerProvider,
    TrainerProvider,
)

if TYPE_CHECKING:
    import click

    from synicix_core.events import CheckpointSaved, EpochFinished, TaskFailed, TaskFinished, TaskStarted

PROJECT = "synicix"

hookspec = pluggy.HookspecMarker(PROJECT)
"""Marks a function as a hook; plugins that have hooks of their own need it (see `synicix_hookspecs`)."""
hookimpl = pluggy.HookimplMarker(PROJECT)
"""Marks a function of a plugin as the implementation of the hook of the same name."""


@hookspec
def synicix_datasets() -> Iterable[DatasetProvider]:
    """Yield the datasets that this plugin provides.

    Example::

        @hookimpl
        def synicix_datasets():
            yield DatasetProvider("TwoPhoton", target="my_lab.datasets:TwoPhoton", summary="Our two-photon recordings")
    """
    return ()


@hookspec
def synicix_models() -> Iterable[ModelProvider]:
    """Yield the models that this plugin provides.

    Example::

        @hookimpl
        def synicix_models():
            yield ModelProvider("Net", target="my_lab.net:Net", summary="Two hidden layers")
    """
    return ()


@hookspec
def synicix_samplers() -> Iterable[SamplerProvider]:
    """Yield the samplers that this plugin provides.

    Example::

        @hookimpl
        def synicix_samplers():
            yield SamplerProvider("Balanced", target="my_lab.sampling:Balanced", yields="index")
    """
    return ()


@hookspec
def synicix_trainers() -> Iterable[TrainerProvider]:
    """Yield the trainers that this plugin provides.

    Example::

        @hookimpl
        def synicix_trainers():
            yield TrainerProvider("Adversarial", target="my_lab.training:AdversarialTrainer")
    """
    return ()


@hookspec
def synicix_optimizers() -> Iterable[OptimizerProvider]:
    """Yield the optimizers that this plugin provides.

    Example::

        @hookimpl
        def synicix_optimizers():
            yield OptimizerProvider("Lion", target="my_lab.lion:Lion")
    """
    return ()


@hookspec
def synicix_criteria() -> Iterable[CriterionProvider]:
    """Yield the criteria (losses) that this plugin provides.

    Example::

        @hookimpl
        def synicix_criteria():
            yield CriterionProvider("GammaLoss", target="my_lab.losses:GammaLoss")
    """
    return ()


@hookspec
def synicix_metrics() -> Iterable[MetricProvider]:
    """Yield the metrics that this plugin provides.

    A metric is called with the outputs and targets of a whole tier, and with ``column`` if its call names it.

    Example::

        @hookimpl
        def synicix_metrics():
            yield MetricProvider("rmse", target="my_lab.metrics:RMSE", higher_is_better=False)
    """
    return ()


@hookspec
def synicix_commands() -> Iterable[click.Command]:
    """Yield click commands that ``synicix-run`` offers beside its own. None may have the name of a core command.

    Example::

        @hookimpl
        def synicix_commands():
            from my_lab.commands import inspect_scan
            yield inspect_scan
    """
    return ()


@hookspec
def synicix_hookspecs() -> Iterable[ModuleType]:
    """Yield modules with hooks that this plugin calls and other plugins may implement, as ``synicix-launch`` has one for launchers.

    Each hook is a function decorated with ``@hookspec`` that takes no arguments; what its implementations yield comes from
    ``get_registry().collect("the_hook")``. A plugin that implements it, but does not need the one that declares it, decorates
    with ``@hookimpl(optionalhook=True)``.

    Example::

        @hookimpl
        def synicix_hookspecs():
            from my_lab import hookspecs
            yield hookspecs
    """
    return ()


@hookspec
def synicix_task_started(event: TaskStarted) -> None:
    """Observe that a worker has started an attempt at a task.

    Observers run in the supervisor, one event each, and change nothing. One that raises is logged once and switched
    off for that task.
    """


@hookspec
def synicix_epoch_finished(event: EpochFinished) -> None:
    """Observe that an epoch is over."""


@hookspec
def synicix_checkpoint_saved(event: CheckpointSaved) -> None:
    """Observe that a checkpoint was saved."""


@hookspec
def synicix_task_finished(event: TaskFinished) -> None:
    """Observe that the result of a task was committed."""


@hookspec
def synicix_task_failed(event: TaskFailed) -> None:
    """Observe that an attempt ended in an error."""


PROVIDER_HOOKS = {
    "dataset": "synicix_datasets",
    "model": "synicix_models",
    "sampler": "synicix_samplers",
    "trainer": "synicix_trainers",
    "optimizer": "synicix_optimizers",
    "criterion": "synicix_criteria",
    "metric": "synicix_metrics",
}
"""The hook that yields each kind of provider."""

OBSERVER_HOOKS = (
    "synicix_task_started",
    "synicix_epoch_finished",
    "synicix_checkpoint_saved",
    "synicix_task_finished",
    "synicix_task_failed",
)
"""The hooks that receive an event."""
