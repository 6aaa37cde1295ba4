"""What is found out about a dataset when it is inserted, and about a combination before it is trained."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from synicix_core.errors import DatasetError, ProviderNotFound, SynicixError
from synicix_core.training.inspect_dataset import DatasetFacts, inspect_dataset
from synicix_core.training.run import check_task, run_task
from synicix_core.training.spec import Component
from tests.training.toys import SIZES, Recorder, nn_spec, toy_registry, toy_spec

REGISTRY = toy_registry()


def inspect(name: str, **params: Any) -> DatasetFacts:
    return inspect_dataset(REGISTRY.resolve("dataset", name), "/data/scan.h5", params)


def test_shapes_sizes_and_parameters_for_models() -> None:
    facts = inspect("Linear")
    assert (facts.input_shape, facts.output_shape, facts.tier_sizes) == ([6], [3], SIZES)
    assert facts.additional_model_params["unused"] == 7
    assert isinstance(facts.additional_model_params["gain"], np.ndarray)


def test_shapes_of_named_inputs_and_of_classes() -> None:
    facts = inspect("Classes")
    assert facts.input_shape == {"left": [2], "right": [[4]]}
    assert facts.output_shape == []


def test_what_the_dataset_states_wins_over_the_example() -> None:
    facts = inspect("Stated")
    assert (facts.input_shape, facts.output_shape) == ([2, 3], [9])


@pytest.mark.parametrize(
    ("name", "params", "words"),
    [
        ("Linear", {"sizes": {"validation": 0}}, "no validation examples"),
        ("Linear", {"sizes": {"train": 0}}, "no training examples"),
        ("NoParams", {}, r"NoParams has no get_additional_model_params\(\)"),
        ("Triple", {}, "not a pair.*tuple of 3"),
        ("Broken", {}, "cannot read its train tier.*KeyError: 'responses'"),
    ],
)
def test_an_unusable_dataset_is_refused_with_file_and_reason(name: str, params: Any, words: str) -> None:
    with pytest.raises(DatasetError, match=words) as caught:
        inspect(name, **params)
    assert caught.value.file == "/data/scan.h5"


def test_notes_of_the_dataset_are_kept_once_and_other_warnings_are_passed_on(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    notes = ("2 trials of the train tier are left out", "2 trials of the test tier are left out")
    assert inspect("Noted").notes == notes
    assert check_task(toy_spec(tmp_path, dataset=Component("dataset", "toys/Noted", {})), REGISTRY).notes == notes
    outcome = run_task(toy_spec(tmp_path, dataset=Component("dataset", "toys/Noted", {})), REGISTRY, Recorder())
    assert outcome.notes[:2] == tuple(f"data: {note}" for note in notes)
    assert {str(warning.message) for warning in recwarn} == {"the clock of the recording drifts"}


def test_a_combination_is_tried_without_writing_a_file(tmp_path: Path) -> None:
    spec = toy_spec(tmp_path)
    report = check_task(spec, REGISTRY)
    assert report.device == "cpu" and report.tier_sizes == SIZES
    assert report.parameters == 6 * 8 + 8 + 8 * 3 + 3
    assert report.loss is not None and report.loss > 0 and report.penalty is not None and report.penalty > 0
    assert set(report.metrics) == {"loss", "correlation"}
    assert report.notes == ()
    assert list(tmp_path.iterdir()) == []


def test_shapes_that_do_not_fit_are_said_before_training(tmp_path: Path) -> None:
    with pytest.raises(SynicixError, match=r"toys/Net.*mat1 and mat2"):
        check_task(toy_spec(tmp_path, input_shape=[5]), REGISTRY)


def test_a_loss_that_would_stretch_its_arguments_is_noted(tmp_path: Path) -> None:
    spec = toy_spec(
        tmp_path, output_shape=[1], additional_model_params={}, metrics=(Component("metric", "synicix-core/loss"),)
    )
    with pytest.warns(UserWarning, match="target size"):
        (note,) = check_task(spec, REGISTRY).notes
    assert "(10, 1)" in note and "(10, 3)" in note


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"optimizer": Component("optimizer", "synicix-core/Adam", {"betas": [2, 3]})},
            "beta.*optimizer synicix-core/Adam|trainer",
        ),
        ({"metrics": (Component("metric", "synicix-core/accuracy"), Component("metric", "toys/range"))}, ""),
    ],
)
def test_each_part_is_tried(tmp_path: Path, changes: Any, words: str) -> None:
    spec = dataclasses.replace(toy_spec(tmp_path), **changes)
    if words:
        with pytest.raises(SynicixError, match=words):
            check_task(spec, REGISTRY)
    else:
        assert set(check_task(spec, REGISTRY).metrics) == {"accuracy", "range"}


def test_options_of_the_trainer_are_checked_too(tmp_path: Path) -> None:
    with pytest.raises(SynicixError, match="scheduler_params"):
        check_task(nn_spec(tmp_path, {"scheduler": "step"}), REGISTRY)


def test_the_trainer_is_built_with_the_metrics_that_training_gives_it(tmp_path: Path) -> None:
    metrics = (Component("metric", "synicix-core/correlation"), Component("metric", "synicix-core/loss"))
    trainer = Component("trainer", "synicix-core/NNTrainer", {"early_stopping_metric": "correlation"})
    assert check_task(toy_spec(tmp_path, metrics=metrics, trainer=trainer), toy_registry()).metrics["correlation"]


def test_a_provider_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProviderNotFound, match="gone"):
        check_task(toy_spec(tmp_path, model=Component("model", "gone/Net")), REGISTRY)
