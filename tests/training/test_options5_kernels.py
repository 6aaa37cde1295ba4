"""Which kernel makes an optimizer's steps, and that steps made without looking everything up anew are the same."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from synicix_core.training.fused_kernels import FastStep, build_optimizer, kernel_of, with_kernel_of
from tests.training.test_nn_trainer import trainer

CPU = torch.device("cpu")


class Theirs(torch.optim.Adam):
    """An optimizer of somebody else's."""


def built(optimizer_class: Any, parameters: Any = None, **params: Any) -> torch.optim.Optimizer:
    weights = parameters if parameters is not None else nn.Linear(3, 2).parameters()
    return build_optimizer(optimizer_class, weights, params, CPU)


@pytest.mark.parametrize("optimizer_class", [torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD, torch.optim.Adagrad])
def test_torchs_optimizers_get_their_fused_kernel(optimizer_class: Any) -> None:
    assert kernel_of(built(optimizer_class, lr=0.1)) == "fused"


def test_a_row_that_names_a_kernel_has_it() -> None:
    assert kernel_of(built(torch.optim.Adam, foreach=True)) == "foreach"
    assert kernel_of(built(torch.optim.Adam, fused=False)) == "default"


@pytest.mark.parametrize("optimizer_class", [torch.optim.RMSprop, Theirs, partial(torch.optim.Adam)])
def test_others_are_left_alone(optimizer_class: Any) -> None:
    assert kernel_of(built(optimizer_class)) == "default"


def test_complex_weights_are_left_alone() -> None:
    weights = [nn.Parameter(torch.ones(2, dtype=torch.complex64)), nn.Parameter(torch.ones(2))]
    assert kernel_of(built(torch.optim.Adam, weights)) == "default"


def test_whole_numbers_that_do_not_learn_are_left_alone() -> None:
    weights = [nn.Parameter(torch.ones(2, dtype=torch.int64), requires_grad=False), nn.Parameter(torch.ones(2))]
    assert kernel_of(built(torch.optim.Adam, weights)) == "default"


def test_a_torch_that_has_no_such_kernel_after_all_does_without() -> None:
    class Refusing(torch.optim.Adam):
        def __init__(self, weights: Any, fused: bool | None = None) -> None:
            if fused:
                raise RuntimeError("no fused kernel for this device")
            super().__init__(weights)

    Refusing.__module__ = "torch.optim.refusing"
    assert kernel_of(built(Refusing)) == "default"


def test_a_step_that_a_graph_can_record_is_asked_for_where_there_is_one() -> None:
    def groups(optimizer_class: Any, **params: Any) -> dict[str, Any]:
        weights = list(nn.Linear(3, 2).parameters())
        # The CPU has no graphs; the parameter is passed all the same.
        return build_optimizer(optimizer_class, weights, params, torch.device("meta"), capturable=True).param_groups[0]

    assert groups(torch.optim.Adam)["capturable"]
    assert not groups(torch.optim.Adam, foreach=True)["capturable"]
    assert "capturable" not in groups(torch.optim.SGD)


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 2))


def stepped(model: nn.Module, optimizer: torch.optim.Optimizer, fast: bool, count: int = 6, seed: int = 3) -> None:
    torch.manual_seed(seed)
    steps = FastStep(optimizer)
    for _ in range(count):
        (steps.zero_grad if fast else optimizer.zero_grad)()
        model(torch.randn(4, 5)).square().mean().backward()
        (steps.step if fast else optimizer.step)()


def assert_equal(one: Any, other: Any) -> None:
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_equal(one[key], other[key])
    elif isinstance(one, list | tuple):
        for first, second in zip(one, other, strict=True):
            assert_equal(first, second)
    else:
        assert one == other


def assert_same(made: list[tuple[nn.Module, torch.optim.Optimizer]]) -> None:
    (model, optimizer), (other_model, other_optimizer) = made
    assert_equal(dict(model.state_dict()), dict(other_model.state_dict()))
    assert_equal(optimizer.state_dict(), other_optimizer.state_dict())


ADAMS = [
    (torch.optim.Adam, {"lr": 0.02}),
    (torch.optim.Adam, {"lr": 0.02, "weight_decay": 0.1, "betas": (0.8, 0.95), "eps": 1e-3}),
    (torch.optim.Adam, {"lr": 0.02, "amsgrad": True, "maximize": True}),
    (torch.optim.Adam, {"lr": 0.02, "weight_decay": 0.1, "decoupled_weight_decay": True}),
    (torch.optim.AdamW, {"lr": 0.02, "weight_decay": 0.2}),
    (torch.optim.AdamW, {"lr": 0.02, "amsgrad": True}),
]


@pytest.mark.parametrize(("optimizer_class", "params"), ADAMS)
def test_weights_and_states_are_those_of_torch(optimizer_class: Any, params: dict[str, Any]) -> None:
    made = []
    for fast in (True, False):
        model = network()
        optimizer = built(optimizer_class, model.parameters(), **params)
        stepped(model, optimizer, fast)
        made.append((model, optimizer))
    assert_same(made)


@pytest.mark.parametrize("optimizer_class", [torch.optim.SGD, torch.optim.RMSprop, Theirs])
def test_other_optimizers_make_their_own_steps(optimizer_class: Any) -> None:
    made = []
    for fast in (True, False):
        model = network()
        optimizer = built(optimizer_class, model.parameters(), lr=0.01)
        stepped(model, optimizer, fast)
        made.append((model, optimizer))
    assert_same(made)


