"""A worker's progress as plain lines, for notebooks, log files and pipes."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, TextIO

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

    def epoch_finished(self, task: str, fields: Mapping[str, Any]) -> None:
        """Print nothing: a log file does not want a line for each epoch."""

    def task_finished(self, task: str, result: Mapping[str, Any], seconds: float) -> None:
        """Print the score."""
        score = "none" if result["test_score"] is None else f"{result['test_score']:.4g}"
        self._print(f"{task[:8]}: {result['status']} after {result['epochs']} epochs, score {score}, {seconds:.1f} s")

    def task_ended(self, task: str, how: str, why: str) -> None:
        """Print why there is no result."""
        self._print(f"{task[:8]}: {how}: {why}")

    def close(self) -> None:
        """Flush."""
        self._stream.flush()

    def _print(self, text: str) -> None:
        print(f"{self._prefix}{text}", file=self._stream, flush=True)


def short_name(qualified: str) -> str:
    """Return the name that people use for a provider: ``SimpleMLP`` of ``synicix-mlp/SimpleMLP``."""
    return qualified.rpartition("/")[2]
