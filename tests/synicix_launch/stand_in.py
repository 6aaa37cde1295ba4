"""Programs of schedulers that are not here: each writes down how it was called, and answers as it was told to."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

_SCRIPT = """#!{python} -IS
import json, os, sys
call = {{"arguments": sys.argv[1:], "stdin": sys.stdin.read(), "folder": os.getcwd(), "environment": dict(os.environ)}}
with open({calls!r}, "a") as file:
    file.write(json.dumps(call) + "\\n")
for answer in json.load(open({answers!r})):
    if answer["to"] in sys.argv[1:] or answer["to"] == "":
        sys.stdout.write(answer["stdout"]), sys.stderr.write(answer["stderr"])
        sys.exit(answer["code"])
sys.exit("unexpected: " + " ".join(sys.argv))
"""


@dataclass
class StandIn:
    """A program on PATH that takes the place of a scheduler's."""

    name: str
    folder: Path

    def answers(self, to: str = "", *, code: int = 0, stdout: str = "", stderr: str = "") -> StandIn:
        """Answer calls that have the argument `to` so from now on; the last answer that fits counts."""
        told = json.loads(self._answers.read_text())
        self._answers.write_text(json.dumps([{"to": to, "code": code, "stdout": stdout, "stderr": stderr}, *told]))
        return self

    @property
    def calls(self) -> list[dict[str, Any]]:
        """How it was called: ``arguments``, ``stdin``, ``folder``, ``environment``."""
        path = self.folder / f"{self.name}.calls"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    @property
    def _answers(self) -> Path:
        return self.folder / f"{self.name}.answers"

    def install(self, monkeypatch: pytest.MonkeyPatch) -> StandIn:
        """Put it first on PATH."""
        program = self.folder / "bin" / self.name
        program.parent.mkdir(exist_ok=True)
        calls = str(self.folder / f"{self.name}.calls")
        program.write_text(_SCRIPT.format(python=sys.executable, calls=calls, answers=str(self._answers)))
        program.chmod(0o755)
        self._answers.write_text("[]")
        if str(program.parent) not in os.environ["PATH"].split(os.pathsep):
            monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
        return self
