"""docs/experiment-files.md: every example is read and expanded, and makes as many tasks as the text says."""

import re
from pathlib import Path

import pytest

from synicix_core.experiment import expand, read_experiment
from synicix_core.experiment.document import KINDS
from synicix_core.experiment.fields import FIELDS
from synicix_core.experiment.sweeps import DISTRIBUTIONS
from synicix_core.tables.training_config import TrainingConfig

PAGE = (Path(__file__).parents[2] / "docs" / "experiment-files.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```toml\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
COUNTS = [(3, 1, 1, 3), (4, 3, 6, 72), (1, 1, 4, 4), (1, 40, 1, 40), (2, 2, 3, 9), (6, 40, 6, 1440)]


@pytest.mark.parametrize(("text", "counts"), list(zip(EXAMPLES, COUNTS, strict=True)))
def test_examples(tmp_path, text, counts):
    for number in (1, 2, 3):
        (tmp_path / f"recording{number}.h5").touch()
    (tmp_path / "sweep.toml").write_text(text, encoding="utf-8")
    plan = expand(read_experiment(tmp_path / "sweep.toml"), tmp_path)
    assert (len(plan.datasets), len(plan.models), len(plan.trainings), plan.task_count) == counts


def test_every_key_and_distribution_has_its_row():
    for kind in KINDS:
        table = PAGE[PAGE.index(f"| `[[{kind}]]` |") :].partition("\n\n")[0]
        listed = {key for row in table.splitlines()[2:] for key in re.findall(r"`(\w+)`", row.split("|")[1])}
        assert listed == set(FIELDS[kind])
    assert {match[1] for match in re.finditer(r"^\| `(\w+) = \[", PAGE, re.MULTILINE)} == set(DISTRIBUTIONS)


@pytest.mark.parametrize("key", ["batch_size", "epoch_limit", "seed"])
def test_defaults_are_those_of_the_table(key):
    (default,) = re.findall(rf"^\| `{key}` \| integer \| (\d+) \|", PAGE, re.MULTILINE)
    assert int(default) == TrainingConfig.defaults[key]
