"""The core's own providers are plain plugins: each can be loaded and used as the pipeline uses it."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from synicix_core import builtin
from synicix_core.parameters import check_params, describe
from synicix_core.registry import Registered, Registry
from tests.factories import Distribution, EntryPoint

REGISTRY = Registry([EntryPoint(Distribution("synicix-core", "0.1.0"), "core", "synicix_core.builtin", builtin)])


def ids(registered: Registered) -> str:
    return registered.name


def test_everything_is_declared_without_a_problem() -> None:
    assert REGISTRY.problems == ()
    kinds = {entry.kind for entry in REGISTRY.providers()}
    assert kinds == {"sampler", "trainer", "optimizer", "criterion", "metric"}
    assert not any(entry.provider.neutral for entry in REGISTRY.providers())


@pytest.mark.parametrize("registered", REGISTRY.providers("optimizer"), ids=ids)
def test_every_optimizer_steps_without_a_closure(registered: Registered) -> None:
    model = nn.Linear(3, 2)
    before = model.weight.detach().clone()
    optimizer = registered.load()(model.parameters())
    model(torch.ones(4, 3)).square().sum().backward()
    optimizer.step()
    assert not torch.equal(model.weight, before)


def test_optimizers_that_need_a_closure_or_sparse_gradients_are_not_here() -> None:
    assert {"LBFGS", "SparseAdam"}.isdisjoint(entry.name for entry in REGISTRY.providers("optimizer"))


@pytest.mark.parametrize("registered", REGISTRY.providers("criterion"), ids=ids)
def test_every_criterion_compares_an_output_with_a_target(registered: Registered) -> None:
    output = torch.rand(4, 3, requires_grad=True)
    signs = torch.tensor([[1.0, -1.0, 1.0]] * 4)
    targets = {
        "CrossEntropyLoss": torch.tensor([0, 1, 2, 0]),
        "NLLLoss": torch.tensor([0, 1, 2, 0]),
        "MultiMarginLoss": torch.tensor([0, 1, 2, 0]),
        "MultiLabelMarginLoss": torch.tensor([[0, 2, -1]] * 4),
        "HingeEmbeddingLoss": signs,
        "SoftMarginLoss": signs,
    }
    loss = registered.load()()(output, targets.get(registered.name, torch.rand(4, 3)))
    assert loss.shape == () and torch.isfinite(loss)
    loss.backward()
    assert output.grad is not None


def test_samplers_take_a_dataset() -> None:
    assert sorted(REGISTRY.resolve("sampler", "RandomSampler").load()(range(5))) == [0, 1, 2, 3, 4]
    assert list(REGISTRY.resolve("sampler", "SequentialSampler").load()(range(3))) == [0, 1, 2]


def test_metrics_have_their_direction_and_parameters() -> None:
    by_name = {entry.name: entry for entry in REGISTRY.providers("metric")}
    directions = {name: entry.provider.higher_is_better for name, entry in by_name.items()}  # type: ignore[attr-defined]
    assert directions == {"accuracy": True, "correlation": True, "loss": False, "r2": True}
    assert check_params(by_name["loss"], {}).mistakes == ()
    assert check_params(by_name["loss"], {"criterion": "MSELoss"}).mistakes != ()


def test_the_trainers_options_are_checked_by_their_types() -> None:
    trainer = REGISTRY.resolve("trainer", "NNTrainer")
    names = [parameter.name for parameter in describe(trainer).parameters]
    assert names[:2] == ["precision", "early_stopping_patience"] and "context" not in names
    good = {"precision": "bf16", "early_stopping_patience": None, "scheduler": "cosine", "gradient_clip_norm": 1}
    assert check_params(trainer, good).mistakes == ()
    bad = check_params(trainer, {"precision": "half", "scheduler": "cosin", "max_epoch": 3, "ema": 0.9}).mistakes
    assert {path for path, _ in bad} == {"precision", "scheduler", "max_epoch", "ema"}


def test_declaring_imports_nothing_heavy() -> None:
    code = "import sys, synicix_core.builtin; print([m for m in ('torch', 'numpy', 'datajoint') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_fused_and_plain_steps_differ_in_the_last_bits() -> None:
    def train(fused: bool) -> torch.Tensor:
        torch.manual_seed(0)
        layer, x = nn.Linear(50, 50), torch.randn(64, 50)
        adam = torch.optim.Adam(layer.parameters(), lr=1e-2, fused=fused)
        for _ in range(50):
            adam.zero_grad()
            layer(x).square().mean().backward()
            adam.step()
        return layer.weight.detach()

    # Why `fused` is part of a config's md5.
    assert not torch.equal(train(True), train(False))
