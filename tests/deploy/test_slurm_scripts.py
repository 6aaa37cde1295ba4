"""What the Slurm scripts do with each exit code, with GPUs, modules and images; jobs are real, workers and images stand-ins."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.deploy import needed
from tests.deploy.slurm_cluster import SCRIPTS, Cluster, Element
from tests.deploy.slurm_cluster import cluster as _cluster  # noqa: F401 -- pytest finds the fixture in this module

WORKER, NODE = SCRIPTS / "worker.sbatch", SCRIPTS / "node.sbatch"
EACH = pytest.mark.parametrize("script", [WORKER, NODE], ids=lambda path: path.stem)


@dataclass(frozen=True)
class Stand:
    """A project with a stand-in for synicix-run, which says what it was given and ends as it is told."""

    cluster: Cluster
    folder: Path

    @property
    def venv(self) -> Path:
        return self.folder / "venv"

    def ends(self, *codes: int) -> None:
        """Set how it ends each time that it is started; the last one holds for good."""
        (self.folder / "codes").write_text("".join(f"{code}\n" for code in codes))

    def program(self, name: str, lines: str) -> None:
        """Make a program that is on the PATH of the jobs."""
        file = self.venv / "bin" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"#!/bin/bash\n{lines}")
        file.chmod(0o755)

    def submit(self, *arguments: str, script: Path = WORKER, options: tuple[str, ...] = (), **variables: str) -> str:
        given = {"SYNICIX_VENV": str(self.venv), "PATH": f"{self.venv}/bin:{os.environ['PATH']}", **variables}
        options = ("--array=0", "--cpus-per-task=2", "--mem=0", "--gres=none", *options)
        return self.cluster.submit(script, *arguments, options=options, folder=self.folder, **given)

    def run(self, *arguments: str, **given) -> Element:
        """Submit a job of one element and wait for its end."""
        (element,) = self.cluster.wait(self.submit(*arguments, **given))
        return element

    @property
    def starts(self) -> list[dict[str, str]]:
        """The environment of each start, and the arguments as ``arguments``."""
        file = self.folder / "starts"
        if not file.exists():
            return []
        return [dict(re.findall(r"^(\w+)=(.*)$", part, re.M)) for part in file.read_text().split("--\n")[:-1]]


@pytest.fixture
def stand(cluster: Cluster) -> Iterator[Stand]:
    # Not pytest's own folder, which other users may not enter.
    made = Stand(cluster, Path(tempfile.mkdtemp(prefix="synicix-stand-")))
    made.folder.chmod(0o777)
    (made.folder / "synicix.toml").touch()
    made.program(
        "synicix-run",
        f"""cd '{made.folder}'
