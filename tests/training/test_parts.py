"""The small parts: early stopping, schedules, loaders, files, wire, context."""

from __future__ import annotations

import json
import math
import typing
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from synicix_core.errors import CheckpointError, ParamsError, SynicixError
from synicix_core.training import wire
from synicix_core.training.batches import batch_size, concatenate, move, split_batch
from synicix_core.training.checkpoints import CheckpointPlan
from synicix_core.training.context import TaskContext
from synicix_core.training.contract import TrainingContext
from synicix_core.training.early_stopping import EarlyStopping
from synicix_core.training.loaders import make_loader
from synicix_core.training.parameter_summary import all_finite, summarise_parameters
from synicix_core.training.precision import resolve_precision
from synicix_core.training.saved_files import load_plain, save_atomically
from synicix_core.training.schedules import SCHEDULES, LearningRate, ScheduleName
from synicix_core.training.spec import TaskSpec, TaskState
from synicix_core.training.torch_state import restored_torch_state
from tests.training.toys import Linear, Recorder, toy_spec


class TestEarlyStopping:
    def run(self, values: list[float], **options: Any) -> tuple[EarlyStopping, int]:
        stopping = EarlyStopping(**({"patience": 2, "min_delta": 0.0, "higher_is_better": False} | options))
        for epoch, value in enumerate(values, 1):
            stopping.update(value, epoch)
            if stopping.exhausted:
                return stopping, epoch
        return stopping, len(values)

    def test_patience_counts_from_the_last_improvement(self) -> None:
        stopping, epochs = self.run([3, 2, 4, 1, 5, 6, 0])
        assert (stopping.best, stopping.best_epoch, epochs) == (1, 4, 6)

    def test_direction(self) -> None:
        assert self.run([1, 3, 2], higher_is_better=True)[0].best_epoch == 2

    def test_a_small_improvement_is_the_best_but_does_not_buy_time(self) -> None:
        stopping, epochs = self.run([1.0, 0.99, 0.98, 0.0], min_delta=0.1)
        assert (stopping.best_epoch, epochs) == (3, 3)

    def test_nan_is_never_the_best_and_never_sticks(self) -> None:
        stopping, _ = self.run([math.nan, 5.0, math.inf, 4.0])
        assert (stopping.best, stopping.best_epoch) == (4.0, 4)
        assert self.run([math.nan] * 5)[1] == 2


def optimizer(rate: float = 1.0) -> torch.optim.SGD:
    return torch.optim.SGD([nn.Parameter(torch.zeros(2))], lr=rate)


class TestSchedules:
    def test_the_type_lists_every_name(self) -> None:
        assert typing.get_args(ScheduleName) == tuple(SCHEDULES)

    @pytest.mark.parametrize("name", [*SCHEDULES, None])
    def test_each_survives_being_saved(self, name: Any, tmp_path: Path) -> None:
        needed: dict[Any, dict[str, Any]] = {
            "cosine_restarts": {"T_0": 2},
            "exponential": {"gamma": 0.5},
            "multistep": {"milestones": [2, 3]},
            "plateau": {"patience": 0},
            "step": {"step_size": 2},
        }

        def rates(interrupt: bool) -> list[float]:
            made = optimizer()
            schedule = LearningRate(
                made,
                name,
                needed.get(name, {}),
                max_epoch=5,
                steps_per_epoch=3,
                warmup_steps=0 if name == "onecycle" else 2,
            )
            found = []
            for epoch in range(5):
                for _ in range(3):
                    found.append(made.param_groups[0]["lr"])
                    made.step()
                    schedule.after_step()
                schedule.after_epoch(1.0, 1.0)
                if interrupt and epoch == 2:
                    save_atomically({"o": made.state_dict(), "s": schedule.state_dict()}, tmp_path / "state")
                    state = load_plain(tmp_path / "state")
                    made = optimizer()
                    schedule = LearningRate(
                        made,
                        name,
                        needed.get(name, {}),
                        max_epoch=5,
                        steps_per_epoch=3,
                        warmup_steps=0 if name == "onecycle" else 2,
                    )
                    made.load_state_dict(state["o"])
                    schedule.load_state_dict(state["s"])
            return found

        whole = rates(interrupt=False)
        assert rates(interrupt=True) == whole
        assert name is None or len(set(whole[2:])) > 1

    def test_plateau_watches_training_unless_told(self) -> None:
        for watch, moved in (({}, False), ({"watch": "validation"}, True)):
            made = optimizer()
            schedule = LearningRate(made, "plateau", {"patience": 0, **watch}, max_epoch=5, steps_per_epoch=1)
            for train_loss in (3.0, 2.0, 1.0):
                made.step()
                schedule.after_epoch(train_loss, 7.0)
            assert (made.param_groups[0]["lr"] < 1.0) == moved

    def test_plateau_follows_the_direction_of_the_metric(self) -> None:
        made = optimizer()
        params = {"patience": 0, "watch": "validation"}
        schedule = LearningRate(made, "plateau", params, max_epoch=5, steps_per_epoch=1, higher_is_better=True)
        for metric in (0.1, 0.2, 0.3):
            schedule.after_epoch(1.0, metric)
        assert made.param_groups[0]["lr"] == 1.0

    @pytest.mark.parametrize(
        ("name", "params", "options", "words"),
        [
            ("step", {}, {}, r"scheduler_params\.step_size.*needs"),
            ("cosine", {"T_max": 3}, {}, r"scheduler_params\.T_max.*no such parameter"),
            ("exponential", {"gamma": "x"}, {}, "gamma: expected a number"),
            ("plateau", {"watch": "test"}, {}, "train_loss"),
            ("onecycle", {}, {"warmup_steps": 2}, "pct_start"),
            ("cosine", {}, {"warmup_epochs": 9.0}, "leaves none"),
            ("cosine", {}, {"steps_per_epoch": None}, "does not know its length"),
        ],
    )
    def test_mistakes_are_named(self, name: str, params: Any, options: Any, words: str) -> None:
        with pytest.raises(ParamsError, match=words):
            LearningRate(optimizer(), name, params, **({"max_epoch": 5, "steps_per_epoch": 3} | options))


