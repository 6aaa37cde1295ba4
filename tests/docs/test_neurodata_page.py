"""docs/neurodata.md names what the plugin provides with its parameters, and what it tells people to type works."""

from __future__ import annotations

import inspect
import re
import tomllib
import uuid
from pathlib import Path

import pytest
from synicix_neurodata.dataset import NeuroDataDataset
from synicix_neurodata.layouts import LAYOUTS
from synicix_neurodata.usable import MODES

from synicix_core.parameters import check_params
from synicix_core.registry import Registry
from tests.docs.markdown_page import Reader, blocks
from tests.third_party.fresh_environment import temporary_folder

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "neurodata.md").read_text(encoding="utf-8")
RECORDINGS = (DOCS / "recordings.md").read_text(encoding="utf-8")
BLOCKS = list(blocks(PAGE)) + list(blocks(RECORDINGS))
SMALL = "--recordings 1 --neurons 5 --images 60 --test-images 5"
KINDS = ("dataset", "model", "criterion", "metric", "sampler")


def quoted(text: str) -> set[str]:
    return set(re.findall(r"`([^`]+)`", text))


def first_cells(section: str) -> set[str]:
    text = PAGE.split(f"\n## {section}\n", 1)[1].split("\n## ", 1)[0]
    return set().union(*(quoted(line.split("|")[1]) for line in text.splitlines() if line.startswith("| `")))


def test_everything_that_the_plugin_provides_is_named_at_the_top() -> None:
    registry = Registry.discover()
    provided = {
        found.name for kind in KINDS for found in registry.providers(kind) if found.distribution == "synicix-neurodata"
    }
    named = quoted(PAGE.split("\n## ", 1)[0])
    assert provided <= named | {name for entry in named for name in entry.split(", ")}


def test_every_parameter_of_the_dataset_has_its_row() -> None:
    parameters = inspect.signature(NeuroDataDataset).parameters
    assert first_cells("Parameters of NeuroDataDataset") - {"true", "false"} == set(parameters) - {"path", "tier"}


def test_every_mode_and_every_layout_is_described() -> None:
    assert first_cells("Modes") - {"mode"} == set(MODES)
    text = (PAGE + RECORDINGS).lower()
    assert [layout.name for layout in LAYOUTS if layout.name.lower().removesuffix(" hdf5") not in text] == []
    for layout in LAYOUTS:
        assert {option for option in layout.options if f"`{option}" not in RECORDINGS} == set(), layout.name


def test_every_table_of_toml_names_parameters_that_there_are() -> None:
    registry = Registry.discover()
    checked = 0
    for block in BLOCKS:
        if block.language != "toml":
            continue
        found = tomllib.loads(block.text)
        for kind in ("dataset", "model"):
            for row in found.get(kind, []):
                provider = registry.resolve(kind, row["provider"])
                assert check_params(provider, row.get("params", {})).mistakes == (), row
                grid = {name.removeprefix("params."): values for name, values in row.get("grid", {}).items()}
                for name, values in grid.items():
                    assert all(check_params(provider, {name: value}).mistakes == () for value in values)
                checked += 1
        for row in found.get("training", []):
            for metric in row.get("metrics", []):
                name, params = (metric, {}) if isinstance(metric, str) else (metric["provider"], metric["params"])
                assert check_params(registry.resolve("metric", name), params).mistakes == ()
                checked += 1
        if "params" in found:
            assert check_params(registry.resolve("dataset", "NeuroDataDataset"), found["params"]).mistakes == ()
            checked += 1
    assert checked >= 10


@pytest.mark.database
@pytest.mark.slow
def test_from_nothing_to_a_score(server: dict[str, str]) -> None:
    """The first section, typed as it stands but for smaller numbers."""
    with temporary_folder() as home:
        variables = {**server, "SYNICIX_SCHEMA_NAME": f"page_{uuid.uuid4().hex[:12]}"}
        reader = Reader(home, variables=variables)
        for block in BLOCKS:
            if block.section != "From nothing to a score":
                continue
            if block.file:
                reader.write(block)
                file = reader.folder / block.file
                file.write_text(file.read_text().replace("epoch_limit = 60", "epoch_limit = 2"))
            else:
                reader.shell(block.text.replace("--recordings 3", SMALL))
    for model in ("SimpleMLP", "LinearNonlinear", "ConvolutionalEncoder"):
        assert model in reader.output
    assert "of ceiling" in reader.output
