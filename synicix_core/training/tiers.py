"""The three tiers of a task's dataset, opened; kept for the next task where that is safe."""

from __future__ import annotations

import json
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import torch

from synicix_core.training.build import TaskParts, make_dataset, require_examples
from synicix_core.training.resident import ResidentTier, free_bytes, make_resident
from synicix_core.training.spec import TIERS, TaskSpec

__all__ = ["Tiers", "forget_tiers", "open_tiers"]


@dataclass(frozen=True)
class Tiers:
    """A dataset.

    Attributes
    ----------
    datasets : dict
        By tier.
    resident : dict of str to ResidentTier or None
        What lies on the device, by tier.
    """

    datasets: dict[str, Any]
    resident: dict[str, ResidentTier | None]

    @property
    def is_resident(self) -> bool:
        """Whether every tier that has examples lies on the device."""
        return all(self.resident[tier] is not None for tier in TIERS if len(self.datasets[tier]))

    @property
    def nbytes(self) -> int:
        """Bytes on the device."""
        return sum(tier.nbytes for tier in self.resident.values() if tier is not None)


_held: OrderedDict[tuple[str, ...], Tiers] = OrderedDict()
"""The datasets of earlier tasks of this process, the latest last. Nothing in them is random and nobody changes them."""


def open_tiers(spec: TaskSpec, parts: TaskParts, device: torch.device) -> Tiers:
    """Return the dataset of a task, its tiers on the device if all of them fit into ``spec.resident_share`` of what is free.

    Such a dataset is kept for the next task with the same file, provider, parameters and device: its ``tensors()`` promise
    that nothing in it is random.

    Raises
    ------
    DatasetError
        If it cannot be read or has no training or validation examples.
    """
    key = (spec.dataset.provider, spec.dataset_sha256, spec.dataset_path, str(device), _canonical(spec.dataset.params))
    if spec.dataset_sha256 and spec.resident_share and key in _held:
        _held.move_to_end(key)
        return _held[key]
    datasets = {tier: make_dataset(parts.dataset, spec.dataset_path, tier, spec.dataset.params) for tier in TIERS}
    require_examples(datasets, spec.dataset_path)
    if not spec.resident_share or not all(hasattr(dataset, "tensors") for dataset in datasets.values()):
        return Tiers(datasets, dict.fromkeys(TIERS))
    held = sum(tiers.nbytes for tiers in _held.values())
    budget = int(spec.resident_share * (free_bytes(device) + held))
    resident: dict[str, ResidentTier | None] = {}
    left = budget
    for tier in TIERS:
        resident[tier] = made = make_resident(datasets[tier], device, left)
        if made is None and len(datasets[tier]):
            return Tiers(datasets, dict.fromkeys(TIERS))
        left -= made.nbytes if made is not None else 0
    tiers = Tiers(datasets, resident)
    if spec.dataset_sha256:
        while _held and held + tiers.nbytes > budget:
            held -= _held.popitem(last=False)[1].nbytes
        _held[key] = tiers
    return tiers


def forget_tiers() -> None:
    """Let go of all datasets that are kept: memory is short."""
    _held.clear()


def _canonical(params: Any) -> str:
    return json.dumps(params, sort_keys=True)
