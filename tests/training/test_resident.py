"""A tier on the device gives the numbers of the DataLoader, bit for bit, and is kept where that is safe."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from synicix_core.errors import DatasetError
from synicix_core.training import tiers
from synicix_core.training.contract import TrainingInterrupted
from synicix_core.training.resident import ResidentTier, make_resident
from synicix_core.training.run import run_task
from synicix_core.training.spec import Component, TaskOutcome, TaskSpec
from tests.training.resident_toys import Held, Lying, Named, Unheld, built, resident_registry
from tests.training.toys import Recorder, nn_spec

REGISTRY = resident_registry()
CPU = torch.device("cpu")
HELD = Component("dataset", "toys/Held")
UNHELD = Component("dataset", "toys/Unheld")
PLENTY = 1 << 30


@pytest.fixture(autouse=True)
def _nothing_held() -> Iterator[None]:
    tiers.forget_tiers()
    built.clear()
    yield
    tiers.forget_tiers()


def run(spec: TaskSpec, observer: Recorder | None = None) -> TaskOutcome:
    return run_task(spec, REGISTRY, observer or Recorder())


def numbers(outcome: TaskOutcome) -> dict[str, Any]:
    """Everything that must be equal, the digest of the weights file included."""
    wire = outcome.to_wire()
    for name in ("train_seconds", "provenance", "notes"):
        wire.pop(name)
    return wire


def both(tmp_path: Path, **changes: Any) -> tuple[TaskOutcome, TaskOutcome]:
    params = changes.pop("params", {})
    sizes = changes.pop("sizes", None)
    data = {"sizes": sizes} if sizes else {}
    held = dataclasses.replace(HELD, params=data)
    unheld = dataclasses.replace(UNHELD, params=data)
    return (
        run(nn_spec(tmp_path / "held", params, dataset=held, **changes)),
        run(nn_spec(tmp_path / "unheld", params, dataset=unheld, **changes)),
    )


@pytest.mark.parametrize("train", [48, 40, 10, 7, 1])
def test_weights_histories_and_scores_are_those_of_the_loader(tmp_path: Path, train: int) -> None:
    held, unheld = both(tmp_path, sizes={"train": train})
    assert held.provenance["resident"] and not unheld.provenance["resident"]
    assert numbers(held) == numbers(unheld)


@pytest.mark.parametrize("sampler", ["Backwards", "Lazy", "Weighted", "Replaced", "Negative", "Pairs", "Dropping"])
def test_so_they_are_with_a_sampler_of_a_plugin(tmp_path: Path, sampler: str) -> None:
    chosen = Component("sampler", f"toys/{sampler}")
    held, unheld = both(tmp_path, samplers={"train": chosen, "validation": None, "test": chosen})
    assert held.provenance["resident"]
    assert numbers(held) == numbers(unheld)


@pytest.mark.parametrize("option", [{"accumulate_batches": 3}, {"ema_decay": 0.9}, {"early_stopping_patience": 1}])
def test_so_they_are_with_options_of_the_trainer(tmp_path: Path, option: dict[str, Any]) -> None:
    held, unheld = both(tmp_path, params=option, epoch_limit=6)
    assert numbers(held) == numbers(unheld)


@pytest.mark.parametrize(("first", "second"), [(0.25, 0.0), (0.0, 0.25)])
@pytest.mark.parametrize("stop_at", [1, 4, 6, 9])
def test_one_goes_on_from_the_checkpoint_of_the_other(
    tmp_path: Path, first: float, second: float, stop_at: int
) -> None:
    whole = run(nn_spec(tmp_path / "whole", dataset=HELD))
    begun = nn_spec(tmp_path / "parts", dataset=HELD, resident_share=first)
    with pytest.raises(TrainingInterrupted):
        run(begun, Recorder(stop_at=stop_at))
    gone_on = run(dataclasses.replace(begun, resident_share=second))
    assert gone_on.provenance["resumed_from_epoch"] is not None
    assert gone_on.provenance["resident"] == (second > 0)
    assert numbers(gone_on) == numbers(whole)


def test_inputs_by_name_and_whole_numbers_are_gathered_like_the_items(tmp_path: Path) -> None:
    made = make_resident(Named("", "test"), CPU, PLENTY)
    assert made is not None
    inputs, targets = made.take(torch.tensor([3, 0]))
    expected = torch.utils.data.default_collate([Named("", "test")[3], Named("", "test")[0]])
    assert torch.equal(inputs["left"], expected[0]["left"]) and torch.equal(targets, expected[1])
    assert torch.equal(inputs["right"][0], expected[0]["right"][0])


def test_inputs_by_name_are_trained_on(tmp_path: Path) -> None:
    outcome = run(
        nn_spec(
            tmp_path,
            dataset=Component("dataset", "toys/Named"),
            model=Component("model", "toys/NamedNet"),
            criterion=Component("criterion", "synicix-core/CrossEntropyLoss"),
            metrics=(Component("metric", "synicix-core/accuracy"),),
        )
    )
    assert outcome.provenance["resident"] and outcome.status == "completed"


@pytest.mark.parametrize(
    ("lie", "told"),
    [
        ("dtype", "first or last example"),
        ("shape", "first or last example"),
        ("axes", "first or last example"),
        ("first", "first or last example"),
        ("last", "first or last example"),
        ("length", r"length \[47\].*48 examples"),
        ("uneven", r"length \[48, 96\].*48 examples"),
        ("no axis", r"length \[0, 48\].*48 examples"),
        ("no pair", "a Tensor, not"),
        ("three", "a tuple, not"),
        ("nesting", "first or last example"),
    ],
)
def test_tensors_that_are_not_the_items_are_refused(lie: str, told: str) -> None:
    with pytest.raises(DatasetError, match=rf"Lying.*{told}.*default_collate"):
        make_resident(Lying("", "train", lie=lie), CPU, PLENTY)


def test_a_number_that_is_none_equals_itself() -> None:
    dataset = Held("", "train")
    dataset.y[0] = float("nan")
    assert make_resident(dataset, CPU, PLENTY) is not None


def test_a_budget_of_nothing_leaves_the_dataset_where_it_is(tmp_path: Path) -> None:
    outcome = run(nn_spec(tmp_path, dataset=HELD, resident_share=0.0))
    assert not outcome.provenance["resident"]


def test_a_tier_larger_than_the_budget_stays_where_it_is_and_is_not_read_whole() -> None:
    dataset = Held("", "train")
    nbytes = 48 * (6 + 3) * 4
    dataset.tensors = lambda: pytest.fail("read whole")  # type: ignore[method-assign]
    assert make_resident(dataset, CPU, nbytes - 1) is None
    assert make_resident(Held("", "train"), CPU, nbytes) is not None


def test_all_tiers_are_resident_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train = 48 * (6 + 3) * 4
    monkeypatch.setattr(tiers, "free_bytes", lambda _: 4 * (train + 100))
    outcome = run(nn_spec(tmp_path, dataset=HELD))
    assert not outcome.provenance["resident"]


def test_an_empty_tier_or_one_without_tensors_is_not_resident() -> None:
    assert make_resident(Held("", "test", sizes={"test": 0}), CPU, PLENTY) is None
    assert make_resident(Unheld("", "test"), CPU, PLENTY) is None


def test_a_model_that_changes_its_input_harms_nobody(tmp_path: Path) -> None:
    scribbling = Component("model", "toys/Scribbling")
    held, unheld = both(tmp_path, model=scribbling, batch_size=48)
    assert numbers(held) == numbers(unheld)


def kept(tmp_path: Path, name: str, **changes: Any) -> TaskSpec:
    (tmp_path / name).mkdir(exist_ok=True)
    spec = nn_spec(tmp_path / name, dataset=HELD)
    return dataclasses.replace(spec, **({"dataset_path": "data", "dataset_sha256": "a" * 64} | changes))


def test_the_next_task_of_the_same_file_builds_no_dataset(tmp_path: Path) -> None:
    first = run(kept(tmp_path, "first"))
    assert built == {"train": 1, "validation": 1, "test": 1}
    second = run(kept(tmp_path, "second"))
    assert built == {"train": 1, "validation": 1, "test": 1}
    assert numbers(first) == numbers(second)


@pytest.mark.parametrize(
    "change",
    [
        {"dataset_sha256": "b" * 64},
        {"dataset_path": "elsewhere"},
        {"dataset": Component("dataset", "toys/Held", {"sizes": {"train": 30}})},
        {"dataset_sha256": ""},
    ],
)
def test_another_file_or_other_parameters_build_it_again(tmp_path: Path, change: dict[str, Any]) -> None:
    run(kept(tmp_path, "first"))
    run(kept(tmp_path, "second", **change))
    assert built["train"] == 2


def test_a_file_whose_digest_nobody_knows_is_not_kept(tmp_path: Path) -> None:
    for name in ("first", "second"):
        run(kept(tmp_path, name, dataset_sha256=""))
    assert built["train"] == 2


def test_the_notes_of_a_kept_dataset_are_told_again(tmp_path: Path) -> None:
    for name in ("first", "second"):
        assert "data: held in memory" in run(kept(tmp_path, name)).notes


def test_what_was_used_longest_ago_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    of_one = (48 + 20 + 21) * (6 + 3) * 4
    # What is held counts as free, because it can go.
    monkeypatch.setattr(tiers, "free_bytes", lambda _: int(2.5 * of_one) - sum(t.nbytes for t in tiers._held.values()))
    for sha256 in ("a", "b", "a", "c"):  # for c, b has to leave
        run(kept(tmp_path, sha256, dataset_sha256=64 * sha256, resident_share=1.0))
    assert built["train"] == 3
    run(kept(tmp_path, "a", dataset_sha256=64 * "a", resident_share=1.0))
    assert built["train"] == 3
    run(kept(tmp_path, "b", dataset_sha256=64 * "b", resident_share=1.0))
    assert built["train"] == 4


def test_short_memory_lets_go_of_all(tmp_path: Path) -> None:
    run(kept(tmp_path, "first"))
    tight = Component("model", "toys/Tight")
    with pytest.raises(torch.OutOfMemoryError):
        run(dataclasses.replace(kept(tmp_path, "second"), model=tight))
    run(kept(tmp_path, "third"))
    assert built["train"] == 2


def test_a_batch_is_new_memory() -> None:
    tier = ResidentTier(torch.zeros(4, 2), torch.zeros(4), 4, CPU)
    inputs, targets = tier.take(torch.arange(4))
    inputs.add_(1)
    targets.add_(1)
    assert not tier.inputs.any() and not tier.targets.any()
