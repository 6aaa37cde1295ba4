"""Several workers on one GPU: which workers there are, and NVIDIA's MPS around them, played by a script."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from synicix_core.cli.fleet import plan_workers
from synicix_core.cli.fleet_display import FleetLines
from synicix_core.runner.fleet import Fleet, FleetOptions
from synicix_core.runner.fleet_display import FleetDisplay
from synicix_core.runner.fleet_gpus import MultiProcessService, visible_gpus
from tests.rows import insert_tasks

CONTROL = """#!/bin/sh
if [ "$1" = -d ]; then
    echo "start $CUDA_MPS_PIPE_DIRECTORY $CUDA_MPS_LOG_DIRECTORY ${CUDA_VISIBLE_DEVICES-all} \\
${CUDA_MPS_ACTIVE_THREAD_PERCENTAGE-untouched}" >> "$MPS_DIARY"
    if [ -n "$MPS_REFUSES" ]; then echo "An instance of this daemon is not allowed" >&2; exit 1; fi
    [ -d "$CUDA_MPS_PIPE_DIRECTORY" ] && touch "$CUDA_MPS_PIPE_DIRECTORY/control"
    # What a daemon leaves running keeps what it prints to open.
    sleep 5 &
    exit 0
fi
read command
echo "$command $CUDA_MPS_PIPE_DIRECTORY" >> "$MPS_DIARY"
[ -e "$CUDA_MPS_PIPE_DIRECTORY/control" ]
"""


def program(folder: Path, name: str, text: str) -> None:
    file = folder / name
    file.write_text(text)
    file.chmod(0o755)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The first folder on the PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    for name in ("CUDA_VISIBLE_DEVICES", "CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"):
        monkeypatch.delenv(name, raising=False)
    return folder


@pytest.fixture
def diary(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """MPS is installed; what it is told stands in this file."""
    file = tmp_path / "diary"
    file.touch()
    monkeypatch.setenv("MPS_DIARY", str(file))
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", str(tmp_path / "usual"))
    program(path, "nvidia-cuda-mps-control", CONTROL)
    return file


def plan(*, workers: int | None = None, each: int | None = None, device: str | None = None) -> list[tuple[str, str]]:
    given = device is not None
    return list(plan_workers(workers, None, each, device or "auto", device_given=given))


def test_each_gpu_that_is_visible_gets_so_many_workers(path: Path) -> None:
    program(
        path,
        "nvidia-smi",
        '#!/bin/sh\n[ "$1" = --list-gpus ] && echo "GPU 0: H (UUID: x)" && echo "GPU 1: H (UUID: y)"\n',
    )
    assert visible_gpus() == ("cuda:0", "cuda:1")
    two = [("cuda:0 #1", "cuda:0"), ("cuda:0 #2", "cuda:0"), ("cuda:1 #1", "cuda:1"), ("cuda:1 #2", "cuda:1")]
    assert plan(each=2) == two == plan(each=2, workers=4)
    assert plan(each=2, device="cuda:1") == [("1", "cuda:1"), ("2", "cuda:1")], "the one that somebody typed"
    assert plan(workers=2) == [("1", "auto"), ("2", "auto")], "as before"
    with pytest.raises(ValueError, match="--workers 3 contradicts --workers-per-device 2: this machine has 2 GPUs"):
        plan(each=2, workers=3)


@pytest.mark.parametrize(
    ("mask", "number"), [("0", 1), ("1,0,3", 3), ("GPU-8a,GPU-9b", 2), ("", 0), ("-1", 0), ("0,-1,1", 1)]
)
def test_the_mask_says_which_gpus_are_visible(
    path: Path, monkeypatch: pytest.MonkeyPatch, mask: str, number: int
) -> None:
    program(path, "nvidia-smi", "#!/bin/sh\necho 'GPU 0: H (UUID: x)'\n")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", mask)
    assert visible_gpus() == tuple(f"cuda:{index}" for index in range(number))


def test_without_a_gpu_there_are_so_many_workers_on_the_one_device(path: Path) -> None:
    assert visible_gpus() == () and plan(each=2) == [("1", "auto"), ("2", "auto")]
    program(path, "nvidia-smi", "#!/bin/sh\necho 'NVIDIA-SMI has failed'\nexit 9\n")
    assert visible_gpus() == ()


def test_a_fleet_starts_an_mps_of_its_own_and_ends_it(diary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    told: list[str] = []
    service = MultiProcessService(["cuda:0", "cuda:0", "cuda:1", "cpu", "cpu"], told.append)
    pipes, logs = service.environment["CUDA_MPS_PIPE_DIRECTORY"], service.environment["CUDA_MPS_LOG_DIRECTORY"]
    assert pipes != os.environ["CUDA_MPS_PIPE_DIRECTORY"] and len(pipes) < 80 and Path(logs).is_dir()
    assert set(service.environment) == {"CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_LOG_DIRECTORY"}
    assert told == ["The workers share cuda:0 through an MPS of their own, which ends with them."]
    service.stop()
    service.stop()
    assert diary.read_text().splitlines() == [
        f"get_server_list {os.environ['CUDA_MPS_PIPE_DIRECTORY']}",
        f"start {pipes} {logs} all untouched",
        f"quit {pipes}",
    ]
    assert not Path(pipes).parent.exists()


def test_one_that_runs_already_is_used_and_left_alone(diary: Path) -> None:
    usual = Path(os.environ["CUDA_MPS_PIPE_DIRECTORY"])
    usual.mkdir()
    (usual / "control").touch()
    told: list[str] = []
    service = MultiProcessService(["cuda:0", "cuda:0"], told.append)
    service.stop()
    assert service.environment == {} and told == ["The workers share cuda:0 through the MPS that runs already."]
    assert diary.read_text().split() == ["get_server_list", str(usual)]


def test_one_that_cannot_be_started_is_done_without(diary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPS_REFUSES", "yes")
    told: list[str] = []
    service = MultiProcessService(["cuda:0", "cuda:0"], told.append)
    service.stop()
    assert service.environment == {} and "quit" not in diary.read_text()
    assert "take turns there: MPS could not be started (An instance of this daemon is not allowed)." in told[0]


def test_where_it_is_not_installed_people_are_told(path: Path) -> None:
    told: list[str] = []
    assert MultiProcessService(["cuda", "cuda"], told.append).environment == {}
    assert told == ["The workers on cuda take turns there: NVIDIA's MPS (nvidia-cuda-mps-control) is not installed."]


@pytest.mark.parametrize("devices", [["cuda:0", "cuda:1"], ["cpu", "cpu"], ["auto", "auto"], []])
def test_nobody_who_is_alone_on_a_gpu_gets_any(diary: Path, devices: list[str]) -> None:
    told: list[str] = []
    assert MultiProcessService(devices, told.append).environment == {}
    assert told == [] and diary.read_text() == ""


def test_the_workers_get_the_environment_and_it_ends_after_them(tmp_path: Path) -> None:
    found = tmp_path / "found"
    code = f"import os; open({str(found)!r}, 'a').write(os.environ['CUDA_MPS_PIPE_DIRECTORY'] + '\\n')"
    workers = (("a", "cuda:0"), ("b", "cuda:0"))
    options = FleetOptions((sys.executable, "-c", code), workers, environment={"CUDA_MPS_PIPE_DIRECTORY": "/private"})
    ends: list[str] = []
    display: FleetDisplay = FleetLines()
    Fleet(options, display, afterwards=lambda: ends.append(found.read_text())).run()
    assert ends == ["/private\n/private\n"]


@pytest.mark.database
def test_populate_starts_and_ends_it_around_its_workers(pipeline, diary: Path) -> None:
    insert_tasks(pipeline)
    command = [sys.executable, "-m", "synicix_core.cli", "populate", "--device", "cuda:77", "--workers-per-device", "2"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 78 and "there is no device 'cuda:77' here" in ended.stderr
    assert "The workers share cuda:77 through an MPS of their own" in ended.stderr
    assert [line.split()[0] for line in diary.read_text().splitlines()] == ["get_server_list", "start", "quit"]
