"""What the toy lab provides."""

import json
import os
from pathlib import Path

from synicix_core import DatasetProvider, ModelProvider, TrainerProvider, hookimpl


@hookimpl
def synicix_datasets():
    yield DatasetProvider("Points", target="toy_lab.parts:Points", summary="Points on a line", neutral=("chunk",))


@hookimpl
def synicix_models():
    yield ModelProvider("Line", target="toy_lab.parts:Line", summary="A linear model")
    yield ModelProvider("Slow", target="toy_lab.parts:Slow", summary="Takes its time")
    yield ModelProvider("Tight", target="toy_lab.parts:Tight", summary="Runs out of memory with large batches")
    yield ModelProvider("NeedsMore", target="toy_lab.parts:NeedsMore", summary="Needs a parameter that nobody supplies")
    yield ModelProvider("Plodder", target="toy_lab.slow:Plodder", summary="A network with dropout that takes its time")


@hookimpl
def synicix_trainers():
    yield TrainerProvider("Misbehaving", target="toy_lab.parts:Misbehaving", summary="Fails as its parameter says")


def _note(event):
    if path := os.environ.get("TOY_LAB_EVENTS"):
        with Path(path).open("a") as file:
            file.write(json.dumps({"event": type(event).__name__, "task": event.task, "attempt": event.attempt}) + "\n")


@hookimpl
def synicix_task_started(event):
    _note(event)


@hookimpl
def synicix_epoch_finished(event):
    _note(event)
    if os.environ.get("TOY_LAB_RAISE"):
        raise RuntimeError("the observer is broken")


@hookimpl
def synicix_task_finished(event):
    _note(event)


@hookimpl
def synicix_task_failed(event):
    _note(event)
