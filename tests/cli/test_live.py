"""What a worker shows on a terminal."""

from __future__ import annotations

import io
import re

import pytest

from synicix_core.cli.live import Live, Once, can_redraw
from synicix_core.runner.lines import Lines

TASK = "0123456789abcdef" * 2
CONFIGS = {"model_provider": "toy-lab/Line", "dataset_file_name": "line.txt", "epoch_limit": 10}
RESULT = {"status": "completed", "epochs": 10, "test_score": 0.5}


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
    return Screen()


def test_the_present_state_is_redrawn_and_the_past_stays(screen):
    live = Live(screen)
    live.message("training runs on cuda:0")
    live.task_started(TASK, CONFIGS, 1, 4)
    live._drawn_at = float("-inf")
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
        "01234567: completed after 10 epochs, score 0.5, 2.0 s",
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