exec 9>>starts
flock 9 # several of them may start at once
{{ echo "arguments=$*"; echo "where=$OLDPWD"; env; echo --; }} >>starts
code=$(sed -n "$(grep -c ^--$ starts)p" codes)
exit "${{code:-$(tail -n 1 codes)}}"
""",
    )
    made.ends(0)
    yield made
    made.cluster.clear()
    shutil.rmtree(made.folder)


@pytest.mark.parametrize("script", [WORKER, NODE, SCRIPTS.parents[1] / ".ci" / "slurm"], ids=lambda path: path.name)
def test_a_script_is_correct_shell(script, monkeypatch):
    monkeypatch.setenv("PATH", f"{sys.prefix}/bin:{os.environ['PATH']}")
    for command in (["bash", "-n"], [needed.program("shellcheck")]):
        checked = subprocess.run([*command, script], capture_output=True, text=True)
        assert checked.returncode == 0, checked.stdout + checked.stderr


@EACH
def test_options_and_variables_have_the_form_that_launch_replaces(script):
    text = script.read_text()
    options = re.findall(r"^#SBATCH (.*)$", text, re.M)
    assert all(re.fullmatch(r"--[a-z-]+(=\S+)?", option) for option in options)
    names = [option.partition("=")[0] for option in options]
    assert len(set(names)) == len(names)
    assert {"--array", "--requeue", "--signal", "--open-mode", "--output", "--time", "--gres"} <= set(names)
    assert "--open-mode=append" in options
    # Options end where the first command stands: after it Slurm reads none.
    assert text.rindex("#SBATCH") < text.index("\n: ")
    variables = re.findall(r"^: .*$", text, re.M)
    assert len(variables) > 5
    assert all(re.fullmatch(r': "\$\{SYNICIX_[A-Z_]+:=.*\}"', line) for line in variables)


@EACH
def test_the_notice_leaves_a_worker_its_grace_and_half_a_minute(script):
    from synicix_core.settings import WorkerSettings

    (seconds,) = re.findall(r"^#SBATCH --signal=TERM@(\d+)$", script.read_text(), re.M)
    assert int(seconds) >= WorkerSettings().grace_seconds + 30


def test_both_scripts_do_the_same():
    def body(script: Path) -> str:
        return re.sub(r"^(#.*|: \"\$\{SYNICIX_WORKERS_PER_DEVICE:=1?\}\")\n", "", script.read_text(), flags=re.M)

    assert body(WORKER) == body(NODE)


def test_a_worker_that_has_nothing_left_completes(stand):
    ended = stand.run()
    assert (ended.state, ended.exit_code) == ("COMPLETED", 0)
    (start,) = stand.starts
    assert start["arguments"] == "populate --device=cpu"
    assert start["where"] == str(stand.folder)
    assert start["SLURM_CPUS_PER_TASK"] == start["SYNICIX_WORKER_THREADS"] == "2"
    assert start["PYTHONUNBUFFERED"] == "1"


def test_an_interrupted_worker_is_requeued_and_only_it(stand):
    stand.ends(75, 0)
    ended = stand.cluster.wait(stand.submit(options=("--array=3,5", "--cpus-per-task=8")))
    assert [(each.state, each.restarts) for each in ended] == [("COMPLETED", 1), ("COMPLETED", 0)]


@pytest.mark.parametrize("code", [130, 143])
def test_a_worker_that_was_ended_at_once_is_requeued_too(stand, code):
    stand.ends(code, 0)
    assert stand.run().restarts == 1


def test_a_user_who_is_nobody_can_requeue_a_job(stand, monkeypatch):
    if os.geteuid() != 0:
        pytest.skip("only root can submit as somebody else; the other tests ran as this user")
    stand.ends(75, 0)
    script = shutil.copy(WORKER, stand.folder)
    submit = ("runuser", "-u", "nobody", "--", "sbatch", "--parsable", "--array=0", "--gres=none", "--mem=0")
    variables = {"SYNICIX_VENV": str(stand.venv)}
    job = stand.cluster.run(*submit, script, environment=variables, folder=stand.folder).strip()
    (ended,) = stand.cluster.wait(job)
    assert (ended.state, ended.restarts) == ("COMPLETED", 1), stand.cluster.log(job)
    assert ended.fields["UserId"].startswith("nobody")


def test_a_job_that_may_not_be_requeued_says_so(stand):
    stand.ends(75)
    job = stand.submit(options=("--no-requeue",))
    (ended,) = stand.cluster.wait(job)
    assert (ended.state, ended.exit_code, ended.restarts) == ("FAILED", 75, 0)
    assert "Slurm does not take it back; submit again" in stand.cluster.log(job)


def test_an_interrupted_worker_is_requeued_so_often_and_no_more(stand):
    stand.ends(75)
    job = stand.submit(SYNICIX_REQUEUES="1")
    (ended,) = stand.cluster.wait(job)
    assert (ended.state, ended.exit_code, ended.restarts) == ("FAILED", 75, 1)
    assert len(stand.starts) == 2
    assert "requeued as often as it may (SYNICIX_REQUEUES=1); submit again" in stand.cluster.log(job)


@pytest.mark.parametrize("code", [1, 139])
def test_a_worker_that_crashes_again_and_again_is_given_up(stand, code):
    stand.ends(code)
    ended = stand.run(SYNICIX_RESTARTS="2")
    assert (ended.state, ended.exit_code, ended.restarts) == ("FAILED", code, 0)
    assert len(stand.starts) == 3
    assert f"crashed (exit code {code}), as often as it may" in stand.cluster.log(ended.name)


def test_a_worker_that_crashed_once_is_started_again(stand):
    stand.ends(1, 0)
    assert stand.run().state == "COMPLETED"
    assert len(stand.starts) == 2


def test_a_signal_in_the_pause_after_a_crash_is_heard(stand):
    stand.ends(1, 0)
    job = stand.submit(SYNICIX_PAUSE="100")

    def in_pause() -> bool:
        return "sleep" in stand.cluster.run("squeue", "--noheader", "--steps", "--format=%j").split()

    stand.cluster.wait_until(in_pause, timeout=30, job=job)
    # As Slurm does when the time is nearly up or the job is preempted: to the steps and not to the shell.
    stand.cluster.run("scancel", "--signal=TERM", f"{job}_0")
    (ended,) = stand.cluster.wait(job, timeout=60)
    assert (ended.state, ended.restarts) == ("COMPLETED", 1)


def test_a_broken_configuration_cancels_what_waits(stand):
    stand.ends(78)
    job = stand.submit(options=("--array=0-3", "--cpus-per-task=8"))
    first, *others = stand.cluster.wait(job)
    assert (first.state, first.exit_code, first.restarts) == ("FAILED", 78, 0)
    assert {each.state for each in others} == {"CANCELLED"}
    assert len(stand.starts) == 1
    assert "the elements of the array that wait, requeued ones too, are cancelled" in stand.cluster.log(job)


def test_what_waits_stays_if_the_broken_one_has_run_before(stand):
    stand.ends(75, 78)
    job = stand.submit(options=("--array=0-1", "--hold"))
    stand.cluster.run("scontrol", "release", f"{job}_0")
    stand.cluster.wait_until(lambda: "FAILED" in stand.cluster.states(job), job=job)
    first, second = stand.cluster.elements(job)
    assert (first.exit_code, first.restarts) == (78, 1)
    assert second.state == "PENDING"
    assert "are cancelled" not in stand.cluster.log(job)


@pytest.mark.parametrize("works", [True, False], ids=["works", "fails"])
def test_what_waits_is_cancelled_only_if_the_gpu_is_not_to_blame(stand, works):
    stand.ends(78)
    stand.program("python", f'echo "$@" >>asked\nexit {0 if works else 1}\n')
    job = stand.submit(options=("--array=0-1", "--hold", "--gres=gpu:1"))
    stand.cluster.run("scontrol", "release", f"{job}_0")
    stand.cluster.wait_until(lambda: "FAILED" in stand.cluster.states(job), job=job)
    first, second = stand.cluster.elements(job)
    assert first.exit_code == 78
    assert second.state == ("CANCELLED" if works else "PENDING")
    said = stand.cluster.log(job)
    assert ("nor can torch use the job's GPUs" in said) == (not works)
    assert ("sbatch --exclude=synicix" in said) == (not works)
    assert "torch.empty(1, device=" in (stand.folder / "asked").read_text()


@pytest.mark.parametrize(
    ("variables", "said", "here_alone"),
    [
        ({"SYNICIX_PROJECT": "/nowhere"}, "there is no project /nowhere", False),
        ({"SYNICIX_PROJECT": "/"}, "there is no synicix.toml in /", False),
        ({"SYNICIX_VENV": "/nowhere", "PATH": "/usr/bin:/bin"}, "there is no synicix-run in /nowhere", False),
        ({"SYNICIX_MODULES": "no/such-module"}, "these modules cannot be loaded: no/such-module", True),
        ({"SYNICIX_IMAGE": "/nowhere.sif"}, "there is no image /nowhere.sif", False),
        ({"SYNICIX_IMAGE": "synicix.toml", "PATH": "/usr/bin:/bin"}, "neither apptainer nor singularity is", True),
        ({"SYNICIX_DATASET_CACHE_DIR": "/dev/null/cache"}, "no cache can be made at /dev/null/cache", True),
        ({"SYNICIX_WORKERS_PER_DEVICE": "many"}, "SYNICIX_WORKERS_PER_DEVICE=many is no number of workers", False),
        ({"SYNICIX_OPTIONS": "--where 'seed = 1"}, "the quotes in SYNICIX_OPTIONS do not match", False),
        ({"SYNICIX_RESTARTS": "often"}, "SYNICIX_RESTARTS=often is no whole number", False),
        ({"SYNICIX_REQUEUES": "-1"}, "SYNICIX_REQUEUES=-1 is no whole number", False),
        ({"SYNICIX_PAUSE": "08"}, "SYNICIX_PAUSE=08 is no whole number", False),
    ],
)
def test_what_is_missing_is_named(stand, variables, said, here_alone):
    ended = stand.run(**variables)
    assert (ended.state, ended.exit_code) == ("FAILED", 78)
    log = stand.cluster.log(ended.name)
    assert said in log
    assert ("on this node alone" in log, "are cancelled" in log) == (here_alone, not here_alone)
    assert not stand.starts


def test_what_came_from_a_job_that_this_one_was_submitted_in_does_no_harm(stand):
    variables = {
        "SLURM_MEM_PER_CPU": "50",
        "SLURM_CPU_BIND": "quiet,mask_cpu:0xf0000",
        "SLURM_CPU_BIND_TYPE": "mask_cpu:",
        "SLURM_CPU_BIND_LIST": "0xf0000",
        "SLURM_MEM_BIND": "verbose,local",
        "SLURM_HINT": "nomultithread",
        "SLURM_DISTRIBUTION": "arbitrary",
        "SLURM_GPUS": "2",
    }
    ended = stand.run(options=("--mem=300M",), **variables)
    assert ended.state == "COMPLETED", stand.cluster.log(ended.name)
    (start,) = stand.starts
    left = {name for name, value in variables.items() if start.get(name) == value}
    assert not left
    assert "SLURM_MEM_PER_NODE" not in start


def test_paths_are_those_of_the_project(stand):
    inside = stand.folder / "lab"
    inside.mkdir()
    (inside / "synicix.toml").touch()
    (inside / "environment").symlink_to(stand.venv)
    ended = stand.run(SYNICIX_PROJECT="lab", SYNICIX_VENV="environment", PATH="/usr/bin:/bin")
    assert ended.state == "COMPLETED", stand.cluster.log(ended.name)
    assert stand.starts[0]["where"] == str(inside)
    assert stand.starts[0]["PATH"].startswith(f"{inside}/environment/bin:")


def test_a_module_is_loaded_where_jobs_know_the_command(stand):
    # As Lmod and Environment Modules do it: a shell function that jobs inherit.
    function = '() { echo "module $*"; export LOADED=$2; }'
    assert stand.run(SYNICIX_MODULES="python/3.12 cuda", **{"BASH_FUNC_module%%": function}).state == "COMPLETED"
    assert stand.starts[0]["LOADED"] == "python/3.12"


def test_a_password_in_the_environment_is_said_to_be_kept_by_slurm(stand):
    ended = stand.run(DJ_PASS="very hidden")
    said = stand.cluster.log(ended.name)
    assert ended.state == "COMPLETED"
    assert "DJ_PASS is set" in said and "very hidden" not in said
    assert "DJ_PASS is set" not in stand.cluster.log(stand.run().name)


def test_options_of_populate_come_from_the_file_and_from_the_submission(stand):
    stand.run("--max-tasks", "3", SYNICIX_OPTIONS="--order random --where 'seed = 1'")
    assert stand.starts[0]["arguments"] == "populate --device=cpu --order random --where seed = 1 --max-tasks 3"


def test_an_array_of_one_gpu_each_gives_every_worker_its_own(stand):
    job = stand.submit(options=("--array=0-1", "--gres=gpu:1", "--cpus-per-task=1"))
    assert {each.state for each in stand.cluster.wait(job)} == {"COMPLETED"}
    # Named, so that the worker does not make do with the CPU.
    assert [start["arguments"] for start in stand.starts] == ["populate --device=cuda"] * 2
    assert all(len(start["CUDA_VISIBLE_DEVICES"].split(",")) == 1 for start in stand.starts)
    # The number of threads is a matter of workers on the CPU.
    assert not any("SYNICIX_WORKER_THREADS" in start for start in stand.starts)


def test_a_node_form_gives_one_populate_all_gpus_of_the_job(stand):
    ended = stand.run(script=NODE, options=("--gres=gpu:2",))
    assert ended.state == "COMPLETED"
    (start,) = stand.starts
    assert start["arguments"] == "populate --workers-per-device=1 --devices=cuda:0,cuda:1"
    assert start["CUDA_VISIBLE_DEVICES"] == "0,1"


@pytest.mark.parametrize(
    ("typed", "gpus", "started"),
    [
        (("--device=cuda:1",), 2, "--device=cuda:1"),
        (("--devices", "cuda:0"), 2, "--devices cuda:0"),
        (("--device", "cpu"), 1, "--device cpu"),
        (("--devices=cpu",), 0, "--devices=cpu"),
        (("--workers-per-device", "2"), 2, "--devices=cuda:0,cuda:1 --workers-per-device 2"),
        (("--devices-per-task=2",), 2, "--device=cuda --devices-per-task=2"),
    ],
)
def test_who_names_a_device_gets_it(stand, typed, gpus, started):
    assert stand.run(*typed, options=(f"--gres=gpu:{gpus}" if gpus else "--gres=none",)).state == "COMPLETED"
    assert stand.starts[0]["arguments"] == f"populate {started}"


def test_workers_of_one_cpu_job_share_its_cores(stand):
    stand.run(script=NODE, options=("--cpus-per-task=8",), SYNICIX_WORKERS_PER_DEVICE="3")
    (start,) = stand.starts
    assert start["arguments"] == "populate --workers-per-device=3 --device=cpu"
    assert start["SYNICIX_WORKER_THREADS"] == "2"


@pytest.mark.parametrize(
    ("variables", "cache"),
    [
        ({"SLURM_TMPDIR": "{}/scratch", "TMPDIR": "/tmp"}, "{}/scratch/synicix-cache-{uid}"),
        ({"TMPDIR": "{}/scratch"}, "{}/scratch/synicix-cache-{uid}"),
        ({"TMPDIR": "/proc/nowhere"}, "/tmp/synicix-cache-{uid}"),
        ({"SYNICIX_DATASET_CACHE_DIR": "{}/mine"}, "{}/mine"),
    ],
)
def test_the_cache_lies_on_the_node(stand, variables, cache):
    (stand.folder / "scratch").mkdir()
    stand.run(**{name: value.format(stand.folder) for name, value in variables.items()})
    assert stand.starts[0]["SYNICIX_DATASET_CACHE_DIR"] == cache.format(stand.folder, uid=os.getuid())


@pytest.mark.parametrize("variable", ["TMPDIR", "SYNICIX_DATASET_CACHE_DIR"])
def test_nobody_else_can_read_the_cache(stand, variable):
    place = stand.folder / "scratch"
    place.mkdir()
    named = variable == "SYNICIX_DATASET_CACHE_DIR"
    stand.run(**{variable: f"{place}/mine" if named else str(place)})
    (cache,) = place.iterdir()
    assert cache.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("whose", ["link", "nobody"])
def test_what_somebody_else_has_put_in_the_place_of_the_cache_is_not_used(stand, whose):
    place, before = stand.folder / "scratch", stand.folder / "scratch" / f"synicix-cache-{os.getuid()}"
    place.mkdir()
    if whose == "link":
        (stand.folder / "elsewhere").mkdir()
        before.symlink_to(stand.folder / "elsewhere")
    elif os.geteuid() == 0:
        before.mkdir()
        os.chown(before, 65534, 65534)
    else:
        pytest.skip("only root can make a folder that is somebody else's")
    stand.run(TMPDIR=str(place))
    assert stand.starts[0]["SYNICIX_DATASET_CACHE_DIR"] == f"/tmp/synicix-cache-{os.getuid()}"


def test_a_cache_that_the_user_names_may_be_shared(stand):
    shared = stand.folder / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    assert stand.run(SYNICIX_DATASET_CACHE_DIR=str(shared)).state == "COMPLETED"
    assert shared.stat().st_mode & 0o777 == 0o777


APPTAINER = """
printf '%s\\n' "$@" >apptainer-arguments
env >apptainer-environment
while [ "$1" != image.sif ]; do shift; done
shift
exec "$@"
"""


@pytest.mark.parametrize("gpus", [0, 1])
def test_an_image_is_run_by_apptainer_with_what_it_has_to_see(stand, gpus):
    stand.program("apptainer", APPTAINER)
    (stand.folder / "image.sif").touch()
    given = {"SYNICIX_IMAGE": "image.sif", "SYNICIX_BIND": "/usr/share,/usr/lib:/data:ro", "SYNICIX_SCHEMA_NAME": "lab"}
    ended = stand.run("--wait", options=(f"--gres=gpu:{gpus}" if gpus else "--gres=none",), HOST_ONLY="x", **given)
    assert ended.state == "COMPLETED", stand.cluster.log(ended.name)
    arguments = (stand.folder / "apptainer-arguments").read_text().splitlines()
    assert arguments[0] == "exec" and "--cleanenv" in arguments and "--no-home" in arguments
    assert arguments[arguments.index("--pwd") + 1] == str(stand.folder)
    cache = stand.starts[0]["SYNICIX_DATASET_CACHE_DIR"]
    assert arguments[arguments.index("--bind") + 1] == f"{stand.folder},{cache},/usr/share,/usr/lib:/data:ro"
    assert Path(cache).is_dir()
    assert ("--nv" in arguments) == bool(gpus)
    assert arguments[arguments.index("image.sif") + 1 :][:2] == ["synicix-run", "populate"]
    assert arguments[-1] == "--wait"
    environment = dict(
        line.partition("=")[::2] for line in (stand.folder / "apptainer-environment").read_text().splitlines()
    )
    assert environment["APPTAINERENV_SYNICIX_SCHEMA_NAME"] == "lab"
    assert environment.get("APPTAINERENV_CUDA_VISIBLE_DEVICES") == ("0" if gpus else None)
    assert "APPTAINERENV_HOST_ONLY" not in environment


def test_an_older_singularity_does_as_well(stand):
    stand.program("singularity", APPTAINER)
    (stand.folder / "image.sif").touch()
    assert stand.run(SYNICIX_IMAGE="image.sif", SYNICIX_SCHEMA_NAME="lab").state == "COMPLETED"
    assert "SINGULARITYENV_SYNICIX_SCHEMA_NAME=lab\n" in (stand.folder / "apptainer-environment").read_text()
