"""Makes tiny wheels: plugins that say what they need and provide."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

__all__ = ["make_wheel"]


def make_wheel(
    folder: Path, name: str, version: str, modules: Mapping[str, str], *, hooks: str, requires: Sequence[str] = ()
) -> Path:
    """Write the wheel of a plugin.

    Parameters
    ----------
    folder : Path
        Where to.
    name, version : str
        Of the distribution.
    modules : mapping of str to str
        Path in the wheel and content of each module.
    hooks : str
        The hook module.
    requires : sequence of str, optional
        What the distribution depends on.
    """
    stem = f"{name.replace('-', '_')}-{version}"
    info = f"{stem}.dist-info"
    lines = [
        "Metadata-Version: 2.1",
        f"Name: {name}",
        f"Version: {version}",
        *(f"Requires-Dist: {r}" for r in requires),
    ]
    files = {
        **modules,
        f"{info}/METADATA": "\n".join(lines) + "\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[synicix]\n{name} = {hooks}\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"])
    path = folder / f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for place, content in files.items():
            wheel.writestr(place, content)
    return path
