"""Put the files of a pod's volumes on this disk, the way a node does it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tests.deploy.manifests import Manifest, Pod, by_name, quantity

__all__ = ["SECRET", "environment", "fill"]

SECRET = {"database.user": "ann", "database.password": "correct horse\n"}
"""What ``kubectl create secret generic datajoint-credentials --from-file=...`` makes of two files; editors end a line."""


def fill(folder: Path, pod: Pod, documents: Iterable[Manifest], secrets: Mapping[str, Mapping[str, str]]) -> None:
    """Make a folder for each volume of a pod, and fill those of ConfigMaps and Secrets.

    Parameters
    ----------
    folder : Path
        Gets a folder of the name of each volume.
    pod : Pod
        Whose volumes.
    documents
        Where the ConfigMaps are.
    secrets : mapping
        ``{name: {key: text}}``.
    """
    documents = list(documents)
    for volume in pod.spec["volumes"]:
        place = folder / volume["name"]
        place.mkdir(parents=True)
        if "configMap" in volume:
            data = by_name(documents, f"ConfigMap/{volume['configMap']['name']}")["data"]
            _project(place, data, volume["configMap"], 0o644)
        elif "secret" in volume:
            _project(place, secrets[volume["secret"]["secretName"]], volume["secret"], volume["secret"]["defaultMode"])


def environment(container: Mapping[str, Any], secrets: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Return the variables of a container, those that come from elsewhere included."""
    variables = {}
    for variable in container.get("env", []):
        source = variable.get("valueFrom", {})
        if "secretKeyRef" in source:
            value = secrets[source["secretKeyRef"]["name"]][source["secretKeyRef"]["key"]]
        elif "resourceFieldRef" in source:
            kind, _, name = source["resourceFieldRef"]["resource"].partition(".")
            value = str(int(quantity(container["resources"][kind][name])))
        else:
            value = variable["value"]
        variables[variable["name"]] = value
    return variables


def _project(place: Path, data: Mapping[str, str], volume: Mapping[str, Any], mode: int) -> None:
    """Keys are links to files below ``..data``, itself a link, so that all of them change at once."""
    version = place / "..2026_01_31_12_00_00.1"
    version.mkdir()
    (place / "..data").symlink_to(version.name)
    for item in volume.get("items", [{"key": key, "path": key} for key in data]):
        file = version / item["path"]
        file.write_text(data[item["key"]])
        file.chmod(mode)
        (place / item["path"]).symlink_to(f"..data/{item['path']}")
