"""The image at work: not root, everything read-only but its volumes, stopped in the middle of a training."""

from __future__ import annotations

import os
import re
import shlex
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.container import Deployment
from tests.deploy.image import ROOT, TAG, built, host_options
from tests.deploy.wheel import make_wheel
from tests.faults.lab import wait_until
from tests.rows import insert_tasks

pytestmark = [pytest.mark.database, pytest.mark.slow]

_GIVEN = "FROM synicix:0.1.0-cpu", "lab-plugin==1.2"
_PAGE = (ROOT / "docs" / "containers.md").read_text()
# What `docker run` of the page says of GPUs, logs, names and process 1, for which this machine need not have anything.
_LEFT_OUT = re.compile(r"--(detach|rm|init|gpus all|name \S+|log-opt \S+) ")


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The image and the toy lab's plugin, by the two lines of the page."""
    engine, folder = built(), tmp_path_factory.mktemp("child")
    folder.chmod(0o755)  # what is installed here is installed by the image's user
    sources = {f"toy_lab/{path.name}": path.read_text() for path in (ROOT / "tests/toy_lab/toy_lab").glob("*.py")}
    make_wheel(folder, "toy-lab", "1.0", sources, hooks="toy_lab.hooks")
    lines = (ROOT / "deploy/docker/Dockerfile.plugins").read_text()
    assert all(given in lines for given in _GIVEN)
    (folder / "Dockerfile").write_text(lines.replace(_GIVEN[0], f"FROM {TAG}").replace(_GIVEN[1], "toy-lab==1.0"))
    tag = f"localhost/synicix-child:{uuid.uuid4().hex[:8]}"
    engine.build(tag, context=folder, file="Dockerfile", wheels=folder, volumes=["{secret}:/etc/pip.conf"])
    yield tag
    engine.remove(tag)


@pytest.fixture
def deployment(image: str, server: dict[str, str], tmp_path: Path) -> Iterator[Deployment]:
    """What a pod is given, without tables."""
    made = Deployment(built(), image, tmp_path / "pod", server, "not_there")
    yield made
    made.close()


@pytest.fixture
def deployed(image: str, pipeline: Any, server: dict[str, str], tmp_path: Path) -> Iterator[Deployment]:
    """What a pod is given, with the tables of `pipeline`."""
    made = Deployment(built(), image, tmp_path / "pod", server, pipeline.settings.schema_name)
    (made.folder / "datasets" / "line.txt").write_text("2.0")
    yield made
    made.close()


def test_a_stopped_container_gives_its_task_back_and_another_one_finishes_it(
    deployed: Deployment, pipeline: Any
) -> None:
    (task,) = insert_tasks(
        pipeline,
        models=[{"model_provider": "Slow", "model_class_params": {"seconds": 0.1}}],
        trainings=[{"epoch_limit": 60}],  # of two steps
    )
    first = deployed.start("populate")
    wait_until(lambda: (_attempt(pipeline, 1) or {}).get("epoch") not in (None, 0), why=lambda: first.said)
    first.stop(90)

    assert first.end() == 75, first.said
    assert _attempt(pipeline, 1)["state"] == "released"
    assert (pipeline.TrainingResult.jobs & {"training_task_md5_hash": task}).fetch1("status") == "pending"
    assert [path.name for path in (deployed.folder / "results/models").iterdir() if "checkpoint" in path.name]
    before = int(_attempt(pipeline, 1)["epoch"])
    assert 0 < before < 60

    second = deployed.start("populate")
    assert second.end() == 0, second.said
    names = ("by_attempt", "epochs", "provenance", "model_save_path")
    result = dict(zip(names, (pipeline.TrainingResult & {"training_task_md5_hash": task}).fetch1(*names), strict=True))
    assert (result["by_attempt"], result["epochs"]) == (2, 60)
    assert result["provenance"]["resumed_from_epoch"] >= before
    assert (deployed.folder / "results/models" / result["model_save_path"]).stat().st_uid == 10001
    assert list((deployed.folder / "results/histories").rglob("*"))


def test_the_tables_are_made_by_a_container_that_cannot_write_its_project(
    deployment: Deployment, project: Path
) -> None:
    settings = deployment.folder / "project/synicix.toml"
    settings.write_text(settings.read_text().replace("not_there", os.environ["SYNICIX_SCHEMA_NAME"]))
    # As compose.yaml and the Kubernetes component do it: the two files lie in a directory that is thrown away.
    code, said = deployment.run("init", options=("--tmpfs", "/project"))
    assert code == 0 and "Made the tables" in said, said
    code, said = deployment.run("populate")
    assert code == 0 and "nothing is pending" in said, said


