"""`launch slurm`: the very script of deploy/slurm with options put in, submitted once, never with a secret."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from synicix_launch import launching
from synicix_launch.errors import LaunchError
from synicix_launch.pending import Pending
from synicix_launch.slurm.script import edit_script, option_of

from tests.synicix_launch.conftest import add_settings, use_database

SHIPPED_FOLDER = Path(__file__).parents[2] / "deploy" / "slurm"
SHIPPED = (SHIPPED_FOLDER / "worker.sbatch").read_text()
SCRIPT = '#!/bin/bash\n# A comment.\n#SBATCH --job-name=x\n#SBATCH --requeue\n\n: "${NAME:=$HOME/x}"\n: "${BLANK=}"\necho "$NAME"\n'


# The script as text.


def test_an_option_is_replaced_added_or_removed():
    edited = edit_script(SCRIPT, {"job-name": "y", "partition": "gpu", "requeue": None, "exclusive": ""}, {}, "x")
    assert edited.splitlines()[2:5] == ["#SBATCH --job-name=y", "#SBATCH --partition=gpu", "#SBATCH --exclusive"]
    assert (option_of(edited, "partition"), option_of(edited, "requeue"), option_of(edited, "exclusive")) == (
        "gpu",
        None,
        None,
    )
    assert "# A comment." in edited


NASTY = ["", "plain", "a b", "it's", 'say "no"', "$HOME", "`id`", "a}b", "back\\slash", "*", "ü", "~", "-n", "$(id)"]


@pytest.mark.parametrize("value", NASTY)
@pytest.mark.parametrize("name", ["NAME", "BLANK"])
def test_a_variable_is_what_was_given_whatever_is_in_it_or_in_the_environment(name, value):
    script = edit_script(SCRIPT, {}, {name: value}, "x").replace('echo "$NAME"', f'printf %s "${name}"')
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, env={name: "from outside"}, check=True
    )
    assert done.stdout == value


@pytest.mark.parametrize("script", ["", "echo no", "#!/bin/sh\necho no option\n", "#SBATCH --job-name=x\n"])
def test_what_is_no_batch_script_is_refused(script):
    with pytest.raises(LaunchError, match=r"own\.sbatch.*#SBATCH"):
        edit_script(script, {}, {}, "own.sbatch")


def test_a_script_that_lacks_a_variable_is_refused():
    with pytest.raises(LaunchError, match="SYNICIX_PROJECT"):
        edit_script(SCRIPT, {}, {"SYNICIX_PROJECT": "/x"}, "own.sbatch")


# What is rendered.


@pytest.fixture
def render(lab, launch):
    """Render with these flags and return the script."""
    return lambda *arguments: launch("slurm", *arguments).stdout


def test_it_is_the_shipped_script_but_for_what_was_said(render, lab):
    lines, shipped = render().splitlines(), SHIPPED.splitlines()
    changed = {line for line in lines if line not in shipped}
    assert {re.split("[= ]", line.removeprefix("#SBATCH --"))[0] for line in changed} == {
        "job-name",
        "array",
        "output",
        "SYNICIX_PROJECT",
        "SYNICIX_VENV",
        "SYNICIX_OPTIONS",
    }
    assert f"SYNICIX_PROJECT={lab}" in changed and "#SBATCH --array=0-2" in changed


def test_every_option_is_in_its_place(render):
    script = render(
        *("--partition", "low,high", "--account", "lab", "--qos", "night", "--constraint", "a100|h100", "--cpus", 8),
        *("--memory", "64G", "--time-limit", "36h", "--gpus", 2, "--gpu-type", "a100", "--workers", 10, "--at-once", 4),
        *("--grace", "100.5", "--name", "night", "--modules", "cuda/12,python", "--venv", "/opt/venv"),
    )
    wanted = {
        "partition": "low,high",
        "account": "lab",
        "qos": "night",
        "constraint": "a100|h100",
        "cpus-per-task": "8",
        "mem": "64G",
        "time": "1-12:00:00",
        "gres": "gpu:a100:2",
        "array": "0-9%4",
        "signal": "TERM@131",
        "output": "logs/%x-%A_%a.log",
    }
    assert {name: option_of(script, name) for name in wanted} == wanted
    assert re.fullmatch(r"night-[0-9a-f]{8}", option_of(script, "job-name") or "")
    assert "\nSYNICIX_MODULES='cuda/12 python'\n" in script and "\nSYNICIX_VENV=/opt/venv\n" in script
    assert "--grace=100.5" in script


def test_every_variant_is_a_script_that_bash_and_shellcheck_take(render, tmp_path):
    for flags in (
        (),
        ("--gpus", 0),
        ("--image", "synicix.sif", "--bind", "/data,/scratch"),
        ("--gpus", 4, "--at-once", 2),
    ):
        path = tmp_path / "synicix.sbatch"
        path.write_text(render(*flags))
        assert subprocess.run(["bash", "-n", path], capture_output=True, text=True).stderr == ""
        if shellcheck := shutil.which("shellcheck"):
            done = subprocess.run([shellcheck, path], capture_output=True, text=True)
            assert done.returncode == 0, done.stdout


def test_without_gpus_none_is_asked_for(render):
    assert option_of(render("--gpus", 0), "gres") is None
    assert option_of(render(), "gres") == option_of(SHIPPED, "gres")


@pytest.mark.parametrize(
    ("gpus", "each", "per_device", "devices"),
    [(1, 1, "''", ""), (4, 1, "1", ""), (2, 2, "''", ""), (4, 2, "''", "--devices=cuda:0,cuda:2")],
)
def test_all_gpus_of_a_job_are_used(render, monkeypatch, gpus, each, per_device, devices):
    monkeypatch.setenv("SYNICIX_WORKER_DEVICES_PER_TASK", str(each))
    script = render("--gpus", gpus)
    assert option_of(script, "gres") == f"gpu:{gpus}"
    assert f"\nSYNICIX_WORKERS_PER_DEVICE={per_device}\n" in script
    (options,) = re.findall(r"^SYNICIX_OPTIONS=(.*)$", script, re.MULTILINE)
    assert shlex.split(shlex.split(options)[0])[1:] == ([devices] if devices else [])


def test_gpus_that_do_not_divide_are_refused(lab, launch, monkeypatch):
    monkeypatch.setenv("SYNICIX_WORKER_DEVICES_PER_TASK", "2")
    assert "devices_per_task is 2" in launch("slurm", "--gpus", 3, code=2).stderr


def test_several_gpus_are_asked_for_as_the_script_for_a_node_does(render):
    node = (SHIPPED_FOLDER / "node.sbatch").read_text()
    assert option_of(render("--gpus", 4), "mem") == option_of(node, "mem") != option_of(SHIPPED, "mem")


def test_an_image_takes_the_place_of_the_environment(render, lab):
    script = render("--image", "synicix.sif", "--bind", "/data,/scratch")
    assert f"\nSYNICIX_IMAGE={Path.cwd() / 'synicix.sif'}\n" in script and "\nSYNICIX_BIND=/data,/scratch\n" in script


@pytest.mark.parametrize(
    ("flags", "each", "elements"),
    [
        ((), 1, 3),
        (("--gpus", 2), 1, 2),
        (("--gpus", 2), 2, 3),
        (("--workers-per-device", 3), 1, 1),
        (("--gpus", 0), 2, 3),
    ],
)
def test_there_are_as_many_elements_as_have_something_to_do(render, monkeypatch, flags, each, elements):
    monkeypatch.setenv("SYNICIX_WORKER_DEVICES_PER_TASK", str(each))
    assert option_of(render(*flags), "array") == f"0-{elements - 1}"


def test_the_name_follows_from_the_content_but_not_from_the_number_of_workers(render):
    names = [option_of(render(*flags), "job-name") for flags in ((), ("--workers", 9), ("--at-once", 1), ("--cpus", 9))]
    assert names[0] == names[1] == names[2] != names[3]


def test_a_time_limit_shorter_than_its_notice_is_refused(lab, launch):
    assert "The time limit is too short" in launch("slurm", "--time-limit", "100s", code=2).stderr
    assert "TERM@330" in launch("slurm", "--time-limit", "10m", "--grace", 300).stdout
    assert "too short" in launch("slurm", "--time-limit", "6m", "--grace", 300, code=2).stderr


def test_a_script_of_ones_own_is_the_template(lab, launch):
    (lab / "own.sbatch").write_text(SHIPPED.replace("#SBATCH --nodes=1", "#SBATCH --nodes=1\n#SBATCH --exclusive"))
    add_settings(lab, '[plugins.synicix-launch.slurm]\nhere = true\nscript = "own.sbatch"\npartition = "lab"\n')
    script = launch("slurm").stdout
    assert "#SBATCH --exclusive\n" in script and "#SBATCH --partition=lab\n" in script
    (lab / "own.sbatch").write_bytes(b"\xff\xfe")
    assert "no text in UTF-8" in launch("slurm", code=2).stderr


def test_a_database_that_other_nodes_cannot_reach_is_refused_unless_the_jobs_run_here(lab, launch, monkeypatch):
    use_database(monkeypatch, embedded=True)
    said = launch("slurm", code=2).stderr
    assert all(word in said for word in ("inside the project", "synicix-run db export", "--here"))
    use_database(monkeypatch, embedded=False, host="localhost", port=5432)
    said = launch("slurm", code=2).stderr
    assert all(word in said for word in ("PostgreSQL at localhost:5432", "--here"))
    assert "SYNICIX_PROJECT=" in launch("slurm", "--here").stdout


def test_plugins_that_are_not_installed_here_are_named(lab, launch, monkeypatch):
    monkeypatch.setattr(launching, "look", lambda _: Pending(3, 0, {"gone-lab": "", "toy-lab": "1.0"}))
    said = launch("slurm").stderr
    assert "Pending tasks need gone-lab, which is not installed here" in said
    assert "gone-lab (not installed here), toy-lab 1.0" in said


# Submitting.


@pytest.fixture
def slurm(stand_in):
    """Stand-ins for sbatch and squeue."""
    sbatch, squeue = stand_in("sbatch"), stand_in("squeue")
    return sbatch.answers(stdout="4711;lab\n"), squeue.answers()


def test_it_is_submitted_and_one_is_told_how_to_follow_it(lab, launch, slurm):
    sbatch, squeue = slurm
    done = launch("slurm", "--submit")
    path = lab / ".synicix" / "launch" / "slurm" / "synicix.sbatch"
    (call,) = sbatch.calls
    assert call["arguments"] == ["--parsable"] and call["folder"] == str(lab)
    assert call["stdin"] == path.read_text()
    assert [each.name for each in path.parent.iterdir()] == ["synicix.sbatch"]
    assert (lab / "logs").is_dir(), "without it Slurm would end the job in silence"
    name = option_of(path.read_text(), "job-name")
    assert f"--name={name}" in squeue.calls[0]["arguments"]
    assert "Submitted: 4711" in done.stdout and "squeue --job=4711" in done.stdout and "scancel 4711" in done.stdout
    assert f"tail -F {lab}/logs/{name}-4711_0.log" in done.stdout


def test_the_same_is_not_submitted_twice_while_it_is_queued(lab, launch, slurm):
    sbatch, squeue = slurm
    squeue.answers(stdout="4711\n4711\n")
    said = launch("slurm", "--submit", code=2).stderr
    assert "as job 4711:" in said and "run: scancel 4711." in said and "--again" in said and not sbatch.calls
    assert "--format=%F" in squeue.calls[0]["arguments"], "the array's number, not that of an element"
    squeue.answers(stdout="4711\n4712\n4711\n")
    said = launch("slurm", "--submit", code=2).stderr
    assert "as jobs 4711, 4712:" in said and "run: scancel 4711 4712." in said
    launch("slurm", "--submit", "--again")
    assert len(sbatch.calls) == 1 and len(squeue.calls) == 2, "with --again nobody is asked"


def test_the_difference_is_to_the_script_submitted_last(lab, launch, slurm):
    first = launch("slurm", "--diff").stdout
    assert "+#!/bin/bash" in first and "\n-" not in first.replace("\n---", "")
    launch("slurm", "--submit")
    same = launch("slurm", "--diff")
    assert same.stdout == "" and "There is no difference" in same.stderr
    changed = [line for line in launch("slurm", "--diff", "--memory", "8G").stdout.splitlines() if line[:1] in "+-"]
    assert "-#SBATCH --mem=16G" in changed and "+#SBATCH --mem=8G" in changed


def test_what_sbatch_refuses_is_passed_on(lab, launch, slurm):
    slurm[0].answers(code=1, stderr="sbatch: error: invalid partition specified: gpu\n")
    said = launch("slurm", "--submit", "--partition", "gpu", code=1).stderr
    assert "sbatch failed with exit code 1" in said and "invalid partition specified: gpu" in said


def test_a_script_that_is_refused_is_not_taken_for_the_one_submitted_last(lab, launch, slurm):
    kept = lab / ".synicix" / "launch" / "slurm"
    slurm[0].answers(code=1, stderr="no\n")
    launch("slurm", "--submit", code=1)
    assert list(kept.iterdir()) == []
    slurm[0].answers(stdout="4711\n")
    launch("slurm", "--submit")
    slurm[0].answers(code=1, stderr="no\n")
    launch("slurm", "--submit", "--memory", "8G", code=1)
    assert launch("slurm", "--diff").stdout == ""
    assert [path.name for path in kept.iterdir()] == ["synicix.sbatch"]


@pytest.mark.parametrize("what", ["a file", "a folder in which not even root makes a file", "a folder for a file"])
def test_a_folder_that_cannot_be_written_is_found_out_before_anything_is_submitted(lab, launch, slurm, what):
    kept = lab / ".synicix" / "launch" / "slurm"
    kept.parent.mkdir(parents=True)
    if what == "a file":
        kept.write_text("")
    elif what == "a folder for a file":
        kept.joinpath("synicix.sbatch").mkdir(parents=True)
    else:
        kept.symlink_to("/proc")
    said = launch("slurm", "--submit", code=2).stderr
    where = kept / "synicix.sbatch" if what == "a folder for a file" else kept
    assert f"cannot be written ({where}): " in said
    assert "Nothing was submitted: what is submitted is kept there. Make it a folder" in said and "--output" not in said
    assert not slurm[0].calls


def test_without_slurm_one_is_told_so(lab, launch, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "squeue is not installed" in launch("slurm", "--submit", code=2).stderr


def test_a_password_that_is_in_the_environment_alone_is_not_handed_to_slurm(lab, launch, slurm, monkeypatch):
    use_database(monkeypatch, embedded=False, host="db", port=5432, password_in_variable=True)
    said = launch("slurm", "--submit", code=2).stderr
    assert "in the variable DJ_PASS alone" in said and ".secrets/database.password" in said and not slurm[0].calls


def test_a_password_that_is_in_a_file_as_well_is_submitted_with_a_warning_and_without_the_variable(
    lab, launch, slurm, monkeypatch
):
    monkeypatch.setenv("DJ_PASS", "hush")
    secret = "/lab/.secrets/database.password"
    for place in ({"password_in_secrets": secret}, {"password_in_config": "/lab/datajoint.json"}):
        use_database(monkeypatch, embedded=False, host="db", port=5432, password_in_variable=True, **place)
        said = launch("slurm", "--submit").stderr
        assert "in the variable DJ_PASS" in said
        assert (f"It is in {secret} already, so unset DJ_PASS." in said) is ("password_in_secrets" in place)
    for program in slurm:
        assert program.calls and all("DJ_PASS" not in call["environment"] for call in program.calls)


def test_the_folder_of_the_logs_may_be_in_the_way(lab, launch, slurm):
    (lab / "logs").write_text("in the way")
    assert "The logs have no place" in launch("slurm", "--submit", code=2).stderr
    assert not slurm[0].calls


def test_json_holds_everything(lab, launch, slurm):
    said = json.loads(launch("slurm", "--submit", "--json").stdout)
    assert said["submitted"]["job"] == "4711" and said["workers"] == said["pending"] == 3
    assert said["needs"] == {"toy-lab": "1.0"} and list(said["files"]) == ["synicix.sbatch"]
