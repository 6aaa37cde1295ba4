"""What a group's time was spent on is told for each of its tasks."""

from __future__ import annotations

from pathlib import Path

import pytest

from synicix_core.training.spec import TaskOutcome
from tests.training.stack_toys import stack_spec, train_together


def test_each_has_its_share_of_every_part(tmp_path: Path) -> None:
    found = train_together([stack_spec(tmp_path, number) for number in range(4)])
    timings = [item.provenance["timing"] for item in found if isinstance(item, TaskOutcome)]
    assert len(timings) == 4
    for timing in timings:
        assert timing["seconds"].keys() >= {"data", "forward", "backward", "optimizer", "evaluation", "checkpoint"}
        assert timing["steps"] == 21 and timing["samples"] == 150
        assert timing["seconds"]["forward"] == pytest.approx(timings[0]["seconds"]["forward"])
