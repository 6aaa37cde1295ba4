"""docs/speed.md says what the code does: what is set where, the parts of the time, what a group records."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import get_args

from synicix_core.experiment import expand, read_experiment
from synicix_core.settings import create_project, load_settings
from synicix_core.training.stacked_model import Mode
from synicix_core.training.timing import PARTS
from tests.docs.markdown_page import blocks
from tests.training.stack_toys import stack_spec, train_together

PAGE = (Path(__file__).parents[2] / "docs" / "speed.md").read_text(encoding="utf-8")
FILES = {block.file: block.text for block in blocks(PAGE) if block.file}


def table(after: str) -> dict[str, str]:
    """Return the first table after some words: the name in each row, and what is said of it."""
    rows = re.findall(
        r"^\| `([\w.]+)` \| (.+) \|$", PAGE.partition(after)[2].partition("\n\n|")[2].partition("\n\n")[0], re.M
    )
    return dict(rows)


def test_the_settings_of_the_example_are_taken(tmp_path: Path) -> None:
    create_project(tmp_path)
    (tmp_path / "synicix.toml").write_text(FILES["synicix.toml"], encoding="utf-8")
    worker = load_settings(tmp_path).worker
    shown = tomllib.loads(FILES["synicix.toml"])["worker"]
    assert shown.keys() == {"resident_share", "fuse", "devices_per_task"}
    assert {name: getattr(worker, name) for name in shown} == shown


def test_the_example_of_an_experiment_sets_the_options_of_the_trainer(tmp_path: Path) -> None:
    (tmp_path / "recording.h5").touch()
    (tmp_path / "experiment.toml").write_text(FILES["experiment.toml"], encoding="utf-8")
    plan = expand(read_experiment(tmp_path / "experiment.toml"), tmp_path)
    assert plan.task_count == 1
    [training] = tomllib.loads(FILES["experiment.toml"])["training"]
    # The trainer refuses what is none of its options.
    found = train_together([stack_spec(tmp_path, 0, training["trainer"]["params"])])
    assert found[0].provenance["compiled"] is False  # type: ignore[union-attr]  # an exception has none


def test_every_part_of_the_time_is_explained() -> None:
    assert tuple(table("divides the whole time of a task")) == PARTS


def test_what_a_result_says_of_its_group_is_explained(tmp_path: Path) -> None:
    found = train_together([stack_spec(tmp_path, number) for number in range(2)])
    told = table('`provenance["fused"]`')
    assert told.keys() - {"until_epoch"} == found[0].provenance["fused"].keys()  # type: ignore[union-attr]  # an exception has none
    assert set(re.findall(r"`(\w+)`:", told["mode"])) == set(get_args(Mode))


def test_the_word_for_a_kernel_is_not_used_for_tasks() -> None:
    prose = re.sub(r'provenance\["fused"\]|--fuse\b|^fuse = .*$', "", PAGE, flags=re.MULTILINE)
    for line in prose.splitlines():
        if re.search(r"\bfus(e|ed|ing)\b", line):
            assert "optimizer_kernel" in line, line
