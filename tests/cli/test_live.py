"""What a worker, and several of them together, show on a terminal."""

from __future__ import annotations

import io
import re

import pytest

from synicix_core.cli.fleet_display import FleetLines, FleetLive
from synicix_core.cli.live import Live, Once, can_redraw
from synicix_core.runner.lines import Lines

TASK = "0123456789abcdef" * 2
CONFIGS = {"model_provider": "toy-lab/Line", "dataset_file_name": "line.txt", "epoch_limit": 10}
RESULT = {"status": "completed", "epochs": 10, "test_score": 0.5, "train_seconds": 1.5}
GROUP = {f"{number}" * 32: {**CONFIGS, "epoch_limit": 5 * number} for number in (1, 2, 3, 4)}
FIRST, SECOND, *REST = GROUP


class Screen(io.StringIO):
    """A terminal, as far as this display goes: text, and going up to clear what is below."""

    def isatty(self):
        return True

    def lines(self):
        rows = [""]
        for part in re.split(r"(\x1b\[\d+A\r\x1b\[J|\n)", self.getvalue()):
            if part == "\n":
                rows.append("")
            elif part.startswith("\x1b"):
                up = int(re.findall(r"\d+", part)[0])
                rows = [*rows[: len(rows) - 1 - up], ""]
            else:
                assert "\x1b" not in part
                rows[-1] += part
        return rows[:-1] if rows[-1] == "" else rows


@pytest.fixture
def screen(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "24")
    return Screen()


def test_the_present_state_is_redrawn_and_the_past_stays(screen):
    live = Live(screen)
    live.message("training runs on cuda:0")
    live.task_started(TASK, CONFIGS, 1, 4)
    live._bottom._drawn_at = float("-inf")
    live.epoch_finished(TASK, {"epoch": 5, "epoch_limit": 10, "train_loss": 0.25, "validation_loss": 0.5})
    assert screen.lines() == [
        "training runs on cuda:0",
        "01234567: Line on line.txt",
        "  [##########..........] epoch 5/10  train 0.25  validation 0.5",
        "  0 done, 0 failed, 4 pending",
    ]
    live.task_finished(TASK, RESULT, 2.0)
    assert screen.lines() == [
        "training runs on cuda:0",
        "01234567: completed after 10 epochs, score 0.5, 1.5 s",  # trained; 2 s with everything
        "  1 done, 0 failed, 3 pending, done in 6.0 s",
    ]
    live.task_started(TASK, CONFIGS, 2, 3)
    assert "01234567, attempt 2: Line on line.txt" in screen.lines()
    live.task_ended(TASK, "failed", "ValueError: bad")
    assert screen.lines()[-2:] == ["01234567: failed: ValueError: bad", "  1 done, 1 failed, 2 pending, done in 4.0 s"]
    live.task_started(TASK, CONFIGS, 1, 2)
    live.task_ended(TASK, "released", "it is pending again")
    assert screen.lines()[-1] == "  1 done, 1 failed, 2 pending, done in 4.0 s"
    live.close()
    assert screen.lines()[-1] == "01234567: released: it is pending again"
    live.close()


def test_fast_epochs_are_not_all_drawn(screen):
    live = Live(screen)
    live.task_started(TASK, CONFIGS, 1, 1)
    before = len(screen.getvalue())
    for epoch in range(1, 10):
        live.epoch_finished(TASK, {"epoch": epoch, "epoch_limit": 10})
    assert len(screen.getvalue()) - before < 300


def test_the_time_left_counts_only_the_tasks_asked_for(screen):
    live = Live(screen, max_tasks=2)
    live.task_started(TASK, CONFIGS, 1, 100)
    live.task_finished(TASK, RESULT, 2.0)
    assert screen.lines()[-1].endswith("99 pending, done in 2.0 s")
    live.task_started(TASK, CONFIGS, 1, 99)
    live.task_finished(TASK, RESULT, 2.0)
    assert screen.lines()[-1].endswith("98 pending")


