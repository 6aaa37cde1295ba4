"""A worker's progress as plain lines, for notebooks, log files and pipes."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from synicix_core.runner.group_words import tasks_named

__all__ = ["Lines", "short_name"]


class Lines:
    """Prints a line for each task that begins or ends, and for each sentence that people should read.

    Parameters
    ----------
    stream : text file, optional
        Standard error by default, so that data on standard output stays clean.
    prefix : str, optional
        What each line begins with.
    """

    def __init__(self, stream: TextIO | None = None, prefix: str = "") -> None:
        self._stream = stream or sys.stderr
        self._prefix = prefix

    def message(self, text: str) -> None:
        """Print a sentence."""
        self._print(text)

    def task_started(self, task: str, configs: Mapping[str, Any], attempt: int, pending: int) -> None:
        """Print what is trained on what."""
        again = f" (attempt {attempt})" if attempt > 1 else ""
        model, data = short_name(configs["model_provider"]), configs["dataset_file_name"]
        self._print(f"{task[:8]}{again}: {model} on {data}, {pending} pending")

    def group_started(self, group: Mapping[str, Mapping[str, Any]], pending: int) -> None:
        """Print which tasks are trained as one, and how many are left besides."""
        configs = next(iter(group.values()))
        model, data = short_name(configs["model_provider"]), configs["dataset_file_name"]
        named = tasks_named(list(group), "are claimed as a group ")
        self._print(f"{named}: {model} on {data}, {pending} pending")

    def epoch_finished(self, task: str, fields: Mapping[str, Any]) -> None:
        """Print nothing: a log file does not want a line for each epoch."""

    def task_finished(self, task: str, result: Mapping[str, Any], seconds: float) -> None:  # noqa: ARG002 - for estimates
        """Print the score, and how long it was trained, as `results` says it; of a task of a group that is its share."""
        score = "none" if result["test_score"] is None else f"{result['test_score']:.4g}"
        trained = result["train_seconds"]
        self._print(f"{task[:8]}: {result['status']} after {result['epochs']} epochs, score {score}, {trained:.1f} s")

    def task_ended(self, task: str, how: str, why: str) -> None:
        """Print why there is no result."""
        self._print(f"{task[:8]}: {how}: {why}")

    def group_ended(self, tasks: Sequence[str], how: str, text: str) -> None:  # noqa: ARG002 - the sentence says it all
        """Print why there are no results."""
        self._print(text)

    def close(self) -> None:
        """Flush."""
        self._stream.flush()

    def _print(self, text: str) -> None:
        print(f"{self._prefix}{text}", file=self._stream, flush=True)


def short_name(qualified: str) -> str:
    """Return the name that people use for a provider: ``SimpleMLP`` of ``synicix-mlp/SimpleMLP``."""
    return qualified.rpartition("/")[2]
