"""Parameters are checked against signatures, all mistakes at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import pytest
import torch

from synicix_core import (
    CriterionProvider,
    DatasetProvider,
    ModelProvider,
    OptimizerProvider,
    SamplerProvider,
    TrainerProvider,
)
from synicix_core.parameters import as_arguments, check_params, describe
from tests.factories import registered


class Target:
    def __init__(
        self,
        input_shape,
        output_shape,
        size: int,
        rate: float = 0.1,
        betas: tuple[float, float] = (0.9, 0.99),
        widths: Sequence[int] = (),
        mode: Literal["a", "b"] = "a",
        scale: float | torch.Tensor = 1.0,
        label: str | None = None,
        flag: bool = False,
        free=None,
        table: dict[str, float] | None = None,
    ):
        self.given = locals()


MODEL = registered(ModelProvider("Target", target=Target))


def mistakes(params, **options):
    return dict(check_params(MODEL, params, **options).mistakes)


def test_good_parameters_pass_and_integers_serve_for_floats():
    checked = check_params(MODEL, {"size": 3, "rate": 1, "betas": [0, 1], "table": {"x": 2}, "free": [1, "x"]})
    assert checked.mistakes == ()
    assert checked.values == {"size": 3, "rate": 1.0, "betas": [0.0, 1.0], "table": {"x": 2.0}, "free": [1, "x"]}
    assert [type(value) for value in (checked.values["rate"], checked.values["betas"][0])] == [float, float]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("size", 3.0), ("size", "3"), ("size", True), ("rate", "fast"), ("rate", True), ("betas", [0.9]), ("betas", 0.9),
        ("widths", "12"), ("widths", [1, "x"]), ("mode", "c"), ("scale", "x"), ("label", 3), ("flag", 1), ("table", [1]),
        ("table", {"x": "y"}),
    ],
)  # fmt: skip
def test_a_wrong_type_is_named_with_its_path(name, value):
    found = mistakes({"size": 1, name: value}, path="params")
    assert list(found) == [f"params.{name}"]
    assert "expected" in found[f"params.{name}"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("scale", 1),
        ("label", None),
        ("label", "x"),
        ("widths", [1, 2]),
        ("mode", "b"),
        ("table", None),
        ("free", {"a": 1}),
    ],
)
def test_a_fitting_type_passes(name, value):
    assert mistakes({"size": 1, name: value}) == {}


def test_all_mistakes_are_found_at_once():
    found = mistakes({"rat": 1, "mode": "z", "input_shape": [3]})
    assert set(found) == {"rat", "mode", "input_shape", "size"}
    assert "did you mean 'rate'?" in found["rat"]
    assert "the pipeline passes this itself" in found["input_shape"]
    assert "no default" in found["size"]


def test_a_missing_parameter_may_wait_until_it_is_known_who_supplies_it():
    assert mistakes({}, optional_missing=True) == {}
    assert mistakes({}, supplied={"size"}) == {}
    assert "dataset supplies this" in mistakes({"size": 1}, supplied={"size"})["size"]


def test_what_is_not_json_is_refused():
    assert "nan" in mistakes({"size": 1, "rate": math.nan})["rate"]
    assert "not [1]" in mistakes([1])[""]


def test_lists_are_passed_as_tuples_where_tuples_are_wanted():
    arguments = as_arguments(MODEL, {"betas": [0, 0.5], "widths": [1], "free": [1]})
    assert arguments == {"betas": (0.0, 0.5), "widths": [1], "free": [1]}


def test_a_target_with_kwargs_takes_any_name_with_a_note():
    def build(input_shape, output_shape, *, size: int = 1, **kwargs):
        return size, kwargs

    checked = check_params(registered(ModelProvider("Build", target=build)), {"size": 2, "other": 3})
    assert checked.mistakes == ()
    assert "takes any name" in checked.notes[0]


def test_a_params_dataclass_stands_in_for_the_signature():
    @dataclass
    class Params:
        size: int
        names: list[str] = field(default_factory=list)

    target = registered(CriterionProvider("C", target=lambda **kwargs: kwargs, params=Params))
    assert [(p.name, p.required) for p in describe(target).parameters] == [("size", True), ("names", False)]
    assert dict(check_params(target, {"names": [1]}).mistakes).keys() == {"names", "size"}


def test_what_the_pipeline_passes_by_position_is_no_parameter():
    def dataset(file, part, mode: str = "x"): ...
    def sampler(source, size: int = 1, generator=None): ...
    def trainer(train_dataloader, max_epoch, context=None, patience: int = 3): ...

    for provider, names in (
        (DatasetProvider("D", target=dataset), ["mode"]),
        (SamplerProvider("S", target=sampler), ["size"]),
        (TrainerProvider("T", target=trainer), ["patience"]),
    ):
        assert [parameter.name for parameter in describe(registered(provider)).parameters] == names


def test_torch_optimizers_are_described():
    adam = registered(OptimizerProvider("Adam", target="torch.optim:Adam"))
    signature = describe(adam)
    assert signature.get("lr").type_text == "float"
    assert signature.get("params") is None
    assert check_params(adam, {"lr": 1, "betas": [0.5, 0.9]}).values == {"lr": 1.0, "betas": [0.5, 0.9]}
    assert as_arguments(adam, {"betas": [0.5, 0.9]}) == {"betas": (0.5, 0.9)}


def test_an_annotation_that_cannot_be_resolved_is_not_checked():
    def build(input_shape, output_shape, thing: "NotThere" = None): ...  # noqa: F821, UP037 - absent on purpose

    assert check_params(registered(ModelProvider("B", target=build)), {"thing": 3}).mistakes == ()
