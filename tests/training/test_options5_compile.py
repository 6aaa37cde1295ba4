"""When the forward pass is compiled, when not, and that no task fails by it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from synicix_core.errors import ConfigurationError, ParamsError
from synicix_core.training import compiling, timing
from synicix_core.training.contract import TrainingInterrupted
from synicix_core.training.nn_trainer import NNTrainer
from synicix_core.training.optimization import losses_of
from synicix_core.training.run import run_task
from synicix_core.training.spec import Component, TaskOutcome, TaskSpec
from tests.training.test_nn_trainer import trainer
from tests.training.toys import Listening, Recorder, Remembering, nn_spec, toy_registry

REGISTRY = toy_registry()


class Compiler:
    """In the place of torch's: what it makes takes the time that it is told, on a clock of its own."""

    def __init__(self, compiles: float = 5.0, eager: float = 1.0, compiled: float = 0.5) -> None:
        self.now = 0.0
        self.compiles, self.eager, self.compiled = compiles, eager, compiled
        self.made: set[Any] = set()
        self.calls: list[int] = []
        self.losses: Callable[..., Any] = losses_of

    def monotonic(self) -> float:
        return self.now

    def code(self) -> Callable[..., Any]:
        def run(model: nn.Module, criterion: Any, precision: Any, inputs: Any, targets: Any) -> Any:
            if (repr(model), inputs.shape) not in self.made:
                self.made.add((repr(model), inputs.shape))
                self.now += self.compiles
            self.calls.append(len(inputs))
            self.now += self.compiled
            return self.losses(model, criterion, precision, inputs, targets)

        return run

    def by_itself(self, *arguments: Any) -> Any:
        self.now += self.eager
        return losses_of(*arguments)


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> Iterator[Compiler]:
    made = Compiler()
    monkeypatch.setattr(compiling, "_code", made.code)
    monkeypatch.setitem(compiling._COLD_SECONDS, "cpu", 30.0)
    monkeypatch.setitem(compiling._EXPECTED_GAIN, "cpu", 0.25)
    monkeypatch.setattr(compiling, "losses_of", made.by_itself)
    monkeypatch.setattr(compiling, "missing_compiler", lambda _: "")
    monkeypatch.setattr(compiling, "time", SimpleNamespace(monotonic=made.monotonic))
    compiling.forget_compiled()
    yield made
    compiling.forget_compiled()


def trained(path: Path, seed: int = 1, **options: Any) -> NNTrainer:
    """Train on 50 examples in batches of 16: three of them and a smaller one to an epoch."""
    torch.manual_seed(seed)
    made = trainer(path, **({"max_epoch": 4, "early_stopping_patience": None} | options))
    made.train()
    return made


def test_nothing_is_compiled_unless_it_is_asked_for(tmp_path: Path, compiler: Compiler) -> None:
    assert trained(tmp_path).how["compiled"] is False
    assert not compiler.calls


def test_on_compiles_the_usual_batches_from_the_first_step(tmp_path: Path, compiler: Compiler) -> None:
    made = trained(tmp_path, compile="on")
    # The first is the rehearsal; the smaller last batch of an epoch is never compiled.
    assert compiler.calls == [16] * (1 + 3 * 4)
    assert made.how["compiled"] is True
    assert made.notes == ()


def test_the_time_of_compiling_is_a_part_of_its_own(
    tmp_path: Path, compiler: Compiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing, "perf_counter", compiler.monotonic)

    def seconds(**options: Any) -> dict[str, float]:
        told: dict[str, float] = trained(tmp_path, **options).run.stopwatch.describe()["seconds"]
        return told

    # Compiling, and a step by which it is compared; then batches that are compiled, and the smaller last ones.
    assert seconds(compile="on") == {"compiling": 5.5, "forward": 4 * (3 * 0.5 + 1.0)}
    wide = {"input_shape": (6,), "output_shape": (3,), "dropout": 0.0, "hidden": 9}
    # Nothing is booked for having thought about it.
    assert seconds(compile="auto", model_class_params=wide) == {"forward": 4 * 4 * 1.0}


def test_compiled_training_is_that_of_the_model_itself(tmp_path: Path, compiler: Compiler) -> None:
    dropout = {"input_shape": (6,), "output_shape": (3,), "dropout": 0.5}
    plain = trained(tmp_path, model_class_params=dropout)
    compiled = trained(tmp_path, model_class_params=dropout, compile="on")
    # Masks, weights and all: the rehearsal has left nothing behind.
    assert compiled.training_epoch_loss_history == plain.training_epoch_loss_history


def test_a_rehearsal_leaves_buffers_as_they_were(tmp_path: Path, compiler: Compiler) -> None:
    shapes = {"input_shape": (6,), "output_shape": (3,)}
    plain = trained(tmp_path, model_class=Remembering, model_class_params=shapes)
    compiled = trained(tmp_path, model_class=Remembering, model_class_params=shapes, compile="on")
    for one, other in zip(plain.model.buffers(), compiled.model.buffers(), strict=True):
        assert torch.equal(one, other)


