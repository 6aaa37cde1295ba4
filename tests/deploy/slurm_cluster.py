"""A real Slurm of one node, started for the tests by ``.ci/slurm`` and ended with them, whatever happens to them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.deploy.needed import REQUIRED, lacking

__all__ = ["SCRIPTS", "Cluster", "Element", "cluster"]

REPOSITORY = Path(__file__).resolve().parents[2]

SCRIPTS = REPOSITORY / "deploy" / "slurm"
"""The scripts that are under test."""

_PROGRAM = REPOSITORY / ".ci" / "slurm"
_ENDED = {"BOOT_FAIL", "CANCELLED", "COMPLETED", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "TIMEOUT"}


@dataclass(frozen=True)
class Element:
    """A job, or an element of an array, as Slurm tells it.

    Attributes
    ----------
    name : str
        ``12``, or ``12_3`` in an array.
    state : str
        ``PENDING``, ``RUNNING``, ``COMPLETED`` …
    exit_code : int
        Of the script.
    restarts : int
        How often it was requeued.
    reason : str
        Why it waits.
    fields : mapping of str to str
        All else that ``scontrol show job`` says.
    """

    name: str
    state: str
    exit_code: int
    restarts: int
    reason: str
    fields: Mapping[str, str]


@dataclass(frozen=True)
class Cluster:
    """A running Slurm: ``low`` is preempted by ``high`` after a notice, ``abrupt`` without one.

    Attributes
    ----------
    home : Path
        Its directory, which holds its configuration and logs.
    cores, gpus : int
        What its node pretends to have.
    """

    home: Path
    cores: int = 8
    gpus: int = 2

    @property
    def variables(self) -> dict[str, str]:
        """The environment in which Slurm's commands talk to this cluster."""
        return {"SLURM_CONF": str(self.home / "slurm.conf")}

    def run(
        self, *command: str | Path, environment: Mapping[str, str] | None = None, folder: Path | None = None
    ) -> str:
        """Run one of Slurm's commands and return what it printed."""
        done = subprocess.run(
            [str(word) for word in command],
            env={**os.environ, **self.variables, **(environment or {})},
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    def submit(
        self,
        script: Path,
        *arguments: str,
        options: Sequence[str] = (),
        folder: Path | None = None,
        **variables: str,
    ) -> str:
        """Submit a script, from the working directory unless told otherwise, and return the number of the job."""
        # The environment that the tests run in, as a user's would be in the project; jobs wait for none.
        given = {"SYNICIX_VENV": sys.prefix, "SYNICIX_PAUSE": "0", "OMP_NUM_THREADS": "1", **variables}
        printed = self.run("sbatch", "--parsable", *options, script, *arguments, environment=given, folder=folder)
        return printed.strip().partition(";")[0]

    def occupy(self, seconds: int = 1, partition: str = "high") -> str:
        """Submit a job that wants the whole node, and return its number."""
        options = (f"--partition={partition}", "--cpus-per-task=8", "--output=/dev/null", "--job-name=occupy")
        return self.run("sbatch", "--parsable", *options, f"--wrap=sleep {seconds}", folder=self.home).strip()

    def elements(self, job: str) -> list[Element]:
        """Return the elements of a job in their order; a job that is no array has one."""
        found = []
        for line in self.run("scontrol", "--oneliner", "show", "job", job).splitlines():
            fields = dict(re.findall(r"(\S+?)=(\S*)", line))
            array = fields.get("ArrayTaskId")
            name = f"{fields['ArrayJobId']}_{array}" if array else fields["JobId"]
            code, _, number = fields["ExitCode"].partition(":")
            found.append(
                Element(
                    name,
                    fields["JobState"],
                    int(code) or (128 + int(number) if int(number) else 0),
                    int(fields["Restarts"]),
                    fields["Reason"],
                    fields,
                )
            )
        return sorted(found, key=lambda element: (len(element.name), element.name))

    def states(self, job: str) -> list[str]:
        """Return the states of a job's elements."""
        return [element.state for element in self.elements(job)]

    def wait(self, job: str, timeout: float = 120.0) -> list[Element]:
        """Wait until no element of a job waits or runs any more, and return them."""
        self.wait_until(lambda: set(self.states(job)) <= _ENDED, timeout, job)
        return self.elements(job)

    def wait_until(self, condition: Callable[[], bool], timeout: float = 120.0, job: str = "") -> None:
        """Wait until a condition holds; if it does not, show what Slurm knows of a job and what it printed."""
        deadline = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > deadline:
                shown = self.run("scontrol", "show", "job", job) if job else self.run("squeue")
                raise AssertionError(f"waited in vain\n{shown}\n{self.log(job) if job else ''}")
            time.sleep(0.2)

    def log(self, job: str) -> str:
        """Return what all elements of a job have printed."""
        files = dict.fromkeys(element.fields.get("StdOut", "") for element in self.elements(job))
        return "".join(Path(name).read_text(errors="replace") for name in files if Path(name).is_file())

    def clear(self) -> None:
        """Cancel and kill whatever is there, and wait until it is gone."""
        for line in self.run("squeue", "--noheader", "--format=%i").split():
            subprocess.run(["scancel", line], env={**os.environ, **self.variables}, capture_output=True, timeout=60)
            kill = ["scancel", "--signal=KILL", "--full", line]
            subprocess.run(kill, env={**os.environ, **self.variables}, capture_output=True, timeout=60)
        self.wait_until(lambda: not self.run("squeue", "--noheader").strip())


_HOME = pytest.StashKey[Path]()


@pytest.fixture(name="cluster")  # whatever name a test module imports it by
def cluster(pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """The Slurm of this run, started for the first test that asks, without jobs, and with its commands at hand."""
    if _HOME not in pytestconfig.stash:
        # One fixture and not two, one of them of the session, so that a test module need import one name only.
        pytestconfig.stash[_HOME] = home = _start()
        pytestconfig.add_cleanup(lambda: _stop(home))
    made = Cluster(pytestconfig.stash[_HOME])
    for name in os.environ:
        # Of a job in which the tests themselves may run.
        if name.startswith(("SLURM_", "SBATCH_", "CUDA_")):
            monkeypatch.delenv(name)
    for name, value in made.variables.items():
        monkeypatch.setenv(name, value)
    made.clear()
    yield made
    made.clear()


def _start() -> Path:
    missing = [name for name in ("munged", "slurmctld", "slurmd", "sbatch") if not _found(name)]
    # Where the tests have to run, root may install what is missing.
    if missing and not (os.geteuid() == 0 and os.environ.get(REQUIRED) == "1"):
        lacking(f"{', '.join(missing)} not on PATH; the packages are slurm-wlm and munge")
    # Short, because of the socket in it, and not in pytest's own folder, which other users may not enter.
    home = Path(tempfile.mkdtemp(prefix="synicix-slurm-"))
    # It ends with this process, too, if that is killed.
    started = subprocess.run([_PROGRAM, "start", home, str(os.getpid())], capture_output=True, text=True, timeout=600)
    if started.returncode:
        _stop(home)
        pytest.fail(started.stderr, pytrace=False)
    return home


def _stop(home: Path) -> None:
    subprocess.run([_PROGRAM, "stop", home], check=True, timeout=120)


def _found(name: str) -> bool:
    # A user's PATH need not have the daemons' directories.
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])) is not None