def test_no_line_is_wider_than_the_terminal(screen, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    Live(screen).task_started(TASK, {**CONFIGS, "dataset_file_name": "a" * 100}, 1, 1)
    assert max(map(len, screen.lines())) == 39


def test_a_sentence_is_said_once_by_either_display(screen):
    for display in (Live(screen), Lines(screen)):
        once = Once(display)
        once.message("the trainer keeps no history")
        once.task_started(TASK, CONFIGS, 1, 1)
        once.message("the trainer keeps no history")
        once.message("something else")
        once.close()
    assert screen.getvalue().count("the trainer keeps no history") == 2
    assert screen.getvalue().count("something else") == 2


def test_only_a_terminal_is_drawn_on(screen, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    assert can_redraw(screen) and not can_redraw(io.StringIO())
    monkeypatch.setenv("TERM", "dumb")
    assert not can_redraw(screen)


def test_each_worker_has_a_line_and_all_have_their_totals(screen, monkeypatch):
    now = 100.0
    monkeypatch.setattr("synicix_core.cli.fleet_display.time.monotonic", lambda: now)
    live = FleetLive(screen, ("cuda:0", "cuda:1"))
    first, second = live.of("cuda:0"), live.of("cuda:1")
    first.message("training runs on a GPU")
    second.message("training runs on a GPU")
    first.task_started(TASK, CONFIGS, 1, 9)
    second.task_started("b" * 32, CONFIGS, 2, 8)
    live._bottom._drawn_at = float("-inf")
    first.epoch_finished(TASK, {"epoch": 5, "epoch_limit": 10, "train_loss": 0.25, "validation_loss": 0.5})
    assert screen.lines() == [
        "training runs on a GPU",
        "[cuda:0] 01234567: Line on line.txt  [#####.....] epoch 5/10  validation 0.5",
        "[cuda:1] bbbbbbbb, attempt 2: Line on line.txt  [..........] epoch 0/10",
        "  0 done, 0 failed, 9 pending",
    ]
    now = 102.0
    first.task_finished(TASK, RESULT, 2.0)
    second.task_ended("b" * 32, "failed", "ValueError: bad")
    live.printed("cuda:1", "printed by a trainer")
    assert screen.lines() == [
        "training runs on a GPU",
        "[cuda:0] 01234567: completed after 10 epochs, score 0.5, 1.5 s",
        "[cuda:1] bbbbbbbb: failed: ValueError: bad",
        "[cuda:1] printed by a trainer",
        "[cuda:0]",
        "[cuda:1]",
        "  1 done, 1 failed, 7 pending, 1 tasks a second, done in 7.0 s",
    ]
    first.task_started(TASK, CONFIGS, 1, 7)
    live.note("cuda:0", "crashed: it was killed by SIGKILL; started again in 1 s")
    assert screen.lines()[-3:] == [
        "[cuda:0] crashed: it was killed by SIGKILL; started again in 1 s",
        "[cuda:1]",
        "  1 done, 1 failed, 7 pending, 1 tasks a second, done in 7.0 s",
    ]
    second.task_started("c" * 32, CONFIGS, 1, 7)
    second.task_ended("c" * 32, "released", "it is pending again")
    assert " 7 pending" in screen.lines()[-1]
    live.close()
    assert screen.lines()[-1] == "[cuda:1] cccccccc: released: it is pending again"


def test_what_is_pending_is_counted_over_all_workers(screen):
    live = FleetLive(screen, ("1", "2"))
    shown = []
    # The first counts at its first and its fifth task, the second at its first; three of 20 are somebody else's.
    for worker, pending in (("1", 20), ("2", 19), ("1", 19), ("2", 18), ("1", 18), ("2", 17), ("1", 17), ("1", 10)):
        live.of(worker).task_started(TASK, CONFIGS, 1, pending)
        shown.append(int(re.findall(r"(\d+) pending", screen.lines()[-1])[0]))
        live.of(worker).task_finished(TASK, RESULT, 1.0)
    assert shown == [20, 19, 18, 17, 16, 15, 14, 10]


def test_more_workers_than_lines_leave_the_terminal_whole(screen, monkeypatch):
    monkeypatch.setenv("LINES", "8")
    live = FleetLive(screen, tuple(str(number) for number in range(1, 33)), max_tasks=3)
    live.of("32").task_started(TASK, {**CONFIGS, "dataset_file_name": "a" * 100}, 1, 50)
    lines = screen.lines()
    assert len(lines) == 7 and lines[-2] == "  and 27 more"
    # Those that train come first.
    assert lines[0].startswith("[32] 01234567: Line on a") and max(map(len, lines)) <= 79
    live.of("32").task_finished(TASK, RESULT, 1.0)
    assert "49 pending" in screen.lines()[-1]


def test_lines_of_several_workers_carry_their_names():
    stream = io.StringIO()
    lines = FleetLines(stream)
    for name in ("1", "2"):
        lines.of(name).message("no GPU was found; training runs on the CPU")
        lines.of(name).task_started(TASK, CONFIGS, 1, 4)
    lines.of("2").task_ended(TASK, "failed", "ValueError: bad")
    lines.note("1", "ended: nothing is pending")
    lines.printed("1", "a warning")
    lines.close()
    assert stream.getvalue().splitlines() == [
        "no GPU was found; training runs on the CPU",
        "[1] 01234567: Line on line.txt, 4 pending",
        "[2] 01234567: Line on line.txt, 4 pending",
        "[2] 01234567: failed: ValueError: bad",
        "[1] ended: nothing is pending",
        "[1] a warning",
    ]


def test_a_group_has_one_place_and_its_own_progress(screen):
    live = Live(screen)
    live.group_started(GROUP, 6)
    live._bottom._drawn_at = float("-inf")
    live.epoch_finished(REST[-1], {"epoch": 4, "epoch_limit": 20, "train_loss": 0.25})
    live._bottom._drawn_at = float("-inf")
    live.epoch_finished(FIRST, {"epoch": 3, "epoch_limit": 5, "train_loss": 0.25})  # resumed from an earlier epoch
    assert screen.lines() == [
        "4 tasks as one: Line on line.txt",
        "  [####................] epoch 4/20  4 of 4 left",
        "  0 done, 0 failed, 4 in training, 6 pending",
    ]
    live.task_finished(FIRST, RESULT, 2.0)
    live.task_ended(REST[-1], "failed", "ValueError: bad")
    assert screen.lines()[-3:] == [
        "4 tasks as one: Line on line.txt",
        "  [#####...............] epoch 4/15  2 of 4 left",
        "  1 done, 1 failed, 2 in training, 6 pending, done in 16 s",
    ]
    live.group_ended([SECOND, REST[0]], "released", "2 tasks are saved.")
    assert screen.lines()[-2:] == ["2 tasks are saved.", "  1 done, 1 failed, 8 pending, done in 16 s"]


def test_a_group_has_one_line_in_a_pipe():
    stream = io.StringIO()
    fleet = FleetLines(stream)
    fleet.of("2").group_started(GROUP, 6)
    fleet.of("2").message(
        "11111111 and 3 others are trained as one: with 4 a step takes 0.20 ms for each, alone 0.50 ms."
    )
    fleet.of("2").task_finished(FIRST, RESULT, 2.0)
    fleet.of("2").group_ended(REST, "released", "2 tasks are saved.")
    assert stream.getvalue().splitlines() == [
        "[2] 4 tasks are claimed as a group (11111111, 22222222, 33333333, …): Line on line.txt, 6 pending",
        "[2] 11111111 and 3 others are trained as one: with 4 a step takes 0.20 ms for each, alone 0.50 ms.",
        "[2] 11111111: completed after 10 epochs, score 0.5, 1.5 s",
        "[2] 2 tasks are saved.",
    ]


def test_groups_of_several_workers_have_a_line_each(screen, monkeypatch):
    monkeypatch.setenv("COLUMNS", "98")
    live = FleetLive(screen, ("1", "2"))
    first, second = live.of("1"), live.of("2")
    first.group_started(GROUP, 6)
    live._bottom._drawn_at = float("-inf")
    first.epoch_finished(SECOND, {"epoch": 5, "epoch_limit": 10})
    second.task_started(TASK, CONFIGS, 1, 6)
    assert screen.lines() == [
        "[1] 4 tasks as one: Line on line.txt  [##........] epoch 5/20  4 of 4 left",
        "[2] 01234567: Line on line.txt  [..........] epoch 0/10",
        "  0 done, 0 failed, 4 in training, 6 pending",
    ]
    first.task_finished(FIRST, RESULT, 2.0)
    assert "3 of 4 left" in screen.lines()[-3] and "1 done, 0 failed, 3 in training, 6 pending" in screen.lines()[-1]
    live.note("1", "crashed: it was killed by SIGKILL; started again in 1 s")
    assert "1 done, 0 failed, 9 pending" in screen.lines()[-1]


def test_a_sentence_about_a_task_names_its_worker(screen):
    lines, live = FleetLines(stream := io.StringIO()), FleetLive(screen, ("1", "2"))
    for display in (lines, live):
        for worker in ("1", "2"):
            display.of(worker).message("01234567: the profile of 50 steps is in a file.")
            display.of(worker).message("Tasks like 01234567 are trained one by one: it branches.")
            display.of(worker).message("no GPU was found; training runs on the CPU")
    expected = [
        "[1] 01234567: the profile of 50 steps is in a file.",
        "[1] Tasks like 01234567 are trained one by one: it branches.",
        "no GPU was found; training runs on the CPU",
        "[2] 01234567: the profile of 50 steps is in a file.",
        "[2] Tasks like 01234567 are trained one by one: it branches.",
    ]
    assert stream.getvalue().splitlines() == expected
    assert screen.lines()[:5] == expected
