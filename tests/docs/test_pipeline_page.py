"""docs/pipeline.md names the tables and columns that there are, and its examples print what it shows."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from docs.draw_tables import PICTURE, Table, draw, parse, read_tables
from synicix_core import Pipeline
from synicix_core.tables.schema import bind
from synicix_core.tables.training_result import TrainingResult
from tests.docs.markdown_page import Reader, blocks, shows
from tests.third_party.fresh_environment import temporary_folder

PAGE = (Path(__file__).parents[2] / "docs" / "pipeline.md").read_text(encoding="utf-8")
TABLES = read_tables()


def rows_below(heading: str) -> dict[str, list[str]]:
    """Return the rows of the first table below a heading: what stands in backticks in the first cell, to the others."""
    text = PAGE.split(f"\n{heading}\n", 1)[1].split("\n## ", 1)[0]
    table = re.search(r"(?:^\|.*\|\n)+", text, re.MULTILINE)
    assert table is not None
    cells = [[cell.strip() for cell in line[1:-1].split("|")] for line in table[0].splitlines()]
    return {row[0].strip("`"): row[1:] for row in cells[2:]}


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_every_column_has_its_row_with_its_type(table: Table) -> None:
    listed = {name: cells[0].strip("`") for name, cells in rows_below(f"### {table.name}").items()}
    assert listed == {column.name: column.type for column in table.columns}
    assert list(listed) == [column.name for column in table.columns]


def test_no_two_tables_share_a_column_that_is_no_key() -> None:
    keys = {column.name for table in TABLES for column in table.columns if column.primary}
    others = [column.name for table in TABLES for column in table.columns if column.name not in keys]
    assert sorted(others) == sorted(set(others)), "so that all of them can be joined"


@pytest.mark.parametrize("name", ["DatasetConfig", "ModelConfig", "TrainingConfig", "TrainingTask"])
def test_what_is_given_computed_and_default_is_said(name: str) -> None:
    from synicix_core.tables import schema

    mixin = getattr(schema, name)
    for column, (_, how, *_) in rows_below(f"### {name}").items():
        if column in mixin.required:
            assert how == "given", column
        elif column not in mixin.defaults:
            assert how == "computed", column
        elif mixin.defaults[column] is not None:
            shown = re.fullmatch(r"default `(.*)`", how)
            assert shown is not None, column
            assert shown[1].replace('"', "'") in (repr(mixin.defaults[column]), mixin.defaults[column]), column


def test_the_arguments_are_those_of_the_code() -> None:
    assert list(rows_below("### A pipeline")) == list(inspect.signature(Pipeline).parameters)
    listed = rows_below("### Train")
    parameters = inspect.signature(TrainingResult.populate).parameters
    assert set(listed) == {"*restrictions" if name == "restrictions" else name for name in parameters} - {"self"}
    for name, (default, *_) in listed.items():
        if default:
            assert default.strip("`").replace('"', "'") == repr(parameters[name].default), name


def test_the_status_and_state_of_the_columns_are_all_named() -> None:
    for table, column, mixin in (
        ("TrainingResult", "status", "TrainingResult"),
        ("TrainingAttempt", "state", "TrainingAttempt"),
    ):
        from synicix_core.tables import schema

        declared = re.search(rf"{column}\s*:\s*enum\((.*?)\)", getattr(schema, mixin).definition)
        assert declared is not None
        text = rows_below(f"### {table}")[column][1]
        assert set(re.findall(r"'(\w+)'", declared[1])) == set(re.findall(r"`(\w+)`", text))


@pytest.mark.database
@pytest.mark.slow
def test_the_examples_print_what_is_shown(project: Path) -> None:
    with temporary_folder() as home:
        reader = Reader(home)
        told = list(blocks(PAGE))
        [shell] = [block for block in told if block.language == "sh"]
        reader.shell(shell.text)
        # One script, as in a notebook: a line of its own tells where the output of each block begins.
        mark = "-- the next block --"
        script = [block.text for block in told if block.language == "python"]
        reader.python("\n".join(f"print({mark!r})\n{text}" for text in script))
        printed = reader.output.split(f"{mark}\n")[1:]
        ran = -1
        for block in told:
            if block.language == "python":
                ran += 1
            elif block.language == "text":
                assert shows(printed[ran], block.text), f"shown:\n{block.text}\nprinted:\n{printed[ran]}"
        assert ran + 1 == len(printed) == len(script) > 5


def test_the_picture_is_what_the_code_draws() -> None:
    assert PICTURE.read_text(encoding="utf-8") == draw(TABLES), "run: make docs"


def test_the_picture_shows_every_column_and_foreign_key() -> None:
    picture = PICTURE.read_text(encoding="utf-8")
    for table in TABLES:
        assert f">{table.name}<" in picture
        for column in table.columns:
            assert f">{column.name}<" in picture
    assert picture.count('fill="none" stroke="#8590a0" stroke-width="1.8"/>') == sum(
        bool(column.parent) for table in TABLES for column in table.columns
    )


@pytest.mark.database
def test_the_picture_shows_what_is_declared(pipeline: Pipeline) -> None:
    declared = bind(pipeline.connection, pipeline.schema_name, services=None)
    for table in TABLES:
        heading = getattr(declared, table.name)().heading
        assert [column.name for column in table.columns] == list(heading.names)
        assert [column.name for column in table.columns if column.primary] == list(heading.primary_key)
        assert {column.name for column in table.columns if column.type.endswith("?")} == {
            name for name in heading.names if heading[name].nullable
        }


def test_a_line_that_is_not_understood_is_an_error() -> None:
    assert parse("A", "# words\n key : int32\n ---\n value : json", {}).columns[1].name == "value"
    with pytest.raises(ValueError, match="A: this line"):
        parse("A", "what is this", {})
