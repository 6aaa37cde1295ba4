"""Every source of random numbers that a task draws from: seeded, captured and restored."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

__all__ = ["capture", "derive_seed", "generators_of", "new_generator", "restore", "seed_cpu", "seed_everything"]


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch (all devices that are there)."""
    seed_cpu(seed)
    if torch.cuda.is_available():
        torch.cuda.manual_seed_all(seed)
    if torch.backends.mps.is_available():
        torch.mps.manual_seed(seed)


def seed_cpu(seed: int) -> None:
    """Seed Python, NumPy and torch on the CPU: all that a data-loading process draws from."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    # Not torch.manual_seed: for each kind of device that is absent it keeps the call, with a traceback, for ever.
    torch.default_generator.manual_seed(seed)


def derive_seed(seed: int, purpose: str) -> int:
    """Return a seed for one purpose, unrelated to those of other purposes: 63 bits of the sha256 of both."""
    digest = hashlib.sha256(f"{seed}:{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def new_generator(seed: int, purpose: str) -> torch.Generator:
    """Return a CPU generator seeded by `derive_seed`."""
    return torch.Generator().manual_seed(derive_seed(seed, purpose))


def generators_of(loader: DataLoader[Any] | None) -> list[torch.Generator]:
    """Return the distinct generators that a loader, its samplers and its data-loading processes draw from."""
    if loader is None:
        return []
    samplers = [loader.sampler, loader.batch_sampler, getattr(loader.batch_sampler, "sampler", None)]
    named = [getattr(owner, "generator", None) for owner in (loader, *samplers)]
    found: list[torch.Generator] = []
    for generator in (*named, *getattr(loader, "further_generators", ())):
        if isinstance(generator, torch.Generator) and all(generator is not other for other in found):
            found.append(generator)
    return found


def capture(generators: Mapping[str, torch.Generator], process: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the state of Python's, NumPy's and torch's generators and of those given, as tensors and numbers.

    With `process`, what was captured earlier, the state of the first three is taken from there.
    """
    if process is not None:
        return {**process, "generators": {key: generator.get_state() for key, generator in generators.items()}}
    version, words, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "python": [version, torch.from_numpy(np.array(words, dtype=np.int64)), gauss],
        "numpy": [name, torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, cached],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],  # type: ignore[no-untyped-call]
        "mps": torch.mps.get_rng_state() if torch.backends.mps.is_available() else None,
        "generators": {key: generator.get_state() for key, generator in generators.items()},
    }


def restore(state: Mapping[str, Any], generators: Mapping[str, torch.Generator]) -> None:
    """Put back what `capture` returned. Generators and devices that are not here any more are passed over."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words.tolist()), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_available():
        for index, device_state in enumerate(state["cuda"][: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(device_state, index)
    if state["mps"] is not None and torch.backends.mps.is_available():
        torch.mps.set_rng_state(state["mps"])
    for key, generator in generators.items():
        if key in state["generators"]:
            generator.set_state(state["generators"][key])
