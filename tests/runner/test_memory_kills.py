"""How many processes the kernel killed for want of memory, read from where each kind of control group counts them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from synicix_core.runner import memory_kills
from synicix_core.runner.memory_kills import count_memory_kills

UNIFIED = "low 11\nhigh 12\nmax 13\noom 14\noom_kill {kills}\noom_group_kill 15\n"
OLDER = "oom_kill_disable 16\nunder_oom 17\noom_kill {kills}\n"
"""Every other number is one that no test expects, so that a wrong key is a wrong count."""

OLDER_GROUPS = "12:cpu,cpuacct:/job/other\n5:freezer,memory:/job/7\n1:name=systemd:/job/7\n"
"""Of the older hierarchies each has a group of its own; only that of the memory counts."""

GROUPS = "proc/self/cgroup"
ROOT = "sys/fs/cgroup"

Machine = Callable[[dict[str, str | bytes]], Path]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Lay files into a directory that the module takes for the root of the file system."""

    def lay(files: dict[str, str | bytes]) -> Path:
        for name, content in files.items():
            file = tmp_path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content if isinstance(content, bytes) else content.encode())
        return tmp_path

    def below(path: str) -> Path:
        assert path.startswith("/")
        return tmp_path / path[1:]

    monkeypatch.setattr(memory_kills, "Path", below)
    return lay


@pytest.mark.parametrize(
    ("groups", "counted"),
    [
        ("0::/job/7\n", {"job/7/memory.events": UNIFIED, "memory.events": UNIFIED, "job/memory.events": UNIFIED}),
        (
            OLDER_GROUPS,
            {
                "memory/job/7/memory.oom_control": OLDER,
                "memory/memory.oom_control": OLDER,
                "memory/job/other/memory.oom_control": OLDER,
                "job/7/memory.events": UNIFIED,
            },
        ),
        # Both at once, where the memory is not in the unified hierarchy: its group there counts nothing.
        (f"{OLDER_GROUPS}0::/job/8\n", {"memory/job/7/memory.oom_control": OLDER, "memory/memory.oom_control": OLDER}),
        # A container that sees its own group as the root.
        ("0::/\n", {"memory.events": UNIFIED}),
        ("5:memory:/\n", {"memory/memory.oom_control": OLDER}),
        # One whose group lies outside of what it sees, as it is where the host's groups are shown by their own names.
        ("0::/docker/5a\n", {"memory.events": UNIFIED}),
        ("0::/../other\n", {"memory.events": UNIFIED}),
        ("5:memory:/docker/5a\n", {"memory/memory.oom_control": OLDER}),
        # A group that has a colon in its name.
        ("0::/user:7/job\n", {"user:7/job/memory.events": UNIFIED}),
    ],
    ids=[
        *("unified", "older", "both", "unified root", "older root"),
        *("unified, not seen", "unified, outside", "older, not seen", "a colon"),
    ],
)
def test_the_count_is_that_of_this_processes_own_group(machine: Machine, groups: str, counted: dict[str, str]) -> None:
    (own, form), *others = counted.items()
    root = machine({GROUPS: groups, **{f"{ROOT}/{name}": other.format(kills=90) for name, other in others}})
    for kills in (0, 1, 3, 1204):  # it is read anew each time
        machine({f"{ROOT}/{own}": form.format(kills=kills)})
        assert count_memory_kills() == kills
    # Without the group's own file the root of the hierarchy may tell, which is the first of the others here.
    (root / ROOT / own).unlink()
    assert count_memory_kills() == (90 if others else 0)


@pytest.mark.parametrize(
    ("groups", "own", "above"),
    [
        ("0::/job/7\n", "job/7/memory.events", "memory.events"),
        ("5:memory:/job/7\n", "memory/job/7/memory.oom_control", "memory/memory.oom_control"),
    ],
    ids=["unified", "older"],
)
@pytest.mark.parametrize(
    "content",
    [
        "",
        "oom 14\noom_group_kill 15\n",
        "oom_kill_disable 16\nunder_oom 17\n",  # as kernels before 4.13 have it
        "oom_kill\n",
        "oom_kill \n",
        "oom_kill many\n",
        "oom_kill: 18\n",
        b"oom_kill 1\xb2\n",
        b"\xff\xfe\0\n",
    ],
)
def test_a_file_that_does_not_tell_is_passed_over(
    machine: Machine, groups: str, own: str, above: str, content: str | bytes
) -> None:
    machine({GROUPS: groups, f"{ROOT}/{own}": content})
    assert count_memory_kills() == 0
    machine({f"{ROOT}/{above}": "oom_kill 5\n"})
    assert count_memory_kills() == 5


@pytest.mark.parametrize("groups", ["", "1:name=systemd:/job/7\n", "5:cpu,memoryless:/job/7\n", "5:cpu:/memory\n"])
def test_a_process_without_a_group_for_memory_counts_nothing(machine: Machine, groups: str) -> None:
    folders = ("", "job/7/", "memory/", "memory/job/7/")
    names = [f"{ROOT}/{folder}{name}" for folder in folders for name in ("memory.events", "memory.oom_control")]
    machine({GROUPS: groups, **dict.fromkeys(names, "oom_kill 5\n")})
    assert count_memory_kills() == 0


@pytest.mark.parametrize("line", ["", "memory", "5:memory", "::", "5"])
def test_a_line_that_names_no_group_keeps_none_from_being_found(machine: Machine, line: str) -> None:
    machine({GROUPS: f"{line}\n0::/job/7\n{line}\n", f"{ROOT}/job/7/memory.events": "oom_kill 5\n"})
    assert count_memory_kills() == 5


def test_a_machine_without_control_groups_counts_nothing(machine: Machine) -> None:
    assert count_memory_kills() == 0
    root = machine({f"{ROOT}/memory.events": "oom_kill 5\n"})
    assert count_memory_kills() == 0
    machine({GROUPS: "0::/\n"})
    assert count_memory_kills() == 5
    (root / GROUPS).unlink()
    assert count_memory_kills() == 0


@pytest.mark.parametrize("unreadable", [GROUPS, f"{ROOT}/memory.events"])
def test_what_cannot_be_read_counts_nothing(machine: Machine, unreadable: str) -> None:
    files: dict[str, str | bytes] = {GROUPS: "0::/\n", f"{ROOT}/memory.events": "oom_kill 5\n"}
    root = machine(files)
    assert count_memory_kills() == 5
    # A directory: whoever is root may read any file.
    (root / unreadable).unlink()
    (root / unreadable).mkdir()
    assert count_memory_kills() == 0


def test_a_group_whose_name_is_no_text_is_read_all_the_same(machine: Machine) -> None:
    machine({GROUPS: b"0::/job-\xff\n", f"{ROOT}/memory.events": UNIFIED.format(kills=3)})
    assert count_memory_kills() == 3
