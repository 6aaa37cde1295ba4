"""Mixed precision without a GPU: bf16 autocast and the scaler's skipped steps run on the CPU too."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from synicix_core.errors import ConfigurationError, ParamsError
from synicix_core.training.loss_sums import LossSums
from synicix_core.training.optimization import Optimization
from synicix_core.training.precision import Precision, resolve_precision
from synicix_core.training.schedules import LearningRate
from synicix_core.training.torch_state import restored_torch_state

CPU = torch.device("cpu")


def scaled(init_scale: float = 1024.0) -> Precision:
    return Precision("bf16", CPU, torch.amp.GradScaler("cpu", init_scale=init_scale, growth_interval=2))


@pytest.mark.parametrize(
    ("requested", "resolved"), [("auto", "fp32"), ("fp32", "fp32"), ("tf32", "fp32"), ("bf16", "bf16")]
)
def test_what_a_name_means_on_the_cpu(requested: str, resolved: str) -> None:
    precision = resolve_precision(requested, CPU)
    assert precision.resolved == resolved and precision.scaler is None


def test_unknown_and_impossible_names_are_refused() -> None:
    with pytest.raises(ParamsError, match="auto, fp32, tf32, bf16, fp16"):
        resolve_precision("half", CPU)
    with pytest.raises(ConfigurationError, match="needs a CUDA GPU"):
        resolve_precision("fp16", CPU)


@pytest.mark.parametrize(
    ("capability", "bf16", "requested", "resolved"),
    [
        ((9, 0), True, "auto", "bf16"),
        ((7, 5), False, "auto", "fp16"),
        ((6, 1), False, "auto", "fp32"),
        ((9, 0), True, "tf32", "tf32"),
        ((7, 5), False, "tf32", "fp32"),
        ((9, 0), True, "fp32", "fp32"),
    ],
)
def test_what_a_name_means_on_a_gpu(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], bf16: bool, requested: str, resolved: str
) -> None:
    pretend_gpu(monkeypatch, capability, bf16)
    precision = resolve_precision(requested, torch.device("cuda:0"))
    assert precision.resolved == resolved
    assert (precision.scaler is not None) == (resolved == "fp16")


def pretend_gpu(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], bf16: bool) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: bf16)
    monkeypatch.setattr(torch.cuda, "device", lambda _: torch.no_grad())
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Old GPU")
    monkeypatch.setattr(torch.amp, "GradScaler", lambda _: FakeScaler())


class FakeScaler:
    def get_scale(self) -> float:
        return 1.0


def test_bf16_is_refused_on_a_gpu_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_gpu(monkeypatch, (7, 0), False)
    with pytest.raises(ConfigurationError, match=r"bf16.*Old GPU"):
        resolve_precision("bf16", torch.device("cuda:0"))


def test_autocast_computes_in_bf16_and_leaves_weights_alone() -> None:
    layer = nn.Linear(4, 4)
    with resolve_precision("bf16", CPU).autocast():
        assert layer(torch.ones(2, 4)).dtype == torch.bfloat16
    with resolve_precision("fp32", CPU).autocast():
        assert layer(torch.ones(2, 4)).dtype == torch.float32
    assert layer.weight.dtype == torch.float32


def test_scaled_gradients_are_unscaled_for_clipping_and_stepping() -> None:
    layer = nn.Linear(3, 1, bias=False)
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
    before = layer.weight.detach().clone()
    precision = scaled()
    precision.backward(layer(torch.ones(1, 3)).sum())
    assert torch.allclose(layer.weight.grad, torch.full((1, 3), 1024.0))
    precision.unscale_(optimizer)
    assert torch.allclose(layer.weight.grad, torch.ones(1, 3))
    assert precision.step(optimizer)
    assert torch.allclose(layer.weight, before - 1.0)


def test_an_overflow_skips_the_step_and_halves_the_scale() -> None:
    layer = nn.Linear(3, 1, bias=False)
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
    before = layer.weight.detach().clone()
    precision = scaled()
    precision.backward(layer(torch.full((1, 3), float("inf"))).sum())
    assert not precision.step(optimizer)
    assert torch.equal(layer.weight, before)
    assert precision.scaler is not None and precision.scaler.get_scale() == 512.0
    again = scaled()
    again.load_state_dict(precision.state_dict())
    assert again.scaler is not None and again.scaler.get_scale() == 512.0


def test_a_skipped_step_moves_neither_the_schedule_nor_the_loss() -> None:
    layer = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
    rate = LearningRate(optimizer, "linear", {}, max_epoch=1, steps_per_epoch=10)
    optimization = Optimization(
        layer, nn.MSELoss(), optimizer, rate, scaled(), CPU, clip_norm=1.0, clip_value=None, skip_nonfinite=False
    )
    sums = LossSums(optimization.criterion)
    optimization.step([(torch.full((2, 3), float("inf")), torch.zeros(2, 1))], sums)
    assert (optimization.skipped_steps, sums.state_dict()["samples"], optimizer.param_groups[0]["lr"]) == (1, 0, 1.0)
    optimization.step([(torch.ones(2, 3), torch.zeros(2, 1))], sums)
    assert (optimization.skipped_steps, sums.state_dict()["samples"]) == (1, 2)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.9)


def test_tf32_is_on_only_when_asked_and_off_afterwards() -> None:
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    with restored_torch_state():
        Precision("tf32", CPU).apply()
        assert torch.get_float32_matmul_precision() == "high" and torch.backends.cudnn.allow_tf32
        Precision("fp32", CPU).apply()
        assert torch.get_float32_matmul_precision() == "highest" and not torch.backends.cudnn.allow_tf32
    assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == before


def test_torchs_newer_switches_do_not_break_the_older_ones() -> None:
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    with restored_torch_state():
        pass
    assert torch.get_float32_matmul_precision() == "highest"
