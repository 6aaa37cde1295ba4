"""From the names and parameters of a specification to the objects of a task."""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from synicix_core.errors import ConfigurationError, DatasetError, ParamsError, SynicixError
from synicix_core.parameters import as_arguments, describe
from synicix_core.registry import Registered, Registry
from synicix_core.training.contract import Metric
from synicix_core.training.loaders import TaskDataLoader, make_loader
from synicix_core.training.metrics import Loss
from synicix_core.training.random_state import derive_seed, new_generator
from synicix_core.training.resident import ResidentTier
from synicix_core.training.spec import TIERS, Component, TaskSpec

__all__ = [
    "TaskParts",
    "accepts",
    "building",
    "load_parts",
    "make_criterion",
    "make_dataset",
    "make_metrics",
    "make_model",
    "make_sampler",
    "make_tier_loader",
    "model_arguments",
    "notes_of",
    "require_examples",
    "resolve_device",
    "trainer_arguments",
]


@dataclass(frozen=True)
class TaskParts:
    """The providers of a task, found and imported.

    Attributes
    ----------
    dataset, model, trainer, optimizer, criterion : Registered
        Providers.
    samplers : dict of str to Registered or None
        By tier.
    metrics : tuple of Registered
        In order.
    """

    dataset: Registered
    model: Registered
    trainer: Registered
    optimizer: Registered
    criterion: Registered
    samplers: dict[str, Registered | None]
    metrics: tuple[Registered, ...]


def load_parts(spec: TaskSpec, registry: Registry) -> TaskParts:
    """Find every provider that `spec` names, in the version that it means.

    Raises
    ------
    ProviderNotFound, PluginImportError
        If one is not installed or cannot be imported.
    """

    def find(component: Component) -> Registered:
        found = registry.resolve_stored(component.kind, component.provider)
        found.load()
        return found

    samplers = {tier: spec.samplers.get(tier) for tier in TIERS}
    return TaskParts(
        dataset=find(spec.dataset),
        model=find(spec.model),
        trainer=find(spec.trainer),
        optimizer=find(spec.optimizer),
        criterion=find(spec.criterion),
        samplers={tier: None if component is None else find(component) for tier, component in samplers.items()},
        metrics=tuple(find(component) for component in spec.metrics),
    )


@contextmanager
def building(registered: Registered) -> Iterator[None]:
    """Let an error that a provider's code raises say which provider it was."""
    try:
        yield
    except Exception as error:
        error.add_note(f"This happened while the {registered.kind} {registered.qualified} was at work.")
        raise


def resolve_device(name: str) -> torch.device:
    """Return the device that `name` means here; ``"auto"`` is the first GPU, or the CPU without one.

    Raises
    ------
    ConfigurationError
        If torch knows no such device.
    """
    if name == "auto":
        return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise ConfigurationError(
            f"there is no device {name!r}",
            why=str(error).splitlines()[0],
            hint='Use "auto", "cpu", "cuda:0" or the like.',
        ) from error


def make_dataset(registered: Registered, path: str, tier: str, params: Mapping[str, Any]) -> Any:
    """Return the dataset of one tier.

    Raises
    ------
    DatasetError
        If its code raises, or what it returns has no length.
    """
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("default")
            dataset = registered.load()(path, tier, **as_arguments(registered, params))
    except SynicixError:
        raise
    except Exception as error:
        raise DatasetError(
            f"the dataset {registered.qualified} cannot read its {tier} tier",
            file=path,
            why=f"{type(error).__name__}: {error}",
        ) from error
    # What stands in its notes is shown as such; other warnings are passed on.
    told = tuple(getattr(dataset, "notes", ()))
    for warning in caught:
        if not str(warning.message).endswith(told):
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
        raise DatasetError(
            f"the dataset {registered.qualified} is not a map-style dataset",
            file=path,
            why=f"{type(dataset).__name__} lacks __len__ or __getitem__",
        )
    return dataset