def test_auto_compiles_when_the_epochs_left_pay_it_back(tmp_path: Path, compiler: Compiler) -> None:
    # An epoch takes 4 seconds, a quarter of which is expected to be saved; 30 seconds are expected to be needed.
    made = trained(tmp_path, compile="auto", max_epoch=40)
    assert made.how["compiled"] == "from epoch 2"
    assert len(compiler.calls) == 1 + 3 * 39


def test_auto_does_not_compile_for_a_few_epochs(tmp_path: Path, compiler: Compiler) -> None:
    made = trained(tmp_path, compile="auto", max_epoch=20)
    assert made.how["compiled"] is False and not compiler.calls


def test_auto_expects_no_more_epochs_than_there_were_where_training_may_stop_early(
    tmp_path: Path, compiler: Compiler
) -> None:
    made = trained(tmp_path, compile="auto", max_epoch=80, early_stopping_patience=3, early_stopping_metric="loss")
    # More than 30 epochs have to be expected.
    assert made.how["compiled"] == "from epoch 32"


def test_auto_goes_back_where_compiled_steps_are_not_faster(tmp_path: Path, compiler: Compiler) -> None:
    compiler.compiled = 1.5
    made = trained(tmp_path, compile="auto", max_epoch=40)
    assert made.how["compiled"] == "epochs 2 to 3"
    assert made.notes[0].startswith("compiled steps were not faster (1.38e+03 ms against 1e+03 ms), so from epoch 4 on")
    assert len(compiler.calls) == 1 + 3 * 2


def test_the_next_task_of_the_shape_is_compiled_at_once(tmp_path: Path, compiler: Compiler) -> None:
    trained(tmp_path, compile="auto", max_epoch=40)
    again = trained(tmp_path, seed=2, compile="auto", max_epoch=2)
    assert again.how["compiled"] is True
    assert len(compiler.made) == 1


def test_the_next_task_of_a_shape_that_was_not_faster_is_not_compiled(tmp_path: Path, compiler: Compiler) -> None:
    compiler.compiled = 1.5
    trained(tmp_path, compile="auto", max_epoch=40)
    before = len(compiler.calls)
    assert trained(tmp_path, compile="auto", max_epoch=40).how["compiled"] is False
    assert len(compiler.calls) == before


def test_another_shape_is_weighed_with_the_time_that_the_last_one_took(tmp_path: Path, compiler: Compiler) -> None:
    trained(tmp_path, compile="on")
    wide = {"input_shape": (6,), "output_shape": (3,), "dropout": 0.0, "hidden": 9}
    # 5 seconds, and not 30, which pay off sooner.
    made = trained(tmp_path, compile="auto", max_epoch=15, model_class_params=wide)
    assert made.how["compiled"] == "from epoch 2"


@pytest.mark.parametrize("mode", ["auto", "on"])
def test_a_compiler_that_fails_costs_nothing_but_a_note(tmp_path: Path, compiler: Compiler, mode: str) -> None:
    def failing(*_: Any) -> Any:
        raise RuntimeError("no luck\nwith details")

    compiler.losses = failing
    plain = trained(tmp_path, max_epoch=40)
    made = trained(tmp_path, compile=mode, max_epoch=40)
    assert made.notes == ("nothing was compiled: compiling failed (RuntimeError: no luck)",)
    assert made.how["compiled"] is False
    assert made.training_epoch_loss_history == plain.training_epoch_loss_history


def test_a_shape_that_could_not_be_compiled_is_not_tried_again(tmp_path: Path, compiler: Compiler) -> None:
    tried = []

    def failing(*_: Any) -> Any:
        tried.append(1)
        raise RuntimeError("no luck")

    compiler.losses = failing
    for _ in range(2):
        assert "no luck" in trained(tmp_path, compile="on").notes[0]
    assert len(tried) == 1


def test_compiled_code_that_computes_another_loss_is_not_used(tmp_path: Path, compiler: Compiler) -> None:
    compiler.losses = lambda *given: (losses_of(*given)[0] * 1.01, losses_of(*given)[1])
    plain = trained(tmp_path)
    made = trained(tmp_path, compile="on")
    assert "another loss" in made.notes[0] and made.how["compiled"] is False
    assert made.training_epoch_loss_history == plain.training_epoch_loss_history


def test_compiled_code_with_other_gradients_is_not_used(tmp_path: Path, compiler: Compiler) -> None:
    def wrong(model: nn.Module, *given: Any) -> Any:
        loss, penalty = losses_of(model, *given)
        bias = next(weight for weight in model.parameters() if weight.dim() == 1)
        return loss + 0.1 * (bias - bias.detach()).sum(), penalty

    compiler.losses = wrong
    made = trained(tmp_path, compile="on")
    assert made.notes == ("nothing was compiled: compiled code has other gradients",)


