"""What a dataset says about itself: shapes, sizes, and what it supplies to models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from synicix_core.errors import DatasetError
from synicix_core.registry import Registered
from synicix_core.training.build import make_dataset, notes_of, require_examples
from synicix_core.training.random_state import seed_everything
from synicix_core.training.spec import TIERS
from synicix_core.training.torch_state import restored_torch_state

__all__ = ["DatasetFacts", "inspect_dataset"]


@dataclass(frozen=True)
class DatasetFacts:
    """What a DatasetConfig holds beside what the user wrote.

    Attributes
    ----------
    input_shape, output_shape : list or dict
        Of one example, as nested lists; a dict for several named ones, a list of lists for several unnamed ones, an
        empty list for a number such as a class.
    additional_model_params : dict
        What the dataset supplies to models; NumPy arrays and JSON values.
    tier_sizes : dict of str to int
        Examples by tier.
    notes : tuple of str
        What the datasets say that a user should know.
    """

    input_shape: Any
    output_shape: Any
    additional_model_params: dict[str, Any]
    tier_sizes: dict[str, int]
    notes: tuple[str, ...] = ()


def inspect_dataset(registered: Registered, path: str | Path, params: Mapping[str, Any]) -> DatasetFacts:
    """Build the three tiers of a dataset and look at them.

    Shapes come from the attributes ``input_shape`` and ``output_shape`` of the validation tier where it has them, else
    from its first example.

    Parameters
    ----------
    registered : Registered
        The dataset.
    path : str or Path
        Its file.
    params : mapping
        Its parameters, as stored.

    Raises
    ------
    DatasetError
        If a tier cannot be built, there are no training or no validation examples, an example is not a pair, or there
        is no ``get_additional_model_params``.
    """
    path = str(path)
    with restored_torch_state():
        seed_everything(0)
        datasets = {tier: make_dataset(registered, path, tier, params) for tier in TIERS}
        sizes = {tier: len(dataset) for tier, dataset in datasets.items()}
        require_examples(datasets, path)
        dataset = datasets["validation"]
        supplied = _additional_model_params(registered, dataset, path)
        shapes = [getattr(dataset, name, None) for name in ("input_shape", "output_shape")]
        if any(shape is None for shape in shapes):
            for index, part in enumerate(_first_example(registered, dataset, path)):
                if shapes[index] is None:
                    shapes[index] = _shape_of(part)
        return DatasetFacts(_as_lists(shapes[0]), _as_lists(shapes[1]), supplied, sizes, notes_of(datasets))


def _first_example(registered: Registered, dataset: Any, path: str) -> tuple[Any, Any]:
    try:
        example = dataset[0]
    except Exception as error:
        raise DatasetError(
            f"the dataset {registered.qualified} cannot give its first validation example",
            file=path,
            why=f"{type(error).__name__}: {error}",
        ) from error
    if isinstance(example, tuple | list) and len(example) == 2:
        return example[0], example[1]
    raise DatasetError(
        f"an example of the dataset {registered.qualified} is not a pair (input, target)",
        file=path,
        why=f"it is a {type(example).__name__}" + (f" of {len(example)}" if hasattr(example, "__len__") else ""),
        hint="Put several inputs into a tuple or a dict.",
    )


def _additional_model_params(registered: Registered, dataset: Any, path: str) -> dict[str, Any]:
    method = getattr(dataset, "get_additional_model_params", None)
    if not callable(method):
        raise DatasetError(
            f"the dataset {registered.qualified} has no get_additional_model_params()",
            file=path,
            hint="Add the method; let it return {} if models need nothing from the dataset.",
        )
    try:
        supplied = method()
    except Exception as error:
        raise DatasetError(
            f"get_additional_model_params() of the dataset {registered.qualified} failed",
            file=path,
            why=f"{type(error).__name__}: {error}",
        ) from error
    if not isinstance(supplied, Mapping) or not all(isinstance(key, str) for key in supplied):
        raise DatasetError(
            f"get_additional_model_params() of the dataset {registered.qualified} does not return a dict with string keys",
            file=path,
            why=f"it returned {supplied!r:.80}",
        )
    return {key: _storable(value) for key, value in supplied.items()}


def _storable(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().numpy()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {key: _storable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_storable(item) for item in value]
    return value


def _shape_of(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _shape_of(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_shape_of(item) for item in value]
    return list(np.shape(value)) if not isinstance(value, torch.Tensor) else list(value.shape)


def _as_lists(shape: Any) -> Any:
    if isinstance(shape, Mapping):
        return {str(key): _as_lists(item) for key, item in shape.items()}
    if isinstance(shape, torch.Size | list | tuple):
        return [_as_lists(item) for item in shape]
    if isinstance(shape, np.ndarray):
        return shape.tolist()
    return int(shape)