class TestLoaders:
    def order(self, **options: Any) -> list[float]:
        loader = make_loader(Linear("", "train"), **({"tier": "train", "seed": 1, "batch_size": 10} | options))
        assert loader is not None
        return torch.cat([x[:, 0] for x, _ in loader]).tolist()

    def test_only_training_is_shuffled_and_the_seed_decides_how(self) -> None:
        in_order = Linear("", "train").x[:, 0].tolist()
        assert self.order(tier="validation") == in_order
        assert self.order() != in_order and sorted(self.order()) == sorted(in_order)
        torch.rand(100)
        assert self.order() == self.order(batch_size=7)
        assert self.order() != self.order(seed=2)

    def test_iterating_draws_nothing_from_the_global_generator(self) -> None:
        before = torch.get_rng_state()
        self.order()
        self.order(tier="test")
        assert torch.equal(torch.get_rng_state(), before)

    def test_an_empty_tier_has_no_loader(self) -> None:
        empty = Linear("", "test", sizes={"test": 0})
        assert make_loader(empty, "test", seed=1, batch_size=4) is None

    def test_getitems_is_used(self) -> None:
        class Whole(Linear):
            def __getitems__(self, indices: list[int]) -> list[Any]:
                return [(self.x[i] * 0, self.y[i]) for i in indices]

        loader = make_loader(Whole("", "train"), "train", seed=1, batch_size=4)
        assert loader is not None and next(iter(loader))[0].abs().sum() == 0


class TestBatches:
    def test_nested(self) -> None:
        batch = {"a": torch.ones(3, 2), "b": [torch.zeros(3), (torch.zeros(3, dtype=torch.int64),)]}
        assert batch_size(batch) == 3
        joined = concatenate([batch, batch])
        assert joined["a"].shape == (6, 2) and joined["b"][1][0].dtype == torch.int64
        assert move(batch, torch.device("meta"))["b"][1][0].device.type == "meta"

    def test_what_is_no_pair_is_refused(self) -> None:
        with pytest.raises(SynicixError, match=r"not give \(input, target\).*list of 3"):
            split_batch([1, 2, 3])

    def test_examples_of_different_shapes_are_said(self) -> None:
        with pytest.raises(SynicixError, match="cannot be joined"):
            concatenate([torch.zeros(2, 3), torch.zeros(2, 4)])


