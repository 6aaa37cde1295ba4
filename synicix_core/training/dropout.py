"""Dropout whose masks come from the task's own generator, alone and in a stack of models alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["TaskDropout", "own_dropout"]

_LAYERS: dict[type[nn.Module], int] = {nn.Dropout: 0, nn.Dropout1d: 1, nn.Dropout2d: 2, nn.Dropout3d: 3}
"""Torch's layers, and how many axes behind the channels they drop as a whole; 0: every element by itself."""


@dataclass
class _Source:
    """Where one model's masks come from."""

    p: float
    generator: torch.Generator | None

    def draw(self, shape: torch.Size, like: Tensor) -> Tensor:
        """Return a mask that keeps the mean: 0 or 1 / (1 - p)."""
        if self.p >= 1.0:
            return torch.zeros(shape, dtype=like.dtype, device=like.device)
        mask = torch.empty(shape, dtype=like.dtype, device=like.device)
        return mask.bernoulli_(1.0 - self.p, generator=self.generator).div_(1.0 - self.p)


class TaskDropout(nn.Module):
    """Drops elements with probability `p` in training, as ``torch.nn.Dropout`` does, or whole channels.

    Parameters
    ----------
    p : float
        0 <= p <= 1.
    generator : torch.Generator, optional
        On the device of the input; None is torch's own.
    whole_axes : int
        Axes behind the channels that are dropped as a whole: 1, 2 or 3; 0 drops every element by itself.

    Attributes
    ----------
    sources : list
        One for each model of the stack that this layer stands for under ``torch.func.vmap``; one alone.
    """

    def __init__(self, p: float, generator: torch.Generator | None, whole_axes: int = 0) -> None:
        super().__init__()
        self.p = p
        self.whole_axes = whole_axes
        self.sources = [_Source(p, generator)]

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` with some of it dropped, of the same shape."""
        if self.whole_axes == 1 and x.dim() not in (2, 3):
            return nn.functional.dropout1d(x, self.p, self.training)  # torch says what is wrong
        if not self.training or (self.p == 0.0 and len(self.sources) == 1):
            return x
        mask: Tensor = _Mask.apply(x.detach(), self)  # type: ignore[no-untyped-call]  # torch does not annotate it
        return x * mask

    def extra_repr(self) -> str:
        """Return what torch's layers show."""
        return f"p={self.p}"


class _Mask(torch.autograd.Function):
    """The mask for an input; for several models at once under ``vmap``, each from its own source."""

    @staticmethod
    def forward(x: Tensor, layer: TaskDropout) -> Tensor:
        return layer.sources[0].draw(_shape(x.shape, layer.whole_axes), x)

    @staticmethod
    def setup_context(ctx: Any, _inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.mark_non_differentiable(output)

    @staticmethod
    def backward(_ctx: Any, *_gradients: Tensor) -> tuple[None, None]:
        return None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], x: Tensor, layer: TaskDropout) -> tuple[Tensor, int]:
        x = x.movedim(in_dims[0], 0) if in_dims[0] is not None else x.expand(info.batch_size, *x.shape)
        if info.batch_size != len(layer.sources):
            raise RuntimeError("a layer of dropout stands for another number of models than the stack has")
        shape = _shape(x.shape[1:], layer.whole_axes)
        return torch.stack([source.draw(shape, x) for source in layer.sources]), 0


def _shape(shape: torch.Size, whole_axes: int) -> torch.Size:
    """Return the shape of a mask: all elements, or one for each channel of each example."""
    if not whole_axes:
        return shape
    # As torch does it: one example by itself has its channels first, but Dropout2d takes three axes for a batch.
    kept = 1 if len(shape) == whole_axes + 1 and whole_axes != 2 else 2
    return torch.Size((*shape[:kept], *([1] * (len(shape) - kept))))


def own_dropout(model: nn.Module, generator: torch.Generator | None) -> bool:
    """Put `TaskDropout` in the place of torch's dropout layers; a subclass of theirs stays. Tell whether there are any."""
    replaced: dict[int, TaskDropout] = {}
    for parent in list(model.modules()):
        for name, child in list(parent._modules.items()):
            if child is None or type(child) not in _LAYERS:
                continue
            if id(child) not in replaced:  # a layer may stand in several places
                replaced[id(child)] = TaskDropout(float(child.p), generator, _LAYERS[type(child)])  # type: ignore[arg-type]  # p is a number
                replaced[id(child)].training = child.training
            parent._modules[name] = replaced[id(child)]
    return bool(replaced)
