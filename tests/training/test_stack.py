"""Tasks that are trained as one have the numbers that they have alone."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from synicix_core.training.run import run_task
from synicix_core.training.spec import Component, TaskOutcome, TaskSpec
from synicix_core.training.task_run import TaskRun
from tests.training.stack_toys import REGISTRY, furthest, stack_spec, train_together, weights, with_model
from tests.training.toys import Recorder

KINDS: dict[str, dict[str, Any]] = {
    "Perceptron": {"penalty": [0.0, 1e-3, 1e-2]},
    "Perceptron with dropout": {"dropout": [0.1, 0.3, 0.5]},
    "Normed": {},
    "Convolved": {},
    "Gated": {},
    "Attentive": {"penalty": [1e-4, 1e-3, 1e-2]},
}


def specs_of(folder: Path, kind: str, dtype: str = "float64", **changes: Any) -> list[TaskSpec]:
    """Return three tasks of a kind that differ in whatever may differ."""
    found = []
    for number in range(3):
        params = {name: values[number] for name, values in KINDS[kind].items()}
        spec = with_model(stack_spec(folder, number, **changes), kind.split(maxsplit=1)[0], dtype=dtype, **params)
        spec = dataclasses.replace(spec, dataset=Component("dataset", "toys/Held", {"dtype": dtype}))
        lr = {"lr": [0.003, 0.01, 0.03][number]}
        found.append(dataclasses.replace(spec, optimizer=Component("optimizer", spec.optimizer.provider, lr)))
    return found


def outcomes(found: list[Any]) -> list[TaskOutcome]:
    for item in found:
        if isinstance(item, BaseException):
            raise item
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_in_double_precision_the_numbers_are_those_of_each_alone(tmp_path: Path, kind: str) -> None:
    alone, together = specs_of(tmp_path / "alone", kind), specs_of(tmp_path / "together", kind)
    expected = [run_task(spec, REGISTRY, Recorder()) for spec in alone]
    found = outcomes(train_together(together))
    for one, other, mine, theirs in zip(alone, together, expected, found, strict=True):
        assert furthest(one, other) < 1e-12
        for history in ("training", "validation"):
            name = f"{history}_epoch_loss_history"
            assert getattr(mine, name) == pytest.approx(getattr(theirs, name), rel=1e-12, abs=1e-13)
        assert mine.metrics["test"] == pytest.approx(theirs.metrics["test"], rel=1e-12, abs=1e-13)
        assert mine.best_epoch == theirs.best_epoch and mine.status == theirs.status
        assert theirs.provenance["fused"]["tasks"] == 3


@pytest.mark.parametrize("kind", ["Perceptron", "Perceptron with dropout", "Normed", "Attentive"])
def test_in_single_precision_a_task_does_not_depend_on_who_else_is_in_the_stack(tmp_path: Path, kind: str) -> None:
    three = specs_of(tmp_path / "three", kind, "float32")
    found = outcomes(train_together(three))
    pair = specs_of(tmp_path / "pair", kind, "float32")[:2]
    single = specs_of(tmp_path / "single", kind, "float32")[:1]
    outcomes(train_together(pair[::-1]))
    outcomes(train_together(single))
    assert furthest(three[0], pair[0]) == furthest(three[0], single[0]) == furthest(three[1], pair[1]) == 0.0
    assert found[0].provenance["fused"]["exact"]


@pytest.mark.parametrize("kind", KINDS)
def test_in_single_precision_the_first_steps_and_the_score_are_those_alone(tmp_path: Path, kind: str) -> None:
    short = specs_of(tmp_path / "alone", kind, "float32", epoch_limit=1)
    together = specs_of(tmp_path / "together", kind, "float32", epoch_limit=1)
    expected = [run_task(spec, REGISTRY, Recorder()) for spec in short]
    found = outcomes(train_together(together))
    for one, other, mine, theirs in zip(short, together, expected, found, strict=True):
        assert furthest(one, other) < 1e-5
        assert mine.test_score == pytest.approx(theirs.test_score, rel=1e-4)


OPTIONS: dict[str, dict[str, Any]] = {
    "clipping": {"trainer": {"gradient_clip_norm": 0.5, "gradient_clip_value": 0.2}},
    "accumulation": {"trainer": {"accumulate_batches": 3}},
    "average": {"trainer": {"ema_decay": 0.9}},
    "schedule and warm-up": {"trainer": {"scheduler": "cosine", "warmup_steps": 4}},
    "schedule by epochs": {
        "trainer": {"scheduler": "plateau", "scheduler_params": {"patience": 0, "watch": "validation"}}
    },
    "early stopping by correlation": {
        "trainer": {"early_stopping_metric": "correlation", "early_stopping_patience": 1}
    },
    "AdamW": {"optimizer": Component("optimizer", "synicix-core/AdamW", {"lr": 0.01, "weight_decay": 0.1})},
    "Adam with weight decay": {"optimizer": Component("optimizer", "synicix-core/Adam", {"weight_decay": 0.1})},
    "amsgrad": {"optimizer": Component("optimizer", "synicix-core/Adam", {"amsgrad": True})},
    "SGD": {"optimizer": Component("optimizer", "synicix-core/SGD", {"lr": 0.1, "weight_decay": 0.01})},
    "momentum": {
        "optimizer": Component("optimizer", "synicix-core/SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True})
    },
    "RMSprop": {"optimizer": Component("optimizer", "synicix-core/RMSprop", {"lr": 0.01})},
    "an optimizer of somebody's own": {"optimizer": Component("optimizer", "toys/Plain", {"lr": 0.1})},
    "a criterion that sums": {"criterion": Component("criterion", "synicix-core/MSELoss", {"reduction": "sum"})},
    "a batch size that divides the tier": {"batch_size": 10},
    "in order": {
        "samplers": {"train": Component("sampler", "synicix-core/SequentialSampler"), "validation": None, "test": None}
    },
}


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_does_what_it_does_alone(tmp_path: Path, option: str) -> None:
    alone = [stack_spec(tmp_path / "alone", number, **OPTIONS[option]) for number in range(2)]
    together = [stack_spec(tmp_path / "together", number, **OPTIONS[option]) for number in range(2)]
    expected = [run_task(spec, REGISTRY, Recorder()) for spec in alone]
    found = outcomes(train_together(together))
    for one, other, mine, theirs in zip(alone, together, expected, found, strict=True):
        assert furthest(one, other) < 1e-12
        assert mine.regularization_loss_history == pytest.approx(theirs.regularization_loss_history, rel=1e-12)
        assert mine.metrics["validation"] == pytest.approx(theirs.metrics["validation"], rel=1e-11)
        assert (mine.best_epoch, mine.epochs) == (theirs.best_epoch, theirs.epochs)


def test_whatever_may_differ_does(tmp_path: Path) -> None:
    def specs(folder: Path) -> list[TaskSpec]:
        found = []
        for number, (lr, betas, decay, epochs, patience) in enumerate(
            [(0.01, [0.9, 0.999], 0.0, 2, 5), (0.02, [0.5, 0.9], 0.1, 5, None), (0.5, [0.9, 0.999], 0.0, 9, 1)]
        ):
            params = {"lr": lr, "betas": betas, "weight_decay": decay}
            found.append(
                stack_spec(
                    folder,
                    number,
                    {"early_stopping_patience": patience},
                    optimizer=Component("optimizer", "synicix-core/Adam", params),
                    epoch_limit=epochs,
                )
            )
        return found

    alone, together = specs(tmp_path / "alone"), specs(tmp_path / "together")
    expected = [run_task(spec, REGISTRY, Recorder()) for spec in alone]
    found = outcomes(train_together(together))
    assert [item.epochs for item in found] == [item.epochs for item in expected]
    assert [item.status for item in found] == ["completed", "completed", "early_stopped"]
    assert max(furthest(one, other) for one, other in zip(alone, together, strict=True)) < 1e-12


def test_one_that_diverges_harms_no_other_and_looks_as_it_does_alone(tmp_path: Path) -> None:
    def specs(folder: Path) -> list[TaskSpec]:
        return [
            with_model(stack_spec(folder, number), "Doomed", after=after)
            for number, after in enumerate([1e9, 10.0, 1e9, 3.0])
        ]

    alone, together = specs(tmp_path / "alone"), specs(tmp_path / "together")
    expected = [run_task(spec, REGISTRY, Recorder()) for spec in alone]
    found = outcomes(train_together(together))
    assert [item.status for item in found] == ["completed", "diverged", "completed", "diverged"]
    assert [item.best_epoch for item in found] == [item.best_epoch for item in expected]
    for k in (0, 1, 2):
        assert furthest(alone[k], together[k]) < 1e-12
    for mine, theirs in zip(expected, found, strict=True):
        assert mine.training_epoch_loss_history == pytest.approx(theirs.training_epoch_loss_history, nan_ok=True)
        last, other = mine.model_class_params_history[-1], theirs.model_class_params_history[-1]
        assert last["layers.0.weight"]["norm"] == pytest.approx(other["layers.0.weight"]["norm"], rel=1e-9, nan_ok=True)


def test_each_has_a_file_of_its_own_that_holds_nothing_of_the_others(tmp_path: Path) -> None:
    specs = [stack_spec(tmp_path, number) for number in range(8)]
    outcomes(train_together(specs))
    lone = stack_spec(tmp_path / "lone")
    run_task(lone, REGISTRY, Recorder())
    sizes = {Path(spec.model_save_path).stat().st_size for spec in specs}
    assert sizes == {Path(lone.model_save_path).stat().st_size}
    assert len({float(weights(spec)["layers.0.weight"].sum()) for spec in specs}) == 8


def test_tasks_that_end_together_are_scored_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def score_alone(_task: TaskRun) -> None:
        raise AssertionError("a task was scored by itself")

    monkeypatch.setattr(TaskRun, "_score", score_alone)
    found = outcomes(train_together([stack_spec(tmp_path, number) for number in range(3)]))
    assert all(
        item.metrics[tier]["correlation"] is not None for item in found for tier in ("train", "validation", "test")
    )
