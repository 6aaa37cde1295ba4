"""docs/launch.md says what is: its tables are those of the code, and its launcher for LSF is installed and used."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from synicix_launch.contract import LaunchRequest
from synicix_launch.kubernetes.options import KubernetesOptions
from synicix_launch.launchers import COMMON, choose, installed_launchers
from synicix_launch.options import declared_options
from synicix_launch.reading import CommonOptions
from synicix_launch.slurm.options import SlurmOptions

from tests.docs.markdown_page import blocks
from tests.synicix_launch.conftest import add_settings

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "launch.md").read_text()
BLOCKS = list(blocks(PAGE))


def rows(heading: str) -> dict[str, str]:
    """Return first and second cell of the tables under a heading of the second level."""
    section = PAGE.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    cells = [re.split(r" (?<!\\)\|(?: |$)", row) for row in re.findall(r"^\| (.+) \|$", section, re.MULTILINE)]
    return {first.strip("`"): rest[0] for first, *rest in cells if not first.startswith("---")}


@pytest.mark.parametrize(
    ("heading", "options"),
    [
        ("Options of every launcher", CommonOptions),
        ("Options of Slurm", SlurmOptions),
        ("Options of Kubernetes", KubernetesOptions),
    ],
)
def test_every_option_is_listed_with_its_default(heading, options):
    listed = rows(heading)
    declared = declared_options(options)
    assert [name for name in listed if name not in ("option", "flag") and not name.startswith("--")] == [
        each.name for each in declared
    ]
    for each in declared:
        if each.default not in (None, ()):
            assert listed[each.name] == f"`{str(each.default).lower()}`", each.name


def test_every_flag_of_the_command_is_listed():
    flags = {f"--{name}" for name in COMMON} - {"--as_json", "--project", "--schema", "--verbose", "--workers"}
    listed = {name.split()[0] for name in rows("Options of every launcher") if name.startswith("--")}
    assert listed == flags - {"--max_workers", "--grace"}


def test_every_field_of_the_request_is_listed():
    listed = set(rows("A launcher of your own")) - {"method", "of the request"}
    assert {name for name in listed if "(" not in name} == {field.name for field in dataclasses.fields(LaunchRequest)}


def test_the_files_that_it_names_are_there():
    paths = set(re.findall(r"deploy/[\w./-]+\w", PAGE))
    assert {"deploy/slurm/worker.sbatch", "deploy/kubernetes/base/job.yaml"} <= paths
    for path in paths:
        assert (ROOT / path).exists(), path


def test_the_steps_that_it_sends_people_to_make_what_its_job_needs():
    page = (ROOT / "docs" / "kubernetes.md").read_text()
    steps = page.split("\n## The first deployment\n", 1)[1].split("\n## ", 1)[0]
    assert [f"**{number}." in steps for number in range(1, 6)] == [True] * 5
    (made,) = re.findall(r"kubectl apply -l '(.*)' -f -", steps)
    # Everything of the base but the workers themselves.
    assert made == "app.kubernetes.io/component!=worker"


def test_the_settings_of_the_page_are_taken(lab, launch):
    (block,) = [block for block in BLOCKS if block.section == "Where options come from"]
    assert set(tomllib.loads(block.text)["plugins"]["synicix-launch"]) == {"slurm", "kubernetes"}
    add_settings(lab, block.text)
    assert "#SBATCH --account=mouse-lab\n" in launch("slurm").stdout
    assert "namespace: mouse-lab\n" in launch("kubernetes").stdout


def test_the_commands_of_the_page_are_understood(lab, launch):
    typed = [
        line.split()[1:]
        for block in BLOCKS
        if block.language == "sh" and block.section in ("Slurm", "Kubernetes")
        for line in block.text.splitlines()
        if line.startswith("synicix-run launch")
    ]
    assert len(typed) == 4
    for command, *arguments in typed:
        assert command == "launch"
        launch(*(word for word in arguments if word != "--submit"))


def test_the_messages_are_worded_as_the_page_words_them():
    source = "".join(
        path.read_text() for path in (ROOT / "plugins" / "synicix_launch" / "synicix_launch").rglob("*.py")
    )
    listed = [message for message in rows("When it says no") if message != "message"]
    assert len(listed) == 9
    for message in listed:
        words = message.replace("kubectl", "{command[0]}")
        assert message in source or words in source, message


@pytest.mark.slow
def test_the_launcher_of_the_page_is_installed_and_launches(lab, stand_in, tmp_path):
    files = [block for block in BLOCKS if block.section == "A launcher of your own" and block.file]
    assert len(files) == 4
    for block in files:
        (tmp_path / block.file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / block.file).write_text(block.text)
    packages = tmp_path / "packages"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    subprocess.run([*pip, "--target", str(packages), str(tmp_path / "my-lab")], check=True, timeout=120)

    bsub = stand_in("bsub").answers(stdout="Job <42> is submitted to queue <short>.\n")
    # As it is where LSB_BJOBS_CONSISTENT_EXIT_CODE is Y; elsewhere it ends with 0.
    bjobs = stand_in("bjobs").answers(code=255, stderr="Job <synicix> is not found\n")
    code = (
        "import sys\nfrom synicix_launch import launching\nfrom synicix_launch.database import Database\n"
        "from synicix_launch.pending import Pending\nfrom synicix_core.cli.main import main\n"
        "launching.Place.pipeline = lambda _: None\nlaunching.look = lambda _: Pending(3, 0, {})\n"
        "launching.find_database = lambda _: Database(embedded=False, host='db')\nmain()"
    )

    def run(*arguments: str, code_: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-c", code, "launch", *arguments],
            env={**os.environ, "PYTHONPATH": str(packages)},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == code_, done.stdout + done.stderr
        return done.stdout + done.stderr

    assert "lsf         An array job on LSF." in run("--help")
    assert '#BSUB -J "synicix[1-3]"\n#BSUB -q short\n' in run("lsf", "--queue", "short")
    assert "--queue: must be the name of a queue" in run("lsf", "--queue", "a b", code_=2)
    assert "Submitted: 42\n" in run("lsf", "--submit")
    assert bsub.calls[0]["stdin"].startswith("#!/bin/sh\n") and f"--project {lab} populate" in bsub.calls[0]["stdin"]
    assert run("lsf", "--diff").endswith("There is no difference.\n")
    bjobs.answers(code=0, stderr="Job <synicix> is not found\n")
    assert "Submitted: 42\n" in run("lsf", "--submit")
    bjobs.answers(stdout="42\n42\n42\n")
    said = run("lsf", "--submit", code_=2)
    assert "queued or running already, as 42. To end it, run: bkill 42." in said
    bjobs.answers(code=255, stderr="LSF is down. Please wait ...\n")
    assert "LSF is down" in run("lsf", "--submit", code_=1)
    assert len(bsub.calls) == 2
    assert "Submitted: 42\n" in run("lsf", "--submit", "--again")
    bsub.answers(code=255, stderr="short: No such queue. Job not submitted.\n")
    assert "No such queue" in run("lsf", "--submit", "--again", "--queue", "gone", code_=1)
    assert run("lsf", "--diff").endswith("There is no difference.\n"), "what was refused is not kept"


def test_the_page_is_linked_to_what_it_speaks_of():
    assert choose("slurm", installed_launchers()[0]).table == "plugins.synicix-launch.slurm"
    assert f"[{choose('kubernetes', installed_launchers()[0]).table}]" in PAGE