def test_the_commands_of_the_page_make_the_tables_and_start_a_worker(deployment: Deployment, project: Path) -> None:
    settings = deployment.folder / "project/synicix.toml"
    settings.write_text(settings.read_text().replace("not_there", os.environ["SYNICIX_SCHEMA_NAME"]))
    init, worker = re.findall(r"^docker run (--.+?[^\\])\n```$", _PAGE, re.MULTILINE | re.DOTALL)

    made = deployment.launch(_here(init, deployment))
    assert made.end() == 0 and "Made the tables" in made.said, made.said
    idle = deployment.launch(_here(worker, deployment))
    assert idle.end() == 0 and "nothing is pending" in idle.said, idle.said


def test_a_worker_that_is_to_train_on_a_gpu_never_does_on_the_cpu(deployed: Deployment, pipeline: Any) -> None:
    (task,) = insert_tasks(pipeline)
    compose = yaml.safe_load((ROOT / "deploy/docker/compose.gpu.yaml").read_text())
    # This container is given no GPU; to torch that is what a driver is that is too old for it.
    code, said = deployed.run(*compose["services"]["worker"]["command"])
    assert code == 78 and "there is no device 'cuda' here" in said, said
    assert len(pipeline.TrainingAttempt()) == 0
    assert (pipeline.TrainingResult.jobs & {"training_task_md5_hash": task}).fetch1("status") == "pending"


def test_a_container_with_a_wrong_flag_ends_with_78(deployment: Deployment) -> None:
    code, said = deployment.run("populate", "--grase", "3")
    assert code == 78 and "--grase" in said, said


def test_a_container_whose_user_the_database_does_not_know_ends_with_78(deployment: Deployment) -> None:
    deployment.give("database.user", "nobody_of_this_name")
    code, said = deployment.run("populate", "--db-timeout", "1")
    assert code == 78 and "nobody_of_this_name" in said, said


def test_a_container_without_tables_ends_with_78_and_says_who_makes_them(deployment: Deployment) -> None:
    code, said = deployment.run("populate")
    assert code == 78 and "synicix-run init" in said, said


def test_a_container_that_does_not_reach_the_database_ends_with_75(deployment: Deployment) -> None:
    with deployment.wire.away():
        code, said = deployment.run("populate", "--db-timeout", "1")
    assert code == 75, said


def test_a_container_that_cannot_write_results_ends_with_78(deployed: Deployment, pipeline: Any) -> None:
    insert_tasks(pipeline)
    results = deployed.folder / "results"
    code, said = deployed.run("populate", options=("--mount", f"type=bind,src={results},dst=/data/results/models,ro"))
    assert code == 78 and "/data/results/models" in said, said


def test_a_worker_is_not_root_and_finds_nothing_to_write_but_its_volumes(deployment: Deployment) -> None:
    script = (
        "id -u; id -un; grep CapEff /proc/self/status; "
        "find / -xdev -writable -not -path '/proc/*' -not -type l 2>/dev/null; "
        "touch /opt/venv/x /project/x; python -c 'import torch; print(torch.zeros(2).sum())'"
    )
    container = deployment.start("-c", script, options=("--entrypoint", '["sh"]'))
    assert container.end() == 0, container.said
    lines = container.said.splitlines()
    assert lines[:3] == ["10001", "synicix", "CapEff:\t0000000000000000"]
    assert "tensor(0.)" in lines
    assert sum("Read-only file system" in line for line in lines) == 2, container.said


def _here(command: str, deployment: Deployment) -> list[str]:
    """Return what stands behind ``docker run`` on the page, for the folders, the image and the podman of this test."""
    text = _LEFT_OUT.sub("", command.replace("\\\n", "").replace("synicix-cache:", "/lab/cache:"))
    words = shlex.split(text.replace("$PWD/", "/lab/").replace("/lab/", f"{deployment.folder}/"))
    (place,) = (index for index, word in enumerate(words) if word.startswith("synicix:"))
    return [*host_options(), *words[:place], deployment.image, *words[place + 1 :]]


def _attempt(pipeline: Any, number: int) -> Any:
    rows = (pipeline.TrainingAttempt & {"attempt": number}).to_dicts()
    return rows[0] if rows else None
