"""Hooks that are each wrong in one way, and one model that works under a name that lab-kit has too."""

from __future__ import annotations

import click

from synicix_core import CriterionProvider, DatasetProvider, ModelProvider, hookimpl


@hookimpl
def synicix_model():
    """Misspelt: the hook is synicix_models."""
    yield ModelProvider("Unseen", target="broken_hooks.readout:Readout")


def synicix_metrics():
    """Not decorated."""
    return ()


@hookimpl
def synicix_samplers():
    """Raise."""
    raise KeyError("sampler table")


@hookimpl
def synicix_optimizers():
    """Yield a descriptor of another kind."""
    yield CriterionProvider("NotAnOptimizer", target="torch.nn:MSELoss")


@hookimpl
def synicix_criteria():
    """Name a target that is not there."""
    yield CriterionProvider("LostLoss", target="broken_hooks.losses:LostLoss")


@hookimpl
def synicix_datasets():
    """Name a target whose module ends the program."""
    yield DatasetProvider("QuittingDataset", target="broken_hooks.quitting:QuittingDataset")


@hookimpl
def synicix_models():
    """Provide a short name that lab-kit provides too."""
    yield ModelProvider("Readout", target="broken_hooks.readout:Readout")


@hookimpl
def synicix_task_started(event):
    """Raise."""
    raise RuntimeError(f"this observer does not like {event.task[:4]}")


@hookimpl
def synicix_task_finished(event):
    """Would be seen, were the observer not switched off."""
    print(f"broken-hooks saw the end of {event.task}")


@hookimpl
def synicix_commands():
    """Yield a command under the name of a core one."""

    @click.command("populate")
    def populate() -> None:
        click.echo("broken-hooks took the place of populate")

    yield populate
