"""What is scored is what the file holds, read back or known from when it was written."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from synicix_core.errors import CheckpointError
from synicix_core.training import load, nn_trainer
from synicix_core.training.load import build_model, evaluate_task, load_state
from synicix_core.training.run import run_task
from synicix_core.training.saved_files import SavedState, load_plain, save_state_dict
from tests.training.toys import Recorder, nn_spec, toy_registry

REGISTRY = toy_registry()


def test_the_weights_in_memory_are_scored_where_the_file_is_what_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = run_task(nn_spec(tmp_path), REGISTRY, Recorder())
    model = build_model(nn_spec(tmp_path), REGISTRY)
    load_state(model, nn_spec(tmp_path).model_save_path, outcome.model_sha256)
    for tier, values in outcome.metrics.items():
        assert evaluate_task(nn_spec(tmp_path), REGISTRY, model, tier) == values

    monkeypatch.setattr(load, "load_plain", lambda _: pytest.fail("the file was read"))
    assert run_task(nn_spec(tmp_path), REGISTRY, Recorder()).metrics == outcome.metrics


@pytest.mark.parametrize("how", ["cut short", "replaced", "gone"])
def test_a_file_that_is_not_what_was_written_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    def damaged(state: Any, path: str, **options: Any) -> SavedState:
        saved = save_state_dict(state, path, **options)
        if how == "gone":
            Path(path).unlink()
        elif how == "cut short":
            Path(path).write_bytes(Path(path).read_bytes()[:-100])
        else:
            save_state_dict({name: torch.zeros_like(value) for name, value in state.items()}, path)
        return saved

    monkeypatch.setattr(nn_trainer, "save_state_dict", damaged)
    spec = nn_spec(tmp_path)
    if how != "replaced":
        with pytest.raises(CheckpointError, match="left no usable model"):
            run_task(spec, REGISTRY, Recorder())
        assert not Path(spec.model_save_path).exists()
        return
    outcome = run_task(spec, REGISTRY, Recorder())
    assert not any(value.any() for value in load_plain(spec.model_save_path).values())
    model = build_model(spec, REGISTRY)
    load_state(model, spec.model_save_path, outcome.model_sha256)
    assert evaluate_task(spec, REGISTRY, model, "test") == outcome.metrics["test"]


def test_a_model_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def synced(handle: int) -> None:
        events.append(f"{Path(f'/proc/self/fd/{handle}').readlink().name} is on the disk")
        fsync(handle)

    def replaced(self: Path, target: Path) -> Path:
        events.append(f"{Path(target).name} is there")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", replaced)
    run_task(nn_spec(tmp_path), REGISTRY, Recorder())
    assert events[-3:] == [".model.partial.pt is on the disk", "model.pt is there", "models is on the disk"]
    assert events.count("models is on the disk") == 1  # and so no more than needed
