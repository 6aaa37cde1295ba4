"""Which layouts can be written, and by what."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path

from synicix_neurodata.writers import Plan, Writer

__all__ = ["WRITTEN", "WrittenLayout"]


@dataclass(frozen=True)
class WrittenLayout:
    """A layout that can be written.

    Attributes
    ----------
    name : str
        As the command line takes it.
    summary : str
    target : str
        ``module:attribute`` of what opens the writer.
    movie : bool
        Whether its trials have frames.
    prefix, suffix : str
        Of the names of its files.
    """

    name: str
    summary: str
    target: str
    movie: bool
    prefix: str
    suffix: str

    def open(self, path: Path, plan: Plan) -> Writer:
        """Return a writer for a path that nobody else uses yet."""
        module, attribute = self.target.split(":")
        writer: Writer = getattr(importlib.import_module(f"synicix_neurodata.writers.{module}"), attribute)(path, plan)
        return writer


WRITTEN = {
    layout.name: layout
    for layout in (
        WrittenLayout(
            "static-hdf5", "one HDF5 file, an image per trial", "static_hdf5:StaticHdf5Writer", False, "static", ".h5"
        ),
    )
}
"""By name, the first is the default."""
