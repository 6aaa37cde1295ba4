"""The L1 and L2 penalty of a model's weights, with its gradient written out instead of being derived."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["elastic_net"]

_JOINED = {"cpu": 1 << 17}
_JOINED_ELSEWHERE = 1 << 22
"""So many weights are copied into one vector faster than they are treated matrix by matrix."""


def elastic_net(weights: Sequence[Tensor], l1: Tensor, l2: Tensor) -> Tensor:
    """Return ``l1 * sum |w| + l2 * sum w**2``, with the gradient ``l1 * sign(w) + 2 * l2 * w``.

    It holds wherever torch's operations do: alone, under autocast, in ``torch.compile``, in ``torch.func.grad`` and, with
    weights and strengths that are stacked, in ``torch.func.vmap``.

    There is no second derivative: on the CPU large weights raise, others lack its L2 part.

    Parameters
    ----------
    weights : sequence of Tensor
        At least one; of any shapes, one dtype, contiguous.
    l1, l2 : Tensor, ()
        The strengths; constants.

    Returns
    -------
    Tensor, ()
    """
    device = l1.device.type
    # Only what is fastest depends on it.
    transformed = torch._C._are_functorch_transforms_active()
    if sum(weight.numel() for weight in weights) <= _JOINED.get(device, _JOINED_ELSEWHERE):
        return _of_vectors([torch.cat([weight.reshape(-1) for weight in weights])], l1, l2, transformed)
    if device == "cpu" and not transformed and not torch.compiler.is_compiling():
        penalty: Tensor = _OfLargeWeights.apply(l1.item(), l2.item(), *weights)  # type: ignore[no-untyped-call]  # torch's
        return penalty
    return _of_vectors([weight.reshape(-1) for weight in weights], l1, l2, transformed)


def _of_vectors(vectors: Sequence[Tensor], l1: Tensor, l2: Tensor, transformed: bool) -> Tensor:
    """Compute the gradient g along with the value, and treat it as a constant: the penalty is ``sum w * g - l2 * sum w**2``.

    The only thing to derive in it is a product with a constant.
    """
    twice_l2 = 2 * l2
    terms = [_terms(vector, l1, twice_l2, transformed) for vector in vectors]
    products, squares = terms[0]
    for product, square in terms[1:]:
        products, squares = products + product, squares + square
    return products - l2 * squares


def _terms(vector: Tensor, l1: Tensor, twice_l2: Tensor, transformed: bool) -> tuple[Tensor, Tensor]:
    """Return the sum of weight times gradient, and the sum of squares."""
    weight = vector.detach()
    gradient = weight.sign().mul_(l1)
    if transformed:
        # Stacked, a dot product is a matrix product with one row, which is slow, and addcmul is looped over.
        gradient = gradient.add_(weight * twice_l2)
        return (vector * gradient).sum(), weight.square().sum()
    gradient.addcmul_(weight, twice_l2)
    return torch.dot(vector, gradient), torch.dot(weight, weight)


class _OfLargeWeights(torch.autograd.Function):
    """The penalty on the CPU where memory is the limit: as few passes over the weights as there are terms."""

    @staticmethod
    def forward(ctx: Any, l1: float, l2: float, *weights: Tensor) -> Tensor:
        ctx.strengths = l1, l2
        ctx.save_for_backward(*weights)
        ctx.signs = [weight.sign() for weight in weights] if l1 else None
        penalty = weights[0].new_zeros(())
        for index, weight in enumerate(weights):
            vector = weight.reshape(-1)
            if l1:
                penalty.add_(torch.dot(vector, ctx.signs[index].reshape(-1)), alpha=l1)
            if l2:
                penalty.add_(torch.dot(vector, vector), alpha=l2)
        return penalty

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        weights = ctx.saved_tensors
        l1, l2 = (upstream.item() * strength for strength in ctx.strengths)
        if not l1:
            return None, None, *(weight * (2 * l2) for weight in weights)
        # The signs become the gradient; a second pass backward through the same graph makes them anew.
        signs, ctx.signs = ctx.signs or [weight.sign() for weight in weights], None
        one = upstream.new_ones(1)
        for sign, weight in zip(signs, weights, strict=True):
            # An outer product with one row: the only operation that scales both of its terms, in one pass.
            sign.view(1, -1).addr_(one, weight.view(-1), beta=l1, alpha=2 * l2)
        return None, None, *signs
