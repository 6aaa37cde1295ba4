"""Read the fenced blocks of a page, and run what they say as a reader would: one after another, in one place."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Block", "Reader", "blocks", "shows"]

_FENCE = re.compile(
    r"(?:^\*\*`(?P<file>[^`\n]+)`\*\*\n\n)?^```(?P<language>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
_LIMIT_SECONDS = 180
# What is trained is tiny: a second thread only takes the core from the next process.
SURROUNDINGS = {"NO_COLOR": "1", "OMP_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Block:
    """One fenced block.

    Attributes
    ----------
    language, text : str
        What stands behind the fence, and what is in it.
    file : str
        Name of the file that it is to be written to, from where the reader is; empty where the page names none.
    section : str
        Heading of the second level that it stands under.
    """

    language: str
    text: str
    file: str
    section: str


def blocks(page: str) -> Iterator[Block]:
    """Yield the blocks of a page in order."""
    for part in re.split(r"^## ", page, flags=re.MULTILINE):
        section = part.partition("\n")[0]
        for match in _FENCE.finditer(part):
            yield Block(match["language"], match["text"], match["file"] or "", section)


@dataclass
class Reader:
    """Somebody who follows a page.

    Attributes
    ----------
    home, folder : Path
        Where they began, and where they are now.
    variables : dict
        Their environment variables, beside those of this process.
    output : str
        What the last block that ran has printed.
    """

    home: Path
    folder: Path = field(init=False)
    variables: dict[str, str] = field(default_factory=dict)
    output: str = ""

    def __post_init__(self) -> None:
        self.folder = self.home
        programs = Path(sys.executable).parent
        self.variables = {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", **SURROUNDINGS, **self.variables}

    def write(self, block: Block) -> None:
        """Write a block to the file that the page names."""
        path = self.folder / block.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text, encoding="utf-8")

    def shell(self, text: str, change: Callable[[str], str] = str) -> None:
        """Run shell commands where the reader is, and go where they lead; `change` may alter the text first."""
        self._run("sh", "-ec", f"{change(text)}\npwd > '{self.home}/.where'")
        self.folder = Path((self.home / ".where").read_text().strip())

    def python(self, text: str) -> None:
        """Run a script where the reader is."""
        self._run("python", "-c", text)

    def _run(self, *command: str) -> None:
        done = subprocess.run(
            command,
            cwd=self.folder,
            env={**os.environ, **self.variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_LIMIT_SECONDS,
        )
        assert done.returncode == 0, f"{command[-1]}\n{done.stdout}\n{done.stderr}"
        self.output = done.stdout


def shows(output: str, shown: str) -> bool:
    """Tell whether a page shows the whole output, but for lines in whose place it has a line `…`."""
    return _shows(_inexact(output), _inexact(shown))


def _shows(printed: list[str], wanted: list[str]) -> bool:
    if not wanted:
        return not printed
    if wanted[0] == "…":
        return any(_shows(printed[start:], wanted[1:]) for start in range(1, len(printed) + 1))
    return bool(printed) and printed[0] == wanted[0] and _shows(printed[1:], wanted[1:])


def _inexact(text: str) -> list[str]:
    """Return the lines of an output without what another machine prints otherwise: hashes, decimals, times, spacing."""
    text = re.sub(r"\b(?=[0-9a-f]*\d)[0-9a-f]{8,64}\b", "<hash>", text)
    text = re.sub(r"\b(?:\d+ min )?\d+(?:\.\d+)? s\b", "<time>", text)
    text = re.sub(r"\d+\.\d+", "<number>", text)
    return [" ".join(line.split()) for line in text.splitlines() if line.strip()]
