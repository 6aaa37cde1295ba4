"""Several models of one architecture as one: their tensors stacked, their forward and backward passes in one go."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap

from synicix_core.training.batches import full_precision, split_output
from synicix_core.training.closeness import close
from synicix_core.training.dropout import TaskDropout
from synicix_core.training.flat import Flat
from synicix_core.training.recorded_step import RecordedStep
from synicix_core.training.resident import ResidentTier
from synicix_core.training.tier_pass import criterion_loss
from synicix_core.training.timing import BACKWARD, COMPILING, FORWARD, TRAINING

__all__ = ["Gradients", "Mode", "StackedModel", "too_much_output"]

Mode = Literal["forward", "gradient"]
"""What is batched: the forward pass, so that one ordinary backward pass follows, or the gradient of each model.

The first is faster; the second knows more operations, such as those of ``nn.GRU``.
"""

Gradients = tuple[Tensor, Tensor, dict[str, Tensor | None]]
"""Losses (models,), penalties (models,), and by parameter the gradients (models, *shape); None where it takes no part."""


_MOST_OUTPUT = 256 << 20
"""Bytes of targets, for all models together, above which outputs of a whole tier are collected for one model at a time."""


def too_much_output(models: int, tier: ResidentTier) -> bool:
    """Tell whether the outputs of so many models for a tier, taken to be as large as the targets, are too much for memory."""
    return models * tier.target_bytes > _MOST_OUTPUT


class StackedModel:
    """Models whose parameters and buffers are slices of stacked tensors.

    The models stay what they are: their parameters and buffers become views, so that each can be looked at, saved and run
    alone at any time.

    Parameters
    ----------
    models : sequence of torch.nn.Module
        Alike, as `likeness.difference` says. The first one's code and attributes serve for all.
    criterion : callable
        ``(output, target)`` to a scalar.
    autocast : callable
        Makes the context of the forward pass.
    mode : {"forward", "gradient"}
        See `Mode`.
    switch : callable
        Told what time is spent on, see `timing.Stopwatch`.

    Attributes
    ----------
    parameters, buffers : dict of str to Tensor, (models, *shape)
        Stacked; `trained` names the parameters that learn.
    weights : Flat
        The memory of those.
    """

    def __init__(
        self,
        models: Sequence[nn.Module],
        criterion: Callable[[Any, Any], Any],
        autocast: Callable[[], AbstractContextManager[Any]],
        mode: Mode,
        switch: Callable[[int], int] = lambda part: part,
    ) -> None:
        self.models = list(models)
        self._switch = switch
        self._criterion = criterion
        self._autocast = autocast
        self._mode = mode
        self._shares: tuple[float, float] | None = None
        self._recorded: RecordedStep | None = None
        self._template = models[0]
        # One stands for all under vmap, so its layers of dropout draw for all; each alone still draws for itself.
        self._dropouts = [[m for m in model.modules() if isinstance(m, TaskDropout)] for model in models]
        self._own_sources = [layer.sources for layer in self._dropouts[0]]
        named = [dict(model.named_parameters()) for model in models]
        self.trained = [name for name, parameter in named[0].items() if parameter.requires_grad]
        self.weights = Flat({name: torch.stack([own[name].detach() for own in named]) for name in self.trained})
        fixed = [name for name in named[0] if name not in self.trained]
        self.parameters = self.weights.parts | {n: torch.stack([own[n].detach() for own in named]) for n in fixed}
        held = [dict(model.named_buffers()) for model in models]
        self.buffers = {name: torch.stack([own[name].detach() for own in held]) for name in held[0]}
        for k, (parameters, buffers) in enumerate(zip(named, held, strict=True)):
            for name, parameter in parameters.items():
                parameter.data = self.parameters[name][k]
            for name, buffer in buffers.items():
                buffer.data = self.buffers[name][k]
        for name in self.trained:
            self.parameters[name] = self.parameters[name].detach().requires_grad_()

    def __len__(self) -> int:
        return len(self.models)

    @property
    def draws(self) -> bool:
        """Whether layers of dropout draw, which cannot be recorded."""
        return any(self._dropouts[0])

    def release(self) -> None:
        """Give each model tensors of its own again."""
        for model in self.models:
            for tensor in (*model.parameters(), *model.buffers()):
                tensor.data = tensor.detach().clone()

    def is_intact(self) -> bool:
        """Tell whether the models' tensors are still parts of the stacked ones: an optimizer may have put others there."""
        return all(
            own.data_ptr() == stacked[k].data_ptr()
            for k, model in enumerate(self.models)
            for names, tensors in ((model.named_parameters(), self.parameters), (model.named_buffers(), self.buffers))
            for name, own in names
            if (stacked := tensors.get(name)) is not None and own.numel()
        )

    def copy_of(self, k: int) -> dict[str, Tensor]:
        """Return copies of the tensors of one model."""
        return {name: tensor[k].detach().clone() for name, tensor in (*self.parameters.items(), *self.buffers.items())}

    @torch.no_grad()
    def put_back(self, k: int, tensors: dict[str, Tensor]) -> None:
        """Give one model the tensors that `copy_of` returned."""
        for name, tensor in (*self.parameters.items(), *self.buffers.items()):
            tensor[k].copy_(tensors[name])

    def gradients(self, inputs: Any, targets: Any, shares: tuple[float, float] | None = None) -> Gradients:
        """Return losses, penalties and gradients of one batch for each model, in training mode.

        Parameters
        ----------
        inputs, targets : nested tensors, (models, batch, ...)
        shares : tuple of float, optional
            What part of the loss and of the penalty the gradient is to be of, where several batches make a step.
        """
        arguments = (self.parameters, self.buffers, inputs, targets)
        if self._recorded is not None and shares is None and self._recorded.fits(arguments):
            self._switch(TRAINING)  # its parts cannot be told from each other
            losses, penalties, found = self._recorded(*arguments)
            return losses, penalties, dict(zip(self.trained, found, strict=True))
        self._shares = shares
        return self._gradients(*arguments)

    def record(self, inputs: Any, targets: Any, *, compiled: bool = False) -> bool:
        """Record the step for batches of these shapes, and tell whether that could be done.

        It is not done where layers of dropout draw, or a step changes buffers; nor used if it does not give the very same
        numbers, or, compiled, the same up to rounding.
        """
        self._recorded = None
        if self.draws:
            return False
        arguments = (self.parameters, self.buffers, inputs, targets)
        before = {name: buffer.clone() for name, buffer in self.buffers.items()}

        def step(*given: Any) -> tuple[Tensor, Tensor, list[Tensor]]:
            parameters = {n: p.detach().requires_grad_(n in self.trained) for n, p in given[0].items()}
            losses, penalties, found = self._gradients(parameters, *given[1:])
            gradients = [gradient for gradient in found.values() if gradient is not None]
            if len(gradients) < len(found):
                raise RuntimeError("a parameter takes no part")
            return losses, penalties, gradients

        # What is tried here is no step, so nobody hears of its parts.
        switch, self._switch = self._switch, lambda part: part
        before_that = switch(COMPILING)
        try:
            self._shares = None
            expected = step(*arguments)
            recorded = RecordedStep(step, arguments, compiled=compiled)
            found = recorded(*arguments)
        except Exception:  # whatever it is: then the step is worked out each time
            return False
        finally:
            self._switch = switch
            switch(before_that)
            still = all(torch.equal(before[name], buffer) for name, buffer in self.buffers.items())
            for name, buffer in self.buffers.items():
                buffer.copy_(before[name])
        pairs = zip((*expected[:2], *expected[2]), (*found[:2], *found[2]), strict=True)
        same = close if compiled else torch.equal
        if still and all(same(one, other) for one, other in pairs):
            self._recorded = recorded
        return self._recorded is not None

    def _gradients(
        self, parameters: dict[str, Tensor], buffers: dict[str, Tensor], inputs: Any, targets: Any
    ) -> Gradients:
        trained = {name: parameters[name] for name in self.trained}
        fixed = {name: tensor for name, tensor in parameters.items() if name not in trained}
        self._template.train()
        self._switch(FORWARD)
        with warnings.catch_warnings(), _StandingForAll(self._dropouts, self._own_sources):
            # That an operation runs model by model is what the probe's clock is for.
            warnings.filterwarnings("ignore", message=".*performance drop.*", category=UserWarning)
            if self._mode == "gradient":
                self._switch(TRAINING)  # its parts cannot be told from each other
                one = grad_and_value(self._objective, has_aux=True)
                found, (_, (losses, penalties)) = vmap(one)(trained, fixed, buffers, inputs, targets)
                return losses, penalties, dict(found)
            objectives, (losses, penalties) = vmap(self._objective)(trained, fixed, buffers, inputs, targets)
        self._switch(BACKWARD)
        gradients = torch.autograd.grad(objectives.sum(), list(trained.values()), allow_unused=True)
        return losses.detach(), penalties.detach(), dict(zip(trained, gradients, strict=True))

    @torch.no_grad()
    def outputs(self, inputs: Any, targets: Any) -> tuple[Any, Tensor]:
        """Return outputs, (models, batch, ...), and losses, (models,), in evaluation mode.

        Parameters
        ----------
        inputs, targets : nested tensors, (models, batch, ...)
        """
        was_training = self._template.training
        self._template.eval()
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message=".*performance drop.*", category=UserWarning)
                found: tuple[Any, Tensor] = vmap(self._measured)(self.parameters, self.buffers, inputs, targets)
        finally:
            self._template.train(was_training)
        return found

    def _objective(
        self,
        trained: dict[str, Tensor],
        fixed: dict[str, Tensor],
        buffers: dict[str, Tensor],
        inputs: Any,
        targets: Any,
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        with self._autocast():
            result = functional_call(self._template, ({**trained, **fixed}, buffers), (inputs,))
            output, penalty = split_output(result)
        loss = criterion_loss(self._criterion, full_precision(output), targets)
        penalty = torch.zeros_like(loss) if penalty is None else penalty
        if self._shares is None:
            return loss + penalty, (loss, penalty)
        return loss * self._shares[0] + penalty * self._shares[1], (loss, penalty)

    def _measured(
        self, parameters: dict[str, Tensor], buffers: dict[str, Tensor], inputs: Any, targets: Any
    ) -> tuple[Any, Tensor]:
        with self._autocast():
            output, _ = split_output(functional_call(self._template, (parameters, buffers), (inputs,)))
        output = full_precision(output)
        return output, criterion_loss(self._criterion, output, targets)


class _StandingForAll:
    """Lets the dropout layers of the first model draw for all models inside the block."""

    def __init__(self, layers: list[list[TaskDropout]], own: list[list[Any]]) -> None:
        self._layers = layers
        self._own = own

    def __enter__(self) -> None:
        for index, layer in enumerate(self._layers[0]):
            others = [layers[index].sources for layers in self._layers[1:]]
            layer.sources = [source for sources in (self._own[index], *others) for source in sources]

    def __exit__(self, *_error: object) -> None:
        for layer, own in zip(self._layers[0], self._own, strict=True):
            layer.sources = own
