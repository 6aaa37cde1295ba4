"""NNTrainer by hand, without a context, as the old pipeline's trainer was used."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, RandomSampler, TensorDataset

from synicix_core.errors import ParamsError, SynicixError
from synicix_core.training.contract import Trainer, TrainingDiverged
from synicix_core.training.nn_trainer import NNTrainer
from synicix_core.training.torch_state import restored_torch_state
from tests.training.toys import Lone, Net


@pytest.fixture(autouse=True)
def _torch_restored() -> Any:
    with restored_torch_state():
        torch.manual_seed(0)
        yield


def data(count: int = 50, seed: int = 0) -> TensorDataset:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 6, generator=generator)
    return TensorDataset(x, x[:, :3] * 2)


def loader(dataset: Any, shuffle: bool = False, size: int = 16) -> DataLoader[Any]:
    sampler = RandomSampler(dataset, generator=torch.Generator().manual_seed(5)) if shuffle else None
    return DataLoader(dataset, batch_size=size, sampler=sampler)


def trainer(path: Path, *, train: Any = None, validation: Any = None, test: Any = None, **options: Any) -> NNTrainer:
    arguments: dict[str, Any] = {
        "train_dataloader": train or loader(data(), shuffle=True),
        "validation_dataloader": validation or loader(data(20, 1)),
        "test_dataloader": test or loader(data(21, 2)),
        "device": torch.device("cpu"),
        "model_class": Net,
        "model_class_params": {"input_shape": (6,), "output_shape": (3,), "dropout": 0.0},
        "optimizer_class": torch.optim.SGD,
        "optimizer_class_params": {"lr": 0.1},
        "criterion_class": nn.MSELoss,
        "criterion_class_params": {},
        "model_save_path": str(path / "model.pt"),
        "max_epoch": 3,
    }
    return NNTrainer(**(arguments | options))


def test_all_twelve_arguments_are_enough(tmp_path: Path) -> None:
    made = trainer(tmp_path)
    assert isinstance(made, Trainer)
    made.train()
    assert (made.status, made.epochs, len(made.model_class_params_history)) == ("completed", 3, 3)
    last = {name: value.clone() for name, value in made.model.state_dict().items()}
    made.load_best_performing_model()
    assert made.validate() == min(made.validation_epoch_loss_history)
    result = made.evaluate(return_outputs_targets_and_loss=True)
    assert isinstance(result, dict) and result["outputs"].shape == result["targets"].shape == (21, 3)
    assert made.evaluate() == pytest.approx(float(nn.functional.mse_loss(result["outputs"], result["targets"])))
    saved = torch.load(tmp_path / "model.pt", weights_only=True)
    assert saved.keys() == last.keys()
    fresh = trainer(tmp_path)
    fresh.load_best_performing_model()
    assert fresh.validate() == made.validate()
    assert list(tmp_path.iterdir()) == [tmp_path / "model.pt"]


def test_it_does_what_a_loop_by_hand_does(tmp_path: Path) -> None:
    torch.manual_seed(1)
    made = trainer(tmp_path)
    made.train()
    torch.manual_seed(1)
    model = Net((6,), (3,), dropout=0.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    batches = loader(data(), shuffle=True)
    for epoch in range(3):
        losses, penalties, count = 0.0, 0.0, 0
        for x, y in batches:
            output, penalty = model(x)
            loss = nn.functional.mse_loss(output, y)
            optimizer.zero_grad()
            (loss + penalty).backward()
            optimizer.step()
            losses, penalties, count = (
                losses + loss.item() * len(x),
                penalties + penalty.item() * len(x),
                count + len(x),
            )
        assert made.training_epoch_loss_history[epoch] == pytest.approx(losses / count, rel=1e-12)
        assert made.regularization_loss_history[epoch] == pytest.approx(penalties / count, rel=1e-12)
    trained = made.model.state_dict()
    assert all(torch.equal(value, trained[name]) for name, value in model.state_dict().items())


def test_the_loss_is_sample_weighted_and_a_summed_one_is_per_sample(tmp_path: Path) -> None:
    whole = nn.functional.mse_loss
    made = trainer(tmp_path)
    made.model.eval()
    x, y = data(20, 1).tensors
    with torch.no_grad():
        output, _ = made.model(x)
    # 20 samples in batches of 16 and 4.
    assert made.validate() == pytest.approx(float(whole(output, y)), rel=1e-6)
    made = trainer(tmp_path, criterion_class_params={"reduction": "sum"})
    with torch.no_grad():
        output, _ = made.model(x)
    assert made.validate() == pytest.approx(float(whole(output, y, reduction="sum")) / 20, rel=1e-6)


def test_early_stopping_restores_the_best_epoch(tmp_path: Path) -> None:
    # Validation targets that training moves away from: the first epoch is the best.
    x, y = data(20, 1).tensors
    made = trainer(tmp_path, validation=loader(TensorDataset(x, -y)), max_epoch=50, early_stopping_patience=4)
    made.train()
    assert (made.status, made.best_epoch, made.epochs) == ("early_stopped", 1, 5)
    made.load_best_performing_model()
    assert made.validate() == made.validation_epoch_loss_history[0]


@pytest.mark.parametrize("patience", [None, 0])
def test_no_patience_trains_all_epochs(tmp_path: Path, patience: int | None) -> None:
    x, y = data(20, 1).tensors
    made = trainer(tmp_path, validation=loader(TensorDataset(x, -y)), max_epoch=14, early_stopping_patience=patience)
    made.train()
    assert (made.status, made.epochs, made.best_epoch) == ("completed", 14, 1)


def poisoned(bad: int) -> TensorDataset:
    dataset = data(48)
    dataset.tensors[1][bad] = math.nan
    return dataset


def test_nan_stops_and_keeps_the_best_weights(tmp_path: Path) -> None:
    class LaterPoison(TensorDataset):
        reads = 0

        def __getitem__(self, index: int) -> Any:
            LaterPoison.reads += 1
            x, y = super().__getitem__(index)
            return x, y * math.nan if LaterPoison.reads > 110 else y

    made = trainer(tmp_path, train=loader(LaterPoison(*data(50).tensors)), max_epoch=9)
    made.train()
    assert (made.status, made.epochs, made.best_epoch) == ("diverged", 3, 2)
    assert math.isnan(made.training_epoch_loss_history[-1])
    made.load_best_performing_model()
    assert made.validate() == made.validation_epoch_loss_history[1]


def test_nan_skip_leaves_out_the_step(tmp_path: Path) -> None:
    made = trainer(tmp_path, train=loader(poisoned(5)), nan_policy="skip")
    made.train()
    assert made.status == "completed"
    assert all(math.isfinite(value) for value in made.training_epoch_loss_history)
    assert made.notes == ("3 steps were skipped because a loss or gradient was not finite",)


def test_nan_skip_sees_gradients_too(tmp_path: Path) -> None:
    class Rooted(Lone):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            # The square root has an infinite slope at zero, where its value is fine.
            return self.layers(x) + (x[:, :1] * self.layers[0].bias[0] * 0).abs().sqrt()

    made = trainer(tmp_path, model_class=Rooted, nan_policy="skip", max_epoch=1)
    before = {name: value.clone() for name, value in made.model.state_dict().items()}
    made.train()
    assert made.status == "diverged"  # no step was possible
    assert all(torch.equal(value, before[name]) for name, value in made.model.state_dict().items())


def test_nan_raise_says_where(tmp_path: Path) -> None:
    with pytest.raises(TrainingDiverged, match=r"epoch 1.*learning rate"):
        trainer(tmp_path, train=loader(poisoned(5)), nan_policy="raise").train()


def test_divergence_ends_the_epoch_early(tmp_path: Path) -> None:
    seen = 0

    class Counting(TensorDataset):
        def __getitem__(self, index: int) -> Any:
            nonlocal seen
            seen += 1
            return super().__getitem__(index)

    x, y = data(5000).tensors
    made = trainer(tmp_path, train=loader(Counting(x, y * math.nan), size=5))
    made.train()
    assert made.status == "diverged" and seen <= 5 * 70


@pytest.mark.parametrize(("option", "limit"), [("gradient_clip_norm", 1e-3), ("gradient_clip_value", 1e-5)])
def test_gradients_are_clipped(tmp_path: Path, option: str, limit: float) -> None:
    made = trainer(tmp_path, train=loader(data(16)), max_epoch=1, **{option: limit})
    before = torch.cat([p.detach().flatten().clone() for p in made.model.parameters()])
    made.train()
    moved = torch.cat([p.detach().flatten() for p in made.model.parameters()]) - before
    size = moved.norm() if option == "gradient_clip_norm" else moved.abs().max()
    assert float(size) == pytest.approx(0.1 * limit, rel=0.05)


def test_warmup_and_schedule_move_the_learning_rate(tmp_path: Path) -> None:
    rates = []

    class Watched(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            rates.append(self.param_groups[0]["lr"])
            return super().step(closure)

    made = trainer(
        tmp_path, optimizer_class=Watched, train=loader(data(40), size=10), scheduler="cosine", warmup_epochs=0.5
    )
    made.train()
    assert len(rates) == 12
    assert rates[:3] == pytest.approx([0.05, 0.1, 0.1])
    assert rates[2:] == sorted(rates[2:], reverse=True) and rates[-1] < 0.01


def test_every_mistake_in_the_options_is_named(tmp_path: Path) -> None:
    with pytest.raises(ParamsError) as caught:
        trainer(
            tmp_path,
            max_epoch=0,
            early_stopping_patience=-1,
            scheduler="cosin",
            gradient_clip_norm=-1.0,
            nan_policy="ignore",
            warmup_epochs=1.0,
            warmup_steps=5,
        )
    assert [path for path, _ in caught.value.mistakes] == [
        "max_epoch",
        "early_stopping_patience",
        "scheduler",
        "warmup_steps",
        "gradient_clip_norm",
        "nan_policy",
    ]
    with pytest.raises(ParamsError, match="early_stopping_metric"):
        trainer(tmp_path, early_stopping_metric="accuracy")


def test_a_criterion_or_penalty_that_is_not_a_number_is_named(tmp_path: Path) -> None:
    with pytest.raises(SynicixError, match=r"MSELoss.*shape \(16, 3\).*reduction"):
        trainer(tmp_path, criterion_class_params={"reduction": "none"}).train()

    class TwoOutputs(Net):
        def forward(self, x: torch.Tensor) -> Any:
            output = self.layers(x)
            return output, output

    with pytest.raises(SynicixError, match="regularization_loss"):
        trainer(tmp_path, model_class=TwoOutputs).train()


@pytest.mark.parametrize("penalty", [0, 0.0, 0.5, torch.zeros(1), torch.tensor([2])])
def test_a_penalty_may_be_any_single_number(tmp_path: Path, penalty: Any) -> None:
    class Fixed(Net):
        def forward(self, x: torch.Tensor) -> Any:
            return self.layers(x), penalty

    made = trainer(tmp_path, model_class=Fixed, max_epoch=1)
    made.train()
    assert made.regularization_loss_history == [float(penalty)]


def test_no_test_loader_is_said(tmp_path: Path) -> None:
    made = trainer(tmp_path)
    made.test_dataloader = None
    with pytest.raises(SynicixError, match="test tier is empty"):
        made.evaluate()


def test_a_sampler_that_counts_epochs_is_told(tmp_path: Path) -> None:
    told: list[int] = []

    class Epochs(RandomSampler):
        def set_epoch(self, epoch: int) -> None:
            told.append(epoch)

    dataset = data()
    trainer(tmp_path, train=DataLoader(dataset, batch_size=10, sampler=Epochs(dataset))).train()
    assert told == [0, 1, 2]


def test_deterministic_mode_reaches_torch(tmp_path: Path) -> None:
    trainer(tmp_path, deterministic=True)
    assert torch.are_deterministic_algorithms_enabled() and torch.backends.cudnn.deterministic


def test_the_model_is_float32_whatever_the_precision_and_validation_is_in_it(tmp_path: Path) -> None:
    seen: list[torch.dtype] = []

    class Looking(Net):
        def forward(self, x: torch.Tensor) -> Any:
            output, penalty = super().forward(x)
            hidden = self.layers[0](x)
            seen.append(hidden.dtype)
            return output, penalty

    made = trainer(tmp_path, model_class=Looking, precision="bf16", max_epoch=1)
    made.train()
    assert set(seen) == {torch.bfloat16}
    seen.clear()
    made.evaluate()
    assert set(seen) == {torch.float32}
