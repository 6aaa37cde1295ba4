"""`launch slurm --submit` on a real Slurm of one node: every pending task has its result."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from synicix_launch.slurm.script import option_of

from tests.deploy.slurm_cluster import cluster  # noqa: F401 -- pytest finds the fixture by its name

pytestmark = [pytest.mark.database, pytest.mark.slow]

# The node pretends to have GPUs, this machine has none.
FLAGS = ("--here", "--gpus", "0", "--cpus", "1", "--memory", "100M")


@pytest.fixture(autouse=True)
def password(project, server, monkeypatch):
    """The database's password in DJ_PASS, which no job gets, and in the file that jobs read."""
    # The embedded PostgreSQL takes any.
    word = server["DJ_PASS"] or "trusted"
    (project / "datajoint.json").write_text("{}")
    (project / ".secrets").mkdir(exist_ok=True)
    (project / ".secrets" / "database.password").write_text(word)
    monkeypatch.setenv("DJ_PASS", word)
    monkeypatch.delenv("DJ_IGNORE_CONFIG_FILE")


def as_program(*arguments: str, code: int = 0) -> str:
    command = [sys.executable, "-m", "synicix_core.cli", "launch", "slurm", *FLAGS, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_every_pending_task_has_a_result(tasks, pipeline, cluster, project):  # noqa: F811 - the fixture
    # What a shell, and Slurm's parser, would take apart.
    place = project.with_name("it's my $HOME")
    place.symlink_to(project)
    began = time.monotonic()
    said = json.loads(as_program("--submit", "--json", "--project", str(place)))
    submitted = time.monotonic()
    job = said["submitted"]["job"]
    assert said["workers"] == 3
    cluster.wait_until(lambda: "RUNNING" in cluster.states(job) or "COMPLETED" in cluster.states(job), job=job)
    running = time.monotonic()
    cluster.wait_until(lambda: len(pipeline.TrainingResult()) > 0, job=job)
    first = time.monotonic()
    ended = cluster.wait(job)
    assert [(element.state, element.exit_code) for element in ended] == [("COMPLETED", 0)] * 3, cluster.log(job)
    assert len(pipeline.TrainingResult & [{"training_task_md5_hash": task} for task in tasks]) == 3
    assert sorted(path.suffix for path in (project / "logs").iterdir()) == [".log"] * 3
    log = Path(shlex.split(said["submitted"]["follow"][1][1])[-1])
    assert "nothing is pending" in log.read_text()
    assert "DJ_PASS is set" not in cluster.log(job)
    print(
        f"launch slurm --submit {submitted - began:.2f} s, until it runs {running - submitted:.2f} s, "
        f"until the first result {first - running:.2f} s, in all {first - began:.2f} s"
    )
    again = as_program("--submit")
    assert "Nothing is pending" in again


def test_what_is_queued_is_not_submitted_twice_and_a_refusal_is_passed_on(tasks, cluster: Any):  # noqa: F811 - the fixture
    cluster.run("scontrol", "update", "PartitionName=low", "State=DOWN")
    try:
        job = json.loads(as_program("--submit", "--json"))["submitted"]["job"]
        assert cluster.states(job) == ["PENDING"]
        assert f"as job {job}:" in as_program("--submit", "--workers", "9", code=2)
        assert json.loads(as_program("--submit", "--json", "--again"))["submitted"]["job"] != job
        assert "invalid partition" in as_program("--submit", "--partition", "nowhere", code=1)
    finally:
        cluster.clear()
        cluster.run("scontrol", "update", "PartitionName=low", "State=UP")


def test_an_array_is_named_by_the_number_that_ends_all_of_it(tasks, cluster: Any):  # noqa: F811 - the fixture
    script = json.loads(as_program("--json"))["files"]["synicix.sbatch"]
    name = f"--job-name={option_of(script, 'job-name')}"
    # Elements that have begun have numbers of their own, beside that of their array.
    flags = ("--array=0-2", "--mem=100M", "--output=/dev/null", name, "--wrap=sleep 600")
    job = cluster.run("sbatch", "--parsable", *flags).strip()
    cluster.wait_until(lambda: cluster.states(job) == ["RUNNING"] * 3, job=job)
    assert len({element.fields["JobId"] for element in cluster.elements(job)}) == 3
    said = as_program("--submit", code=2)
    assert f"as job {job}:" in said
    cluster.run(*re.search(r"run: (scancel \d+)\.", said)[1].split())  # type: ignore[index]  # asserted by failing
    cluster.wait(job)
    assert "Submitted: " in as_program("--submit")