def notes_of(datasets: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what the datasets of the tiers say that a user should know, each once."""
    return tuple(dict.fromkeys(str(note) for dataset in datasets.values() for note in getattr(dataset, "notes", ())))


def require_examples(datasets: Mapping[str, Any], path: str) -> None:
    """Refuse a dataset that nothing can be learnt from.

    Raises
    ------
    DatasetError
        If there are no training or no validation examples.
    """
    if not len(datasets["validation"]):
        raise DatasetError(
            "the dataset has no validation examples",
            file=path,
            why="the shapes of input and output and the best epoch are taken from them",
        )
    if not len(datasets["train"]):
        raise DatasetError("the dataset has no training examples", file=path, why="there is nothing to learn from")


def make_sampler(registered: Registered, dataset: Any, params: Mapping[str, Any], generator: torch.Generator) -> Any:
    """Return a configured sampler; it gets `generator` if it accepts one."""
    target = registered.load()
    arguments = as_arguments(registered, params)
    if accepts(target, "generator"):
        arguments["generator"] = generator
    with building(registered):
        return target(dataset, **arguments)


def make_tier_loader(
    spec: TaskSpec,
    parts: TaskParts,
    dataset: Any,
    tier: str,
    device: torch.device,
    *,
    in_order: bool = False,
    after_batch: Callable[[], None] | None = None,
    resident: ResidentTier | None = None,
) -> TaskDataLoader | None:
    """Return the loader of a tier with its configured sampler, or in order whatever is configured; None if empty."""
    registered, component = parts.samplers[tier], spec.samplers.get(tier)
    sampler, batches = None, False
    # Known to the loader by itself, because a sampler may keep it under any name.
    generator = new_generator(spec.seed, f"sampler:{tier}")
    if len(dataset) and in_order:
        sampler = torch.utils.data.SequentialSampler(dataset)
    elif len(dataset) and registered is not None and component is not None:
        sampler = make_sampler(registered, dataset, component.params, generator)
        batches = getattr(registered.provider, "yields", "index") == "batch"
    return make_loader(
        dataset,
        tier,
        seed=spec.seed if not in_order else derive_seed(spec.seed, "evaluation"),
        batch_size=spec.batch_size,
        sampler=sampler,
        batches=batches,
        num_workers=spec.num_workers,
        device=device,
        after_batch=after_batch,
        generators=(generator,),
        resident=resident,
    )


def model_arguments(spec: TaskSpec, registered: Registered) -> dict[str, Any]:
    """Return everything that the model is called with: shapes, what the dataset supplies, what the row says.

    Raises
    ------
    ParamsError
        If the row sets something that the dataset supplies.
    """
    names = describe(registered).accepts
    supplied = {key: value for key, value in spec.additional_model_params.items() if key in names}
    both = sorted(supplied.keys() & spec.model.params.keys())
    if both:
        raise ParamsError(
            f"the model {registered.qualified} cannot be built",
            [(f"model_class_params.{key}", "the dataset supplies this; a row cannot set it too") for key in both],
            hint="Take it out of the model config.",
        )
    shapes = {"input_shape": _as_tuples(spec.input_shape), "output_shape": _as_tuples(spec.output_shape)}
    return {**shapes, **supplied, **as_arguments(registered, spec.model.params)}


def make_model(spec: TaskSpec, parts: TaskParts) -> nn.Module:
    """Return a new model with random weights."""
    arguments = model_arguments(spec, parts.model)
    with building(parts.model):
        model: nn.Module = parts.model.load()(**arguments)
    return model


def make_criterion(spec: TaskSpec, parts: TaskParts) -> Any:
    """Return the criterion of the training config."""
    with building(parts.criterion):
        return parts.criterion.load()(**as_arguments(parts.criterion, spec.criterion.params))


def make_metrics(spec: TaskSpec, parts: TaskParts, criterion: Any) -> dict[str, Metric]:
    """Return the metrics by name, in order. One whose signature names ``criterion`` gets the training config's."""
    names = [registered.name for registered in parts.metrics]
    metrics = {}
    for registered, component in zip(parts.metrics, spec.metrics, strict=True):
        target, arguments = registered.load(), as_arguments(registered, component.params)
        if accepts(target, "criterion"):
            arguments.setdefault("criterion", criterion)
        with building(registered):
            function = target(**arguments)
        name = registered.name if names.count(registered.name) == 1 else registered.qualified
        higher_is_better = bool(getattr(registered.provider, "higher_is_better", True))
        # A module's own call says nothing of what its forward takes.
        takes_column = accepts(function.forward if isinstance(function, nn.Module) else function, "column")
        metrics[name] = Metric(name, _noted(registered, function), higher_is_better, takes_column)
    return metrics


def trainer_arguments(
    spec: TaskSpec, parts: TaskParts, loaders: Mapping[str, Any], device: torch.device, model_save_path: str
) -> dict[str, Any]:
    """Return the keyword arguments that every trainer is called with, and its own parameters."""
    return {
        **{f"{tier}_dataloader": loaders[tier] for tier in TIERS},
        "device": device,
        "model_class": parts.model.load(),
        "model_class_params": model_arguments(spec, parts.model),
        "optimizer_class": parts.optimizer.load(),
        "optimizer_class_params": as_arguments(parts.optimizer, spec.optimizer.params),
        "criterion_class": parts.criterion.load(),
        "criterion_class_params": as_arguments(parts.criterion, spec.criterion.params),
        "model_save_path": model_save_path,
        "max_epoch": spec.epoch_limit,
        **as_arguments(parts.trainer, spec.trainer.params),
    }


def accepts(target: Any, name: str) -> bool:
    """Tell whether a target takes an argument of that name: its signature says so, or a base's behind ``**kwargs``."""
    # Classes stay, and are asked about for each task; an object that was just made need not be hashable.
    return _known_to_accept(target, name) if inspect.isclass(target) else _accepts(target, name)


def _accepts(target: Any, name: str) -> bool:
    try:
        parameters = inspect.signature(target).parameters
    except (TypeError, ValueError):
        return False
    if name in parameters:
        return parameters[name].kind in (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    passes_on = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())
    if not passes_on or not inspect.isclass(target):
        return False
    return any(base is not object and accepts(base, name) for base in target.__bases__)


_known_to_accept: Callable[[Any, str], bool] = functools.lru_cache(maxsize=1024)(_accepts)


def _noted(registered: Registered, function: Any) -> Any:
    if isinstance(function, Loss):
        return function  # NNTrainer knows this one and need not collect outputs for it

    def call(outputs: Any, targets: Any, **further: Any) -> Any:
        with building(registered):
            return function(outputs, targets, **further)

    return call


def _as_tuples(shape: Any) -> Any:
    if isinstance(shape, dict):
        return {name: _as_tuples(item) for name, item in shape.items()}
    if isinstance(shape, list | tuple):
        return tuple(_as_tuples(item) for item in shape)
    return shape
