"""The frozen descriptors that provider hooks yield. Standard library only."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

__all__ = [
    "KINDS",
    "CriterionProvider",
    "DatasetProvider",
    "MetricProvider",
    "ModelProvider",
    "OptimizerProvider",
    "Provider",
    "SamplerProvider",
    "TrainerProvider",
]

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")
_TARGET = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


@dataclass(frozen=True)
class Provider:
    """One named thing that a plugin offers.

    Parameters
    ----------
    name : str
        The short name that people type. Letters, digits, ``_``, ``.`` and ``-``; starts with a letter.
    target : str or callable
        What is called: a lazy reference ``"package.module:attribute"``, imported only when it is used, or the object.
    summary : str
        One line for ``synicix-run plugins list``.
    params : type or str, optional
        A dataclass (or a lazy reference to one) that describes the parameters, for a target whose signature does not.
    aliases : tuple of str
        Old names of the same thing. Rows that were stored under them keep working.
    version : int
        1 unless raised. Raise it when the same parameters would give other numbers: rows of the old version then keep
        their meaning and are left to workers that have it installed.
    neutral : tuple of str
        Parameters that change speed only; they stay out of the md5 of a config.
    """

    kind: ClassVar[str] = ""

    name: str
    target: str | Callable[..., Any]
    summary: str = ""
    params: type | str | None = None
    aliases: tuple[str, ...] = ()
    version: int = 1
    neutral: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if isinstance(self.aliases, str) or isinstance(self.neutral, str):
            raise ValueError(f"provider {self.name!r}: aliases and neutral are tuples of names, not a string")
        object.__setattr__(self, "aliases", tuple(self.aliases))
        object.__setattr__(self, "neutral", tuple(self.neutral))
        for name in (self.name, *self.aliases):
            if not isinstance(name, str) or not _NAME.fullmatch(name) or len(name) > 100:
                raise ValueError(
                    f"provider name {name!r} is not allowed: letters, digits, '_', '.' and '-', "
                    "starting with a letter, at most 100 characters"
                )
        if isinstance(self.target, str):
            if not _TARGET.fullmatch(self.target):
                raise ValueError(
                    f"provider {self.name!r}: target {self.target!r} is not of the form 'package.module:attribute'"
                )
        elif not callable(self.target):
            raise ValueError(
                f"provider {self.name!r}: target {self.target!r} is neither callable nor 'package.module:attribute'"
            )
        if isinstance(self.params, str) and not _TARGET.fullmatch(self.params):
            raise ValueError(
                f"provider {self.name!r}: params {self.params!r} is not of the form 'package.module:attribute'"
            )
        if isinstance(self.version, bool) or not isinstance(self.version, int) or self.version < 1:
            raise ValueError(f"provider {self.name!r}: version {self.version!r} is not an integer of 1 or more")


@dataclass(frozen=True)
class DatasetProvider(Provider):
    """``target(path, tier, **params)`` returns a map-style ``torch.utils.data.Dataset`` of ``(input, target)``."""

    kind: ClassVar[str] = "dataset"


@dataclass(frozen=True)
class ModelProvider(Provider):
    """``target(input_shape=…, output_shape=…, **params)`` returns an ``nn.Module``.

    Its ``forward(x)`` returns ``(output, regularization_loss)``, or the output alone.
    """

    kind: ClassVar[str] = "model"


@dataclass(frozen=True)
class SamplerProvider(Provider):
    """``target(dataset, **params)`` returns a ``torch.utils.data.Sampler``.

    Parameters
    ----------
    yields : {"index", "batch"}
        Whether the sampler yields indices, or lists of indices that are batches already.
    """

    kind: ClassVar[str] = "sampler"
    yields: Literal["index", "batch"] = "index"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.yields not in ("index", "batch"):
            raise ValueError(f"provider {self.name!r}: yields is 'index' or 'batch', not {self.yields!r}")


@dataclass(frozen=True)
class TrainerProvider(Provider):
    """``target(train_dataloader=…, …, max_epoch=…, **params)`` returns an object with the methods of a trainer."""

    kind: ClassVar[str] = "trainer"


@dataclass(frozen=True)
class OptimizerProvider(Provider):
    """``target(parameters, **params)`` returns a ``torch.optim.Optimizer`` whose ``step`` needs no closure."""

    kind: ClassVar[str] = "optimizer"


@dataclass(frozen=True)
class CriterionProvider(Provider):
    """``target(**params)`` returns a callable ``(output, target) -> scalar tensor``."""

    kind: ClassVar[str] = "criterion"


@dataclass(frozen=True)
class MetricProvider(Provider):
    """``target(**params)`` returns a callable ``(outputs, targets)`` of a whole tier.

    It gives a float, or one value per output, whose mean is stored.

    Parameters
    ----------
    higher_is_better : bool
        The direction in which results are sorted and training stops early.
    """

    kind: ClassVar[str] = "metric"
    higher_is_better: bool = True


KINDS: dict[str, type[Provider]] = {
    cls.kind: cls
    for cls in (
        DatasetProvider,
        ModelProvider,
        SamplerProvider,
        TrainerProvider,
        OptimizerProvider,
        CriterionProvider,
        MetricProvider,
    )
}
"""Descriptor class of each kind, in the order in which they are listed."""
