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
        WrittenLayout(
            "movie-hdf5", "one HDF5 file, a clip per trial", "movie_hdf5:MovieHdf5Writer", True, "movies", ".h5"
        ),
        WrittenLayout(
            "static-tree", "a folder with an image per trial, as .npy", "file_tree:FileTreeWriter", False, "static", ""
        ),
        WrittenLayout(
            "static-tree-zip", "the same as one zip file", "file_tree:FileTreeZipWriter", False, "static", ".zip"
        ),
        WrittenLayout(
            "movie-tree", "a folder with a clip per trial, as .npy", "file_tree:FileTreeWriter", True, "dynamic", ""
        ),
        WrittenLayout(
            "movie-tree-zip", "the same as one zip file", "file_tree:FileTreeZipWriter", True, "dynamic", ".zip"
        ),
        WrittenLayout(
            "open-retina",
            "a folder with the stimulus of each trial as .npy and the responses in one HDF5 file",
            "open_retina:OpenRetinaWriter",
            True,
            "retina",
            "",
        ),
        WrittenLayout(
            "nwb-ophys",
            "one NWB file, an image per trial, traces of cells",
            "nwb:NwbTracesWriter",
            False,
            "static",
            ".nwb",
        ),
        WrittenLayout(
            "nwb-units", "one NWB file, an image per trial, spike times", "nwb:NwbUnitsWriter", False, "units", ".nwb"
        ),
        WrittenLayout(
            "nwb-movie", "one NWB file, a clip per trial, traces of cells", "nwb:NwbMovieWriter", True, "movies", ".nwb"
        ),
        WrittenLayout(
            "experanto",
            "experanto's folder, an image per trial and signals at 10 Hz",
            "experanto:ExperantoWriter",
            False,
            "experanto",
            "",
        ),
        WrittenLayout(
            "experanto-movie",
            "experanto's folder, a video per trial and signals at its frame rate",
            "experanto:ExperantoWriter",
            True,
            "experanto-movies",
            "",
        ),
    )
}
"""By name, the first is the default."""