def test_code_that_fails_later_is_left_then(tmp_path: Path, compiler: Compiler) -> None:
    def later(*given: Any) -> Any:
        if len(compiler.calls) == 6:
            raise RuntimeError("too late")
        return losses_of(*given)

    compiler.losses = later
    plain = trained(tmp_path)
    made = trained(tmp_path, compile="on")
    assert made.notes == ("compiled code failed in epoch 2 (RuntimeError: too late); training went on without it",)
    assert made.how["compiled"] == "epochs 1 to 2"
    assert made.training_epoch_loss_history == plain.training_epoch_loss_history


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_without_a_compiler_on_is_refused_and_auto_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setattr(compiling.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ConfigurationError, match=r'compile is "on".*(no-such-compiler|Triton).*"off"'):
        compiling.require_compiler(torch.device(device))
    made = trained(tmp_path, compile="auto", max_epoch=1)
    assert made.notes == ("nothing was compiled: there is no C++ compiler (no-such-compiler)",)


def test_on_is_refused_before_anything_is_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ConfigurationError, match="no-such-compiler"):
        trainer(tmp_path, compile="on", model_class=lambda **_: pytest.fail("built"))


def test_other_words_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ParamsError) as caught:
        trainer(tmp_path, compile="yes", cuda_graphs="on")
    assert [path for path, _ in caught.value.mistakes] == ["compile", "cuda_graphs"]


def test_micro_batches_and_accumulated_ones_are_compiled_too(tmp_path: Path, compiler: Compiler) -> None:
    made = trained(tmp_path, compile="on", accumulate_batches=2, max_epoch=1)
    assert compiler.calls == [16] * 4
    plain = trained(tmp_path, accumulate_batches=2, max_epoch=1)
    assert made.training_epoch_loss_history == plain.training_epoch_loss_history


def run(spec: TaskSpec, observer: Recorder | None = None) -> TaskOutcome:
    return run_task(spec, REGISTRY, observer or Recorder())


def test_a_resumed_training_tells_from_when_it_was_compiled(tmp_path: Path, compiler: Compiler) -> None:
    spec = nn_spec(tmp_path, {"compile": "on"})
    with pytest.raises(TrainingInterrupted):
        run(spec, Recorder(stop_at=8))
    outcome = run(spec)
    assert outcome.provenance["resumed_from_epoch"] == 1
    assert outcome.provenance["compiled"] is True


def test_people_are_told_once_that_something_is_compiled(tmp_path: Path, compiler: Compiler) -> None:
    first, again, plain = Listening(), Listening(), Listening()
    run(nn_spec(tmp_path / "first", {"compile": "on"}, task="0123456789abcdef"), first)
    assert first.heard == ["01234567: compiling Net; this may take a minute"]
    run(nn_spec(tmp_path / "again", {"compile": "on"}, seed=5), again)
    run(nn_spec(tmp_path / "plain", {}), plain)
    assert again.heard == plain.heard == []


@pytest.mark.parametrize(
    ("triton", "programs", "missing"),
    [
        (None, {"gcc"}, "Triton is not installed"),
        ("spec", set(), "there is no C compiler, which Triton needs (gcc)"),
        ("spec", {"clang"}, ""),
    ],
)
def test_what_a_gpu_lacks_to_compile_is_said(
    triton: str | None, programs: set[str], missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(compiling.importlib.util, "find_spec", lambda _: triton)
    monkeypatch.setattr(compiling.shutil, "which", lambda program: program if program in programs else None)
    assert compiling.missing_compiler(torch.device("cuda")) == missing


@pytest.mark.slow
@pytest.mark.skipif(bool(compiling.missing_compiler(torch.device("cpu"))), reason="there is no C++ compiler")
def test_torchs_compiler_gives_the_numbers_and_its_code_serves_the_next_task(tmp_path: Path) -> None:
    from torch._dynamo.utils import counters

    compiling.forget_compiled()

    def numbers(name: str, params: dict[str, Any], seed: int) -> TaskOutcome:
        return run(nn_spec(tmp_path / name, params, seed=seed, model=Component("model", "toys/Net", {"penalty": 1e-3})))

    compiled = numbers("compiled", {"compile": "on"}, 3)
    assert compiled.provenance["compiled"] is True, compiled.notes
    graphs = dict(counters["stats"])
    again = numbers("again", {"compile": "on"}, 4)
    assert again.provenance["compiled"] is True
    assert dict(counters["stats"]) == graphs  # nothing was compiled anew
    for outcome, seed in ((compiled, 3), (again, 4)):
        plain = numbers(f"plain {seed}", {}, seed)
        assert outcome.training_epoch_loss_history == pytest.approx(plain.training_epoch_loss_history, rel=1e-4)
        assert outcome.test_score == pytest.approx(plain.test_score, rel=1e-3)
