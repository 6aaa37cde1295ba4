"""Which steps are recorded and replayed, and that they are the ordinary ones; the recorder is a fake."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from synicix_core.training import compiling
from synicix_core.training.cuda_graphs import StepGraph, why_no_graph
from synicix_core.training.nn_trainer import NNTrainer
from synicix_core.training.optimization import Losses, Optimization, losses_of
from tests.training.test_nn_trainer import data, loader, trainer
from tests.training.toys import Net


class Recorder:
    """Runs what was recorded anew at each replay, on the tensors that were there, and returns the same tensors."""

    def __init__(self, error: Exception | None = None) -> None:
        self.warmed = 0
        self.recorded = 0
        self.replayed = 0
        self.error = error

    def warm(self, function: Callable[[], Losses]) -> Losses:
        self.warmed += 1
        return function()

    def record(self, function: Callable[[], Losses]) -> Callable[[], Losses]:
        if self.error is not None:
            raise self.error
        self.recorded += 1
        loss, penalty = torch.zeros(()), torch.zeros(())

        def replay() -> Losses:
            self.replayed += 1
            found, found_penalty = function()
            loss.copy_(found.detach())
            penalty.copy_(found_penalty.detach() if found_penalty is not None else torch.tensor(0.0))
            return loss, penalty

        return replay


def made(path: Path, recorder: Recorder | None, **options: Any) -> NNTrainer:
    """Train on 50 examples, or as many as `count`, in batches of 10."""
    torch.manual_seed(1)
    count = options.pop("count", 50)
    found = trainer(path, **({"train": loader(data(count), shuffle=True, size=10), "max_epoch": 4} | options))
    if recorder is not None:
        found.run.optimization.graph = StepGraph(found.run.optimization, recorder)
    found.train()
    return found


@pytest.mark.parametrize("options", [{}, {"optimizer_class": torch.optim.Adam, "ema_decay": 0.9}, {"count": 47}])
def test_replayed_steps_are_the_ordinary_ones(tmp_path: Path, options: dict[str, Any]) -> None:
    plain, recorder = made(tmp_path, None, **options), Recorder()
    graphed = made(tmp_path, recorder, **options)
    assert recorder.replayed > 0
    assert graphed.training_epoch_loss_history == plain.training_epoch_loss_history
    assert graphed.regularization_loss_history == plain.regularization_loss_history
    for one, other in zip(graphed.model.parameters(), plain.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_three_steps_come_before_the_recording(tmp_path: Path) -> None:
    recorder = Recorder()
    graphed = made(tmp_path, recorder)
    assert (recorder.warmed, recorder.recorded, recorder.replayed) == (3, 1, 4 * 5 - 3)
    assert graphed.how["cuda_graphs"] is True


def test_the_smaller_last_batch_is_an_ordinary_step(tmp_path: Path) -> None:
    recorder = Recorder()
    made(tmp_path, recorder, count=47)
    assert (recorder.warmed, recorder.recorded, recorder.replayed) == (3, 1, 4 * 4 - 3)


def test_another_learning_rate_is_recorded_anew(tmp_path: Path) -> None:
    recorder = Recorder()
    options = {"scheduler": "exponential", "scheduler_params": {"gamma": 0.5}}
    graphed = made(tmp_path, recorder, **options)
    assert recorder.recorded == 4
    assert graphed.training_epoch_loss_history == made(tmp_path, None, **options).training_epoch_loss_history


def test_what_cannot_be_recorded_is_trained_in_the_ordinary_way(tmp_path: Path) -> None:
    recorder = Recorder(RuntimeError("operation not permitted when stream is capturing\nmore"))
    graphed = made(tmp_path, recorder)
    assert graphed.training_epoch_loss_history == made(tmp_path, None).training_epoch_loss_history
    assert graphed.notes == (
        "no CUDA graph: the step cannot be recorded (RuntimeError: operation not permitted when stream is capturing)",
    )
    assert graphed.how["cuda_graphs"] is False


def _in_python(model: Any) -> None:
    model.calls = getattr(model, "calls", 0) + 1


def _new_buffer(model: Any) -> None:
    model.layers[0]._buffers["seen"] = torch.zeros(1)


@pytest.mark.parametrize(
    "habit",
    [_in_python, _new_buffer, lambda _: random.random(), lambda _: np.random.rand(), lambda _: torch.rand(1)],
    ids=["counts", "makes buffers", "random", "numpy", "torch"],
)
def test_a_model_that_a_recording_would_freeze_is_found_in_the_first_steps(
    tmp_path: Path, habit: Callable[[Any], Any]
) -> None:
    class Moody(Net):
        def forward(self, x: torch.Tensor) -> Any:
            habit(self)
            return super().forward(x)

    recorder = Recorder()
    graphed = made(tmp_path, recorder, model_class=Moody)
    assert recorder.recorded == 0
    assert "changes something in Python" in graphed.notes[0]


def test_a_step_that_is_compiled_from_now_on_is_recorded_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def compiled(*given: Any) -> Losses:
        calls.append(1)
        return losses_of(*given)

    monkeypatch.setattr(compiling, "_code", lambda: compiled)
    monkeypatch.setattr(compiling, "missing_compiler", lambda _: "")
    monkeypatch.setattr(compiling.Compilation, "_pays", lambda self, _: self._epoch == 3)
    compiling.forget_compiled()
    recorder = Recorder()
    graphed = made(tmp_path, recorder, compile="auto", early_stopping_patience=None)
    compiling.forget_compiled()
    assert (recorder.warmed, recorder.recorded) == (6, 2)
    assert graphed.how["compiled"] == "from epoch 3"
    # The rehearsal, and then every step: warmed up, recorded or not.
    assert len(calls) == 1 + 2 * 5


def reason(optimizer_class: Any = torch.optim.Adam, *, accumulate: int = 1, moves: bool = False, **changes: Any) -> str:
    params = {"capturable": True} if optimizer_class is not torch.optim.SGD else {}
    model = changes.pop("model", None) or nn.Linear(2, 2)
    given: dict[str, Any] = {
        "device": torch.device("cuda"),
        "clip_norm": None,
        "clip_value": None,
        "skip_nonfinite": False,
        "parts": 1,
        "precision": type("Precision", (), {"scaler": None})(),
        "optimizer": optimizer_class(model.parameters(), **params),
        "model": model,
    }
    optimization = Optimization.__new__(Optimization)
    vars(optimization).update(given | changes)
    return why_no_graph(optimization, accumulate=accumulate, rate_moves_each_step=moves)


@pytest.mark.parametrize("optimizer_class", [torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD, torch.optim.RMSprop])
def test_ordinary_training_on_a_gpu_is_recorded(optimizer_class: Any) -> None:
    assert reason(optimizer_class) == ""


def _with_generator() -> nn.Module:
    model = nn.Linear(2, 2)
    model.noise = torch.Generator()  # type: ignore[assignment]
    return model


def _hooked(weights: Any, **params: Any) -> torch.optim.Optimizer:
    optimizer = torch.optim.Adam(weights, **params)
    optimizer.register_step_post_hook(lambda *_: None)
    return optimizer


def _not_capturable(weights: Any, **_params: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(weights)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"device": torch.device("cpu")}, "'cpu'"),
        ({"precision": type("Precision", (), {"scaler": object()})()}, "fp16"),
        ({"skip_nonfinite": True}, "nan_policy"),
        ({"clip_norm": 1.0}, "clipped"),
        ({"clip_value": 1.0}, "clipped"),
        ({"parts": 4}, "micro-batches"),
        ({"accumulate": 2}, "several batches"),
        ({"moves": True}, "learning rate"),
        ({"model": _with_generator()}, "generator of its own"),
        ({"optimizer_class": _hooked}, "Adam has no step"),
        ({"optimizer_class": _not_capturable}, "Adam has no step"),
    ],
)
def test_what_needs_the_host_at_each_step_is_not_recorded(changes: dict[str, Any], told: str) -> None:
    assert told in reason(**changes)


def test_on_the_cpu_it_does_nothing_and_says_so(tmp_path: Path) -> None:
    found = trainer(tmp_path, cuda_graphs="auto")
    found.train()
    assert found.run.optimization.graph is None
    assert found.notes == ("no CUDA graph: this trains on 'cpu'",)
    assert found.how["cuda_graphs"] is False
