"""examples/configuration.ipynb runs from top to bottom in an empty directory, and draws its figures."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[2] / "examples" / "configuration.ipynb"


def read() -> Any:
    return nbformat.read(NOTEBOOK, as_version=4)


def test_the_notebook_holds_no_outputs_and_nothing_of_who_ran_it() -> None:
    notebook = read()
    nbformat.validate(notebook)
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    for cell in notebook.cells:
        assert not cell.metadata
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None


@pytest.mark.database
@pytest.mark.slow
def test_the_notebook_runs_and_draws_its_figures(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from synicix_core import Pipeline

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    # The kernel is the one beside this Python, whatever kernels the machine has.
    monkeypatch.setenv("JUPYTER_PATH", str(Path(sys.prefix) / "share" / "jupyter"))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    notebook = read()
    client = NotebookClient(
        notebook, timeout=180, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()

    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    figures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(figures) == 2
    assert all(len(figure.data["image/png"]) > 5000 for figure in figures)
    text = "".join(output.get("text", "") for output in outputs)
    stored, by_hand, evaluated = (text.split(f"{name} ")[1].split()[0] for name in ("stored", "by hand", "evaluate"))
    assert stored == by_hand == evaluated

    monkeypatch.chdir(tmp_path / "configuration-project")
    pipeline = Pipeline()
    assert len(pipeline.TrainingTask()) == len(pipeline.TrainingResult()) == 8
    pipeline.connection.close()
