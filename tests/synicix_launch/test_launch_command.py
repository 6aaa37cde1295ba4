"""`synicix-run launch` itself: what it lists, asks the database, prints, writes and refuses, whatever the launcher."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from synicix_launch import LauncherProvider, RenderedFile, Submission, option
from synicix_launch.launchers import COMMON, installed_launchers
from synicix_launch.pending import look
from synicix_launch.reading import COMMON_OPTIONS

from synicix_core import hookimpl
from synicix_core.registry import Registry
from tests import factories
from tests.cli.conftest import claim_task, fail, finish
from tests.cli.test_start_up import HEAVY, modules_after
from tests.rows import insert_tasks
from tests.synicix_launch.conftest import add_settings

# The core's own commands and the plugin's are known apart.


def test_help_lists_the_launchers_and_imports_none(lab, launch):
    said = launch("--help").stdout
    assert "kubernetes  An Indexed Job and its ConfigMap." in said and "slurm" in said
    loaded = modules_after("launch", "--help")
    assert not {name.partition(".")[0] for name in loaded} & (HEAVY - {"importlib_metadata"})
    assert not {
        name for name in loaded if name.startswith(("yaml", "synicix_launch.slurm", "synicix_launch.kubernetes"))
    }


def test_the_hook_module_imports_nothing_heavy():
    code = "import sys, synicix_launch.hooks as h; list(h.synicix_launchers()); list(h.synicix_hookspecs()); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {name.partition(".")[0] for name in loaded} & {*HEAVY, "yaml", "click"}


@pytest.mark.parametrize("name", ["slurm", "kubernetes", "synicix-launch/slurm"])
def test_every_option_is_in_the_help_of_its_launcher(lab, launch, name):
    said = launch(name, "--help").stdout
    (found,) = [each for each in installed_launchers()[0] if name in (each.name, each.qualified)]
    for each in (*found.load()[1], *COMMON_OPTIONS):
        assert f"  {each.flag}" in said
    assert all(f"  --{flag}" in said for flag in ("output", "diff", "submit", "again", "json"))
    assert f"[{found.table}]" in " ".join(said.split())


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("slrum", "Did you mean slurm?"),
        ("kubernets", "Did you mean kubernetes?"),
        ("pbs", "there are kubernetes, slurm"),
    ],
)
def test_an_unknown_launcher_is_refused(lab, launch, typed, words):
    said = launch(typed, code=2).stderr
    assert f"There is no launcher {typed!r}" in said and words in said


def test_the_options_of_the_command_are_known_to_plugins_as_taken():
    assert {each.name for each in COMMON_OPTIONS} <= set(COMMON)


# Tasks of a real database.


@pytest.fixture
def asked(project, launch):
    """What ``launch slurm`` says of the project, as JSON."""
    return lambda *arguments, **more: json.loads(launch("slurm", "--here", "--json", *arguments, **more).stdout)


@pytest.mark.database
def test_pending_tasks_are_counted_and_their_plugins_named(pipeline, asked):
    tasks = insert_tasks(pipeline, trainings=[{"seed": seed} for seed in range(8)])
    finish(pipeline, {tasks[0]: 0.5})
    fail(pipeline, tasks[1], "ValueError: no")
    claim_task(pipeline, tasks[2])
    # One that is not in the queue yet is pending all the same.
    (pipeline.TrainingResult.jobs & {"training_task_md5_hash": tasks[3]}).delete_quick()
    found = asked()
    assert (found["pending"], found["workers"], found["needs"]) == (5, 5, {"toy-lab": "1.0"})
    assert asked("--max-workers", 2)["workers"] == 2
    assert asked("--workers", 9)["warnings"][0].startswith("There are more workers (9) than pending tasks (5)")


@pytest.mark.database
def test_only_what_pending_tasks_need_is_named_and_metrics_and_samplers_count(pipeline, asked):
    metrics = {"metrics": ["synicix-neurodata/feve"], "criterion_provider": "synicix-neurodata/PoissonLoss"}
    sampled = {
        "train_sampler_provider": "synicix-neurodata/BalancedSampler",
        "train_sampler_class_params": {"column": "x"},
    }
    insert_tasks(pipeline)
    assert asked()["needs"] == {"toy-lab": "1.0"}
    everything = insert_tasks(pipeline, trainings=[metrics])
    assert list(asked()["needs"]) == ["synicix-neurodata", "toy-lab"]
    finish(pipeline, dict.fromkeys(everything, 0.5))
    assert list(asked()["needs"]) == ["toy-lab"]
    insert_tasks(pipeline, datasets=[sampled])
    assert list(asked()["needs"]) == ["synicix-neurodata", "toy-lab"]


@pytest.mark.database
def test_with_nothing_pending_nothing_is_launched(pipeline, launch, asked, stand_in):
    sbatch = stand_in("sbatch")
    (task,) = insert_tasks(pipeline)
    claim_task(pipeline, task)
    for number in ([], ["--workers", 2]):
        said = launch("slurm", "--here", "--submit", *number).stdout
        assert "Nothing is pending, so nothing is launched. 1 is being trained. To see" in said and not sbatch.calls
        found = asked(*number)
        assert (found["launcher"], found["running"]) == ("synicix-launch/slurm", 1)
        assert (found["workers"], found["pending"], found["files"]) == (0, 0, {})


@pytest.mark.database
def test_looking_writes_nothing_into_the_database(pipeline):
    insert_tasks(pipeline)
    on_mysql = pipeline.connection.adapter.backend == "mysql"
    scope = "SESSION" if on_mysql else "SESSION CHARACTERISTICS AS"
    pipeline.connection.query(f"SET {scope} TRANSACTION READ ONLY")
    try:
        with pytest.raises(Exception, match=r"(?i)read.only"):
            pipeline.TrainingResult.jobs.delete_quick()
        assert look(pipeline).pending == 1
    finally:
        pipeline.connection.query(f"SET {scope} TRANSACTION READ WRITE")


# Settings and flags.


def test_all_mistakes_are_told_at_once_with_their_places(lab, launch):
    add_settings(
        lab,
        '[plugins.synicix-launch.slurm]\nmemroy = "16G"\ncpus = "four"\nmax_workers = 0\npartition = ["a"]\n'
        "[plugins.synicix-launch.kuberntes]\n",
    )
    said = launch("slurm", "--time-limit", "tomorrow", "--workers", "-3", "--grace", "soon", code=2).stderr
    place = f"{lab / 'synicix.toml'}: plugins.synicix-launch"
    for line in (
        f"{place}.slurm.memroy: there is no such option; did you mean memory?",
        f"{place}.slurm.cpus: must be an integer, not 'four'",
        f"{place}.slurm.max_workers: must be 1 or more, not 0",
        f"{place}.slurm.partition: must be a text, not ['a']",
        f"{place}.kuberntes: there is no such launcher; did you mean [plugins.synicix-launch.kubernetes]?",
        "--time-limit: must be a time such as 90m, 12h, 2d or 1-12:00:00, not 'tomorrow'",
        "--workers: must be 1 or more, not '-3'",
        "--grace: must be a number, not 'soon'",
    ):
        assert line in said
    assert "Traceback" not in said


def test_a_table_that_is_none_is_refused(lab, launch):
    add_settings(lab, "[plugins.synicix-launch]\nslurm = 1\n")
    assert "plugins.synicix-launch.slurm: must be a table" in launch("slurm", code=2).stderr


def test_flags_that_exclude_each_other_are_refused(lab, launch):
    assert "--diff and --submit" in launch("slurm", "--diff", "--submit", code=2).stderr
    assert "--again" in launch("slurm", "--again", code=2).stderr
    assert "No such option" in launch("slurm", "--namespace", "x", code=2).stderr


def test_the_global_options_may_stand_behind_it(lab, launch, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert f"SYNICIX_PROJECT={lab}\n" in launch("slurm", "--project", lab).stdout
    assert "There is no Synicix project" in launch("slurm", code=2).stderr


# Output.


def test_what_is_printed_can_be_piped(lab, launch):
    done = launch("slurm")
    assert done.stdout.startswith("#!/bin/bash\n")
    assert done.stderr.startswith("3 workers for 3 pending tasks, which need toy-lab 1.0.\n")
    assert "Nothing was submitted" in done.stderr


def test_files_are_written_and_replaced(lab, launch):
    done = launch("kubernetes", "--output", "made/here")
    assert names(lab / "made" / "here") == ["configmap.yaml", "job.yaml"]
    assert done.stdout == "" and f"Wrote {lab / 'made' / 'here' / 'job.yaml'}" in done.stderr
    launch("kubernetes", "--output", "made/here", "--workers", 2)
    assert "completions: 2\n" in (lab / "made" / "here" / "job.yaml").read_text()
    assert names(lab / "made" / "here") == ["configmap.yaml", "job.yaml"], "no half-written file is left"
    difference = launch("slurm", "--output", "made/here", "--diff")
    assert "+#!/bin/bash" in difference.stdout
    assert not (lab / "made" / "here" / "synicix.sbatch").exists(), "looking writes nothing"


def test_what_is_in_the_way_of_the_output_is_named(lab, launch):
    (lab / "file").write_text("")
    (lab / "folder" / "synicix.sbatch" / "x").mkdir(parents=True)
    for folder, words in (
        ("file", "a file is in the way"),
        ("file/below", "a file is in the way"),
        ("folder", "directory"),
    ):
        said = launch("slurm", "--output", folder, code=2).stderr
        assert "cannot be written" in said and words in said and str(lab / folder) in said
    assert list((lab / "folder").iterdir()) == [lab / "folder" / "synicix.sbatch"]


def test_an_unwritable_output_is_named(lab, launch):
    # Where not even root makes a folder.
    assert "cannot be written (/proc/launch)" in launch("slurm", "--output", "/proc/launch", code=2).stderr


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# Launchers of others.


@dataclass(frozen=True)
class PigeonOptions:
    color: str = option("grey", "The pigeon's color.")


class Pigeon:
    options = PigeonOptions

    def render(self, request: Any) -> list[RenderedFile]:
        return [RenderedFile("note.txt", f"{request.workers} workers, {request.options.color}\n")]

    def warnings(self, request: Any) -> list[str]:
        return ["it may rain"]

    def diff(self, request: Any, files: Any) -> str:
        return "none\n"

    def submit(self, request: Any, files: Any) -> Submission:
        return Submission("pigeon 7", "coo\n", [("where it is", "look up")])

    def slots(self, options: Any, settings: Any) -> int:
        return 2


class Half:
    options = PigeonOptions

    def render(self, request: Any) -> list[RenderedFile]:
        return []


class Greedy(Pigeon):
    @dataclass(frozen=True)
    class options:
        workers: int = option(1, "Taken already.")


@pytest.fixture
def installed(monkeypatch):
    """``installed("my-lab", provider, …)`` adds a plugin with these launchers."""
    import synicix_launch.hooks

    from synicix_core.cli import main

    plugins = [
        factories.EntryPoint(factories.Distribution("synicix-launch", "0.1.0"), "launch", "x", synicix_launch.hooks)
    ]

    def install(distribution: str, *yielded: Any) -> Registry:
        hook = hookimpl(lambda: yielded)
        plugins.append(factories.plugin(distribution, synicix_launchers=hook))
        registry = factories.registry(*plugins)
        monkeypatch.setattr("synicix_core.registry.get_registry", lambda: registry)
        monkeypatch.setattr("synicix_launch.launchers.get_registry", lambda: registry)
        main._plugin_commands.cache_clear()
        return registry

    yield install
    main._plugin_commands.cache_clear()


def test_a_plugin_brings_a_launcher(lab, launch, installed):
    registry = installed("my-lab", LauncherProvider("pigeon", target=Pigeon, summary="By pigeon."))
    assert registry.problems == ()
    assert "pigeon      By pigeon." in launch("--help").stdout
    assert "grey" in launch("pigeon", "--help").stdout
    add_settings(lab, '[plugins.my-lab]\nits_own = 1\n[plugins.my-lab.pigeon]\ncolor = "white"\n')
    done = launch("pigeon")
    assert done.stdout == "2 workers, white\n", "three tasks, two at a time"
    assert "Note: it may rain" in done.stderr
    assert launch("pigeon", "--color", "blue", "--diff").stdout == "none\n"
    done = launch("pigeon", "--submit")
    assert done.stdout == "coo\nSubmitted: pigeon 7\n  where it is: look up\n"
    assert "--color: there is no such option" not in launch("my-lab/pigeon", "--color", "x").stdout


def test_two_launchers_of_one_name_are_told_apart(lab, launch, installed):
    installed("my-lab", LauncherProvider("slurm", target=Pigeon))
    said = launch("slurm", code=2).stderr
    assert "provided by several plugins" in said and "my-lab/slurm" in said and "synicix-launch/slurm" in said
    assert launch("my-lab/slurm").stdout == "2 workers, grey\n"
    assert launch("synicix-launch/slurm").stdout.startswith("#!/bin/bash")


@pytest.mark.parametrize(
    ("provider", "words"),
    [
        (LauncherProvider("bad", target="no_such_module:X"), "ModuleNotFoundError"),
        (LauncherProvider("bad", target="json:Nothing"), "AttributeError"),
        (LauncherProvider("bad", target=Half), "no method warnings()"),
        (LauncherProvider("bad", target=Greedy), "'workers' already"),
        (LauncherProvider("bad", target="decimal:Decimal"), "no method render()"),
    ],
)
def test_a_launcher_that_does_not_work_leaves_the_others_alone(lab, launch, installed, provider, words):
    installed("my-lab", provider)
    said = launch("bad", code=2).stderr
    assert "The launcher 'bad' cannot be used (my-lab 1.0)" in said and words in said
    assert launch("slurm").stdout.startswith("#!/bin/bash")


def test_what_is_no_launcher_is_left_out_and_said(lab, launch, installed):
    provider = LauncherProvider("pigeon", target=Pigeon)
    installed("my-lab", "pigeon", provider, provider)
    said = launch("pigeon").stderr
    assert "my-lab 1.0: synicix_launchers yielded 'pigeon', which is no LauncherProvider" in said
    assert "yields 'pigeon' twice" in said


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("Slurm", Pigeon),
        ("", Pigeon),
        ("my lab", Pigeon),
        ("x" * 41, Pigeon),
        (1, Pigeon),
        ("ok", "module.Class"),
        ("ok", 3),
    ],
)
def test_a_wrong_descriptor_is_refused(name, target):
    with pytest.raises(ValueError, match="launcher"):
        LauncherProvider(name, target=target)
