"""A task from its specification to its outcome."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from synicix_core.errors import CheckpointError, ConfigurationError, DatasetError, ParamsError
from synicix_core.training.contract import TrainingInterrupted
from synicix_core.training.load import build_model, evaluate_task, load_state
from synicix_core.training.run import run_task
from synicix_core.training.spec import Component, TaskOutcome, TaskSpec
from tests.training.toys import Recorder, nn_spec, toy_registry, toy_spec

REGISTRY = toy_registry()


def run(spec: TaskSpec, observer: Recorder | None = None, **options: Any) -> TaskOutcome:
    return run_task(spec, REGISTRY, observer or Recorder(), **options)


def numbers(outcome: TaskOutcome) -> dict[str, Any]:
    """Everything that must be equal between two runs of the same task."""
    wire = outcome.to_wire()
    for name in ("train_seconds", "provenance", "notes"):
        wire.pop(name)
    return wire


def test_a_task_is_trained_saved_and_scored(tmp_path: Path) -> None:
    observer = Recorder()
    outcome = run(toy_spec(tmp_path), observer)

    assert outcome.status == "completed"
    assert outcome.epochs == 4
    assert outcome.best_epoch == 1 + int(np.argmin(outcome.validation_epoch_loss_history))
    assert outcome.training_epoch_loss_history[0] > outcome.training_epoch_loss_history[-1]
    assert len(outcome.regularization_loss_history) == 4 and min(outcome.regularization_loss_history) > 0
    assert set(outcome.model_class_params_history[-1]["layers.0.weight"]) == {"mean", "std", "norm"}
    assert outcome.test_score == outcome.metrics["test"]["loss"]
    assert list(outcome.metrics) == ["train", "validation", "test"]
    assert outcome.metrics["validation"]["loss"] == pytest.approx(min(outcome.validation_epoch_loss_history), rel=1e-5)
    data = Path(toy_spec(tmp_path).model_save_path).read_bytes()
    assert outcome.model_sha256 == hashlib.sha256(data).hexdigest()
    assert [event["epoch"] for event in observer.epochs] == [1, 2, 3, 4]
    assert observer.epochs[0]["epoch_limit"] == 4
    assert observer.epochs[0]["train_loss"] == outcome.training_epoch_loss_history[0]
    assert observer.epochs[0]["metrics"] == {"loss": outcome.validation_epoch_loss_history[0]}
    assert observer.alive.is_set()


def test_provenance_names_code_and_machine(tmp_path: Path) -> None:
    spec = toy_spec(tmp_path, project_commit="abc")
    provenance = run(spec).provenance

    by_name = {provider["provider"]: provider for provider in provenance["providers"]}
    assert by_name["toys/Net"]["sha256"] == hashlib.sha256(Path(__file__).with_name("toys.py").read_bytes()).hexdigest()
    assert by_name["toys/Net"]["version"] == "1.0"
    assert set(by_name) == {component.provider for component in spec.components()}
    assert provenance["torch"] == torch.__version__
    assert provenance["precision"] == "fp32"
    assert provenance["device"] == "cpu" and provenance["gpu"] is None
    assert provenance["project_commit"] == "abc"
    assert provenance["resumed_from_epoch"] is None
    json.dumps(provenance, allow_nan=False)


def test_the_same_seed_gives_the_same_bits_whatever_ran_before(tmp_path: Path) -> None:
    spec = nn_spec(tmp_path, dataset=Component("dataset", "toys/Linear", {"augment": True}))
    first = run(spec)
    random.seed(99)
    np.random.seed(98)
    torch.manual_seed(97)
    torch.rand(1000)
    run(dataclasses.replace(spec, model=Component("model", "toys/Lone"), seed=11))

    assert numbers(run(spec)) == numbers(first)
    assert numbers(run(dataclasses.replace(spec, seed=4))) != numbers(first)


def test_torch_is_left_as_it_was(tmp_path: Path) -> None:
    def state() -> tuple[Any, ...]:
        return (
            torch.are_deterministic_algorithms_enabled(),
            torch.backends.cudnn.benchmark,
            torch.backends.cudnn.deterministic,
            torch.get_float32_matmul_precision(),
            torch.backends.cudnn.allow_tf32,
            torch.get_num_threads(),
            torch.get_default_dtype(),
            torch.get_rng_state().tolist(),
            random.getstate(),
        )

    before = state()
    run(nn_spec(tmp_path, {"deterministic": True}))
    assert state() == before


def test_a_checkpoint_of_another_task_is_refused(tmp_path: Path) -> None:
    spec = toy_spec(tmp_path)
    with pytest.raises(TrainingInterrupted):
        run(spec, Recorder(stop_at=6))
    with pytest.raises(CheckpointError, match="another task"):
        run(dataclasses.replace(spec, task="1" * 32))


def test_an_old_trainer_trains_and_its_missing_histories_are_said_once(tmp_path: Path) -> None:
    outcome = run(toy_spec(tmp_path, trainer=Component("trainer", "toys/OldTrainer")))
    assert outcome.status == "completed"
    assert outcome.test_score is not None and math.isfinite(outcome.test_score)
    assert outcome.training_epoch_loss_history == [] and outcome.model_class_params_history == []
    assert len(outcome.notes) == 2 and "best_epoch" in outcome.notes[0]
    assert outcome.notes[1] == "the trainer toys/OldTrainer saves no checkpoints: an interrupted training starts again"


def test_an_old_trainer_is_interrupted_although_it_catches_every_exception(tmp_path: Path) -> None:
    spec = toy_spec(tmp_path, trainer=Component("trainer", "toys/OldTrainer"), epoch_limit=10_000)
    with pytest.raises(TrainingInterrupted):
        run(spec, Recorder(stop_at=8))
    assert not Path(spec.model_save_path).exists()


def test_a_subclass_that_passes_its_arguments_on_gets_the_context(tmp_path: Path) -> None:
    observer = Recorder()
    run(toy_spec(tmp_path, trainer=Component("trainer", "toys/SubclassTrainer")), observer)
    assert len(observer.epochs) == 4


@pytest.mark.parametrize(
    ("trainer", "why"), [("PicklingTrainer", "cannot be read"), ("ForgetfulTrainer", "is missing")]
)
def test_a_trainer_that_leaves_no_state_dict_is_named(tmp_path: Path, trainer: str, why: str) -> None:
    with pytest.raises(CheckpointError, match=rf"toys/{trainer} left no usable model.*{why}.*state_dict\(\)"):
        run(toy_spec(tmp_path, trainer=Component("trainer", f"toys/{trainer}")))


def test_no_test_tier_gives_no_score(tmp_path: Path) -> None:
    outcome = run(toy_spec(tmp_path, dataset=Component("dataset", "toys/Linear", {"sizes": {"test": 0}})))
    assert outcome.status == "no_test"
    assert outcome.test_score is None
    assert outcome.metrics["test"] == {"loss": None, "correlation": None}


@pytest.mark.parametrize(("tier", "word"), [("validation", "validation"), ("train", "training")])
def test_no_training_or_validation_examples_are_refused(tmp_path: Path, tier: str, word: str) -> None:
    with pytest.raises(DatasetError, match=f"no {word} examples"):
        run(toy_spec(tmp_path, dataset=Component("dataset", "toys/Linear", {"sizes": {tier: 0}})))


def test_test_examples_influence_nothing_but_the_test_score(tmp_path: Path) -> None:
    plain = run(nn_spec(tmp_path / "a", {"scheduler": "plateau", "scheduler_params": {"patience": 0}}))
    more = {"sizes": {"test": 40}}
    other = run(
        nn_spec(
            tmp_path / "b",
            {"scheduler": "plateau", "scheduler_params": {"patience": 0}},
            dataset=Component("dataset", "toys/Linear", more),
        )
    )
    assert other.test_score != plain.test_score
    assert other.validation_epoch_loss_history == plain.validation_epoch_loss_history
    assert other.metrics["train"] == plain.metrics["train"]


def test_validation_examples_influence_only_when_training_stops(tmp_path: Path) -> None:
    params = {"scheduler": "plateau", "scheduler_params": {"patience": 0}, "early_stopping_patience": None}
    plain = run(nn_spec(tmp_path / "a", params))
    shifted = run(nn_spec(tmp_path / "b", params, dataset=Component("dataset", "toys/Linear", {"offset": 5.0})))
    assert shifted.validation_epoch_loss_history != plain.validation_epoch_loss_history
    assert shifted.training_epoch_loss_history == plain.training_epoch_loss_history


def test_divergence_is_kept_honest(tmp_path: Path) -> None:
    optimizer = Component("optimizer", "synicix-core/SGD", {"lr": 1e30})
    outcome = run(toy_spec(tmp_path, optimizer=optimizer))
    assert outcome.status == "diverged"
    assert outcome.test_score is None
    assert outcome.best_epoch is None
    assert math.isnan(outcome.validation_epoch_loss_history[-1])
    assert outcome.epochs == len(outcome.training_epoch_loss_history) < 4
    back = TaskOutcome.from_wire(json.loads(json.dumps(outcome.to_wire(), allow_nan=False)))
    assert math.isnan(back.validation_epoch_loss_history[-1])


def test_a_model_that_diverged_before_there_were_good_weights_has_no_score(tmp_path: Path) -> None:
    outcome = run(toy_spec(tmp_path, dataset=Component("dataset", "toys/Poisoned")))
    assert (outcome.status, outcome.best_epoch, outcome.test_score) == ("diverged", None, None)
    assert {value for values in outcome.metrics.values() for value in values.values()} == {None}


def test_classes_and_named_inputs(tmp_path: Path) -> None:
    outcome = run(
        toy_spec(
            tmp_path,
            dataset=Component("dataset", "toys/Classes"),
            input_shape={"left": [2], "right": [[4]]},
            output_shape=[],
            model=Component("model", "toys/Classifier"),
            criterion=Component("criterion", "synicix-core/CrossEntropyLoss"),
            metrics=(Component("metric", "synicix-core/accuracy"), Component("metric", "synicix-core/loss")),
            epoch_limit=20,
        )
    )
    assert outcome.test_score is not None and outcome.test_score > 0.6
    assert outcome.regularization_loss_history == [0.0] * outcome.epochs


def test_configured_samplers_are_used_and_batch_samplers_make_the_batches(tmp_path: Path) -> None:
    samplers = {
        "train": Component("sampler", "toys/Pairs"),
        "validation": Component("sampler", "toys/Backwards"),
        "test": None,
    }
    observer = Recorder()
    outcome = run(toy_spec(tmp_path, samplers=samplers, epoch_limit=1), observer)
    assert outcome.status == "completed"
    # Asked at each batch: 24 of two to train and as many to score; it would be 15 in all with batches of ten.
    assert observer.asked > 48
    again = run(dataclasses.replace(toy_spec(tmp_path, samplers=samplers, epoch_limit=1)))
    assert numbers(again) == numbers(outcome)


def test_the_old_pipelines_shuffle_is_off_with_a_configured_sampler(tmp_path: Path) -> None:
    samplers = {"train": Component("sampler", "synicix-core/SequentialSampler"), "validation": None, "test": None}
    ordered, shuffled = run(toy_spec(tmp_path / "a", samplers=samplers)), run(toy_spec(tmp_path / "b"))
    assert ordered.training_epoch_loss_history != shuffled.training_epoch_loss_history


def test_metrics_may_be_arrays_and_those_that_are_not_finite_are_null(tmp_path: Path) -> None:
    metrics = (Component("metric", "toys/gloomy"), Component("metric", "toys/range"))
    outcome = run(toy_spec(tmp_path, metrics=metrics))
    assert outcome.test_score is None
    assert outcome.metrics["test"]["range"] > 0  # type: ignore[operator]
    assert any("gloomy was never finite" in note for note in outcome.notes)
    assert outcome.status == "completed" and outcome.best_epoch is None


def test_only_what_the_model_names_is_passed_and_nothing_twice(tmp_path: Path) -> None:
    clash = toy_spec(tmp_path, model=Component("model", "toys/Net", {"gain": 2.0}))
    with pytest.raises(ParamsError, match=r"model_class_params\.gain: the dataset supplies this"):
        run(clash)


def test_params_summary_of_the_model_is_kept(tmp_path: Path) -> None:
    outcome = run(toy_spec(tmp_path, model=Component("model", "toys/Summarised"), epoch_limit=1))
    (summary,) = outcome.model_class_params_history
    assert summary["size"] == 3 and len(summary["weights"]) == 8


def test_fp16_is_refused_on_the_cpu(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"fp16.*CUDA"):
        run(nn_spec(tmp_path, {"precision": "fp16"}))


def test_bf16_on_the_cpu_is_close_to_fp32_and_recorded(tmp_path: Path) -> None:
    model = Component("model", "toys/Net", {"dropout": 0.0})
    exact = run(nn_spec(tmp_path / "a", {"precision": "fp32"}, epoch_limit=30, model=model))
    mixed = run(nn_spec(tmp_path / "b", {"precision": "bf16"}, epoch_limit=30, model=model))
    assert mixed.provenance["precision"] == "bf16"
    assert mixed.training_epoch_loss_history != exact.training_epoch_loss_history
    # Not the score: which of two nearly equal epochs is the best one may differ.
    close = pytest.approx([float(loss) for loss in exact.validation_epoch_loss_history], rel=0.05)
    assert [float(loss) for loss in mixed.validation_epoch_loss_history] == close
    saved = torch.load(nn_spec(tmp_path / "b").model_save_path, weights_only=True)
    assert all(value.dtype == torch.float32 for value in saved.values())


def test_a_saved_model_is_built_loaded_and_scored_again(tmp_path: Path) -> None:
    spec = toy_spec(tmp_path)
    outcome = run(spec)
    model = build_model(spec, REGISTRY)
    load_state(model, spec.model_save_path, outcome.model_sha256)
    for tier in ("train", "validation", "test"):
        assert evaluate_task(spec, REGISTRY, model, tier) == outcome.metrics[tier]
    with pytest.raises(CheckpointError, match="sha256"):
        load_state(model, spec.model_save_path, "0" * 64)
    with pytest.raises(ParamsError, match="no such tier"):
        evaluate_task(spec, REGISTRY, model, "all")
    empty = toy_spec(tmp_path, dataset=Component("dataset", "toys/Linear", {"sizes": {"test": 0}}))
    with pytest.raises(DatasetError, match="no test examples"):
        evaluate_task(empty, REGISTRY, model, "test")
    other = build_model(toy_spec(tmp_path, model=Component("model", "toys/Net", {"hidden": 9})), REGISTRY)
    with pytest.raises(CheckpointError, match="do not fit"):
        load_state(other, spec.model_save_path)


@pytest.mark.slow
def test_data_loading_processes_give_the_same_batches(tmp_path: Path) -> None:
    plain = run(toy_spec(tmp_path / "a", epoch_limit=2))
    outcome = run(toy_spec(tmp_path / "b", epoch_limit=2, num_workers=1))
    assert outcome.training_epoch_loss_history == plain.training_epoch_loss_history
    assert outcome.metrics == plain.metrics