def test_groups_have_their_own_numbers_and_these_may_change() -> None:
    made = []
    for fast in (True, False):
        model = network()
        groups = [{"params": model[0].parameters(), "lr": 0.1}, {"params": model[2].parameters(), "betas": (0.5, 0.6)}]
        optimizer = torch.optim.Adam(groups, lr=0.01, fused=True)
        steps = FastStep(optimizer)
        torch.manual_seed(4)
        for rate in (0.1, 0.05, 0.02):
            optimizer.param_groups[0]["lr"] = rate
            optimizer.zero_grad()
            model(torch.randn(4, 5)).square().mean().backward()
            (steps.step if fast else optimizer.step)()
        made.append((model, optimizer))
    assert_same(made)


def test_a_state_that_was_loaded_is_the_one_that_is_gone_on_with() -> None:
    made = []
    for fast in (True, False):
        model, earlier = network(), network()
        before = torch.optim.Adam(earlier.parameters(), lr=0.02, fused=True)
        stepped(earlier, before, False, count=3)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.02, fused=True)
        steps = FastStep(optimizer)
        for count, state in ((2, None), (3, before.state_dict())):
            if state is not None:
                optimizer.load_state_dict(state)
            for _ in range(count):
                optimizer.zero_grad()
                model(torch.ones(4, 5)).square().mean().backward()
                (steps.step if fast else optimizer.step)()
        made.append((model, optimizer))
    assert_same(made)
    assert int(made[0][1].state_dict()["state"][0]["step"]) == 6


@pytest.mark.parametrize(("before", "now"), [("foreach", "fused"), ("fused", "foreach")])
def test_a_state_of_another_kernel_is_gone_on_with_by_ones_own(before: str, now: str) -> None:
    earlier, model = network(), network()
    saved = torch.optim.Adam(earlier.parameters(), lr=0.02, **{before: True})
    stepped(earlier, saved, False)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.5, **{now: True})
    optimizer.load_state_dict(with_kernel_of(optimizer, saved.state_dict()))
    assert kernel_of(optimizer) == now
    assert optimizer.param_groups[0]["lr"] == 0.02
    stepped(model, optimizer, False, count=1)
    assert int(optimizer.state_dict()["state"][0]["step"]) == 7


def test_a_state_of_another_shape_is_left_for_torch_to_refuse() -> None:
    state = {"state": {}, "param_groups": [{}, {}]}
    assert with_kernel_of(torch.optim.Adam(network().parameters()), state) is state


def test_weights_that_are_left_out_of_a_step_are_left_out() -> None:
    made = []
    for fast in (True, False):
        model = network()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.02, fused=True)
        steps = FastStep(optimizer)
        for layers in (3, 3, 1, 3):
            steps.zero_grad()
            model[:layers](torch.ones(4, 5)).square().mean().backward()
            (steps.step if fast else optimizer.step)()
        made.append((model, optimizer))
    assert_same(made)
    assert [int(state["step"]) for state in made[0][1].state_dict()["state"].values()] == [4, 4, 3, 3]


def test_weights_that_thaw_learn() -> None:
    made = []
    for fast in (True, False):
        model = network()
        model[2].requires_grad_(False)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.02, fused=True)
        steps = FastStep(optimizer)
        for thawed in (False, False, True, True):
            model[2].requires_grad_(thawed)
            steps.zero_grad()
            model(torch.ones(4, 5)).square().mean().backward()
            (steps.step if fast else optimizer.step)()
        made.append((model, optimizer))
    assert_same(made)


def test_a_group_that_is_added_learns() -> None:
    made = []
    for fast in (True, False):
        model = network()
        optimizer = torch.optim.Adam(model[0].parameters(), lr=0.02, fused=True)
        steps = FastStep(optimizer)
        for number in range(4):
            if number == 2:
                optimizer.add_param_group({"params": list(model[2].parameters())})
            model.zero_grad()
            model(torch.ones(4, 5)).square().mean().backward()
            (steps.step if fast else optimizer.step)()
        made.append((model, optimizer))
    assert_same(made)


@pytest.mark.parametrize("register", ["register_step_pre_hook", "register_step_post_hook"])
def test_hooks_are_called_at_each_step(register: str) -> None:
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    called = []
    steps = FastStep(optimizer)
    for number in range(4):
        if number == 2:
            getattr(optimizer, register)(lambda *_: called.append(1))
        model(torch.ones(4, 5)).square().mean().backward()
        steps.step()
    assert len(called) == 2


def test_a_step_of_the_instances_own_is_called() -> None:
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    called = []
    steps = FastStep(optimizer)
    model(torch.ones(4, 5)).square().mean().backward()
    steps.step()
    optimizer.step = lambda closure=None: called.append(closure)  # type: ignore[method-assign, assignment]
    steps.step()
    assert called == [None]


def test_a_gradient_that_is_cleared_in_another_way_is_cleared_so() -> None:
    class Keeping(torch.optim.SGD):
        def zero_grad(self, set_to_none: bool = False) -> None:
            super().zero_grad(set_to_none=False)

    model = network()
    model(torch.ones(4, 5)).square().mean().backward()
    FastStep(Keeping(model.parameters(), lr=0.1)).zero_grad()
    assert all(weight.grad is not None and not weight.grad.any() for weight in model.parameters())


def test_torchs_step_is_called_once_in_a_training_of_adam(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    step = torch.optim.Adam.step
    monkeypatch.setattr(torch.optim.Adam, "step", lambda self, closure=None: calls.append(1) or step(self, closure))
    made = trainer(tmp_path, optimizer_class=torch.optim.Adam, scheduler="cosine")
    made.train()
    assert len(calls) == 1
    assert made.how["optimizer_kernel"] == "fused"