class TestSavedFiles:
    def test_a_failed_write_leaves_the_old_file(self, tmp_path: Path) -> None:
        path = tmp_path / "file"
        save_atomically({"a": torch.ones(2)}, path)

        class Unwritable:
            def __reduce__(self) -> Any:
                raise RuntimeError("disk full")

        with pytest.raises(CheckpointError, match=r"cannot be written.*disk full"):
            save_atomically({"a": Unwritable()}, path)
        assert load_plain(path)["a"].tolist() == [1, 1]
        assert list(tmp_path.iterdir()) == [path]

    def test_what_is_no_directory_is_said(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(CheckpointError, match="cannot be written"):
            save_atomically({}, tmp_path / "file" / "model")

    def test_code_is_not_run(self, tmp_path: Path) -> None:
        torch.save(nn.Linear(2, 2), tmp_path / "model")
        with pytest.raises(CheckpointError, match="cannot be read"):
            load_plain(tmp_path / "model")


class TestContext:
    def make(self, path: Path, observer: Any = None, **options: Any) -> TaskContext:
        return TaskContext(
            **(
                {
                    "checkpoints": CheckpointPlan("t", path / "checkpoint"),
                    "seed": 1,
                    "epoch_limit": 9,
                    "metrics": {},
                    "make_precision": lambda: resolve_precision("auto", torch.device("cpu")),
                    "observer": observer or Recorder(),
                }
                | options
            )
        )

    def test_it_is_what_the_contract_says(self, tmp_path: Path) -> None:
        with restored_torch_state():  # looking at `precision` sets torch's switches
            assert isinstance(self.make(tmp_path), TrainingContext)

    def test_random_state_travels_with_the_checkpoint(self, tmp_path: Path) -> None:
        context = self.make(tmp_path)
        context.epoch_finished(
            2, train_loss=torch.tensor(1.5), validation_loss=math.nan, metrics={"r": np.float64(0.5)}
        )
        context.save_checkpoint({"epoch": 2, "nested": [{"t": torch.ones(2)}, (1, None)]})
        expected = [torch.rand(1).item(), np.random.rand(), torch.rand(1, generator=context.generator).item()]
        observer = Recorder()
        other = self.make(tmp_path, observer)
        state = other.load_checkpoint()
        assert state is not None and state["epoch"] == 2 and other.epochs == 2
        assert [torch.rand(1).item(), np.random.rand(), torch.rand(1, generator=other.generator).item()] == expected

    def test_observers_get_plain_finite_numbers(self, tmp_path: Path) -> None:
        observer = Recorder()
        self.make(tmp_path, observer).epoch_finished(
            1, train_loss=torch.tensor(1.5), validation_loss=math.nan, metrics={"r": np.float64(0.5), "s": math.inf}
        )
        (fields,) = observer.epochs
        assert (fields["train_loss"], fields["validation_loss"], fields["metrics"]) == (1.5, None, {"r": 0.5})
        json.dumps(fields, allow_nan=False)

    @pytest.mark.parametrize("bad", [np.ones(2), object(), torch.Generator()])
    def test_what_could_not_be_read_back_is_named_by_its_path(self, tmp_path: Path, bad: Any) -> None:
        with pytest.raises(CheckpointError, match=r"state\['model'\]\[1\]"):
            self.make(tmp_path).save_checkpoint({"model": [1, bad]})
        assert not (tmp_path / "checkpoint").exists()

    def test_what_a_trainer_asks_for_tells_what_it_can_do(self, tmp_path: Path) -> None:
        context = self.make(tmp_path, micro_batches=4)
        assert context.state == TaskState()
        assert context.micro_batches == 4 and context.state.can_split and not context.state.can_checkpoint
        context.checkpoint_due()
        assert context.state.can_checkpoint and not (tmp_path / "checkpoint").exists()
        context.epoch_finished(3)
        context.save_checkpoint({})
        assert context.state == TaskState(epochs=3, can_checkpoint=True, can_split=True)


class TestParameterSummary:
    def test_moments(self) -> None:
        layer = nn.Linear(1, 4, bias=False)
        with torch.no_grad():
            layer.weight.copy_(torch.tensor([[1.0], [2.0], [3.0], [6.0]]))
        summary = summarise_parameters(layer)["weight"]
        assert summary == pytest.approx({"mean": 3.0, "std": np.std([1, 2, 3, 6]), "norm": np.sqrt(50)})
        assert summarise_parameters(nn.ReLU()) == {}

    @pytest.mark.parametrize("own", [False, True])
    def test_finiteness(self, own: bool) -> None:
        class Own(nn.Sequential):
            def params_summary(self) -> dict[str, int]:
                return {"layers": len(self)}

        model = (Own if own else nn.Sequential)(nn.Linear(2, 2), nn.Linear(2, 1))
        assert all_finite(model, summarise_parameters(model))
        with torch.no_grad():
            model[1].bias[0] = math.nan
        assert not all_finite(model, summarise_parameters(model))


class TestWire:
    @settings(max_examples=60, deadline=None)
    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
            lambda inner: (
                st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(["__float__", "__items__"]), inner)
            ),
            max_leaves=12,
        )
    )
    def test_what_is_sent_arrives(self, value: Any) -> None:
        back = wire.from_wire(json.loads(json.dumps(wire.to_wire(value), allow_nan=False)))
        assert repr(back) == repr(value)

    @pytest.mark.parametrize("array", [np.arange(6.0).reshape(2, 3)[:, ::2], np.zeros((0, 2), np.int8), np.array("é")])
    def test_arrays(self, array: np.ndarray) -> None:
        back = wire.from_wire(json.loads(json.dumps(wire.to_wire({"a": array}))))["a"]
        assert back.dtype == array.dtype and back.shape == array.shape and (back == array).all()

    def test_what_cannot_be_sent_is_named(self) -> None:
        with pytest.raises(TypeError, match=r"a\.b\[0\] of type object"):
            wire.to_wire({"a": {"b": [object()]}})

    def test_a_specification(self, tmp_path: Path) -> None:
        spec = toy_spec(tmp_path, project_commit="abc")
        back = TaskSpec.from_wire(json.loads(json.dumps(spec.to_wire(), allow_nan=False)))
        assert back.additional_model_params["gain"].dtype == np.float32
        assert {**vars(back), "additional_model_params": 0} == {**vars(spec), "additional_model_params": 0}


def test_state_dicts_stay_plain() -> None:
    from synicix_core.training.saved_files import require_plain

    model = nn.Linear(2, 2)
    adam = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    adam.step()
    require_plain(OrderedDict(model=model.state_dict(), optimizer=adam.state_dict()), "state")
