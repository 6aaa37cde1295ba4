"""A stacked step as a list of operations, run without the machinery that found them out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

__all__ = ["RecordedStep"]


class RecordedStep:
    """Operations on tensors of certain shapes, forward and backward, recorded while a function ran.

    ``torch.func`` and autograd work out at every step anew what is to be computed, which for small models takes longer than
    to compute it. What they come to depends on shapes alone where no value decides anything, and that is so for whatever
    ``torch.func.vmap`` can run.

    Parameters
    ----------
    function : callable
        From nested tensors to nested tensors; nothing random, nothing changed in place.
    arguments : sequence
        Nested tensors to run it with.
    compiled : bool
        Whether the operations are compiled, too, which takes ten seconds or more and changes the last digits.

    Raises
    ------
    Exception
        Whatever recording raises; then there is nothing to be used.
    """

    def __init__(self, function: Callable[..., Any], arguments: Sequence[Any], *, compiled: bool = False) -> None:
        from torch.fx.experimental.proxy_tensor import make_fx

        flat, self._form = tree_flatten(tuple(arguments))
        self._shapes = [(tensor.shape, tensor.dtype) for tensor in flat]
        self._result_form: Any = None

        def on_flat(*tensors: Tensor) -> list[Tensor]:
            result, self._result_form = tree_flatten(function(*tree_unflatten(tensors, self._form)))
            return result

        self._run: Callable[..., Any] = make_fx(on_flat)(*flat)
        if compiled:
            from torch._inductor import compile as compile_graph

            with torch.no_grad():
                self._run = compile_graph(self._run, flat)

    def fits(self, arguments: Sequence[Any]) -> bool:
        """Tell whether these are of the shapes that were recorded."""
        flat, form = tree_flatten(tuple(arguments))
        return form == self._form and [(tensor.shape, tensor.dtype) for tensor in flat] == self._shapes

    @torch.no_grad()
    def __call__(self, *arguments: Any) -> Any:
        """Return what the function returns."""
        flat, _ = tree_flatten(arguments)
        return tree_unflatten(self._run(*flat), self._result_form)
