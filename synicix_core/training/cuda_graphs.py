"""Whole steps as CUDA graphs: launched at once, instead of kernel by kernel."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, Protocol

import torch
from torch import nn

from synicix_core.training import random_state
from synicix_core.training.batches import batch_size, map_tensors, split_batch
from synicix_core.training.optimization import Losses, Optimization

__all__ = ["Recorder", "StepGraph", "why_no_graph"]

_WARM_UP = 3
"""Steps before the recording, as torch asks for: kernels are chosen, and the optimizer makes its state."""


def why_no_graph(optimization: Optimization, *, accumulate: int, rate_moves_each_step: bool) -> str:
    """Return what keeps steps from being recorded; empty where nothing is known to.

    Parameters
    ----------
    optimization : Optimization
        Makes the steps.
    accumulate : int
        Batches to a step.
    rate_moves_each_step : bool
        Whether the learning rate is another one at each step.
    """
    optimizer = optimization.optimizer
    own_generators = any(
        isinstance(value, torch.Generator) for module in optimization.model.modules() for value in vars(module).values()
    )
    reasons = (
        (optimization.device.type != "cuda", f"this trains on {optimization.device.type!r}"),
        (optimization.precision.scaler is not None, "fp16 scales its gradients, for which the host looks at each step"),
        (optimization.skip_nonfinite, 'nan_policy "skip" looks at each step'),
        (optimization.clip_norm is not None or optimization.clip_value is not None, "gradients are clipped"),
        (optimization.parts > 1, "batches are split into micro-batches"),
        (accumulate > 1, "several batches make a step"),
        (rate_moves_each_step, "the learning rate changes at each step"),
        (own_generators, "the model draws from a generator of its own"),
        (not _can_be_recorded(optimizer), f"{type(optimizer).__name__} has no step that a graph can record"),
    )
    return next((reason for applies, reason in reasons if applies), "")


class Recorder(Protocol):
    """What runs functions on a GPU and records them."""

    def warm(self, function: Callable[[], Losses]) -> Losses:
        """Run `function` in the way that has to come before a recording."""

    def record(self, function: Callable[[], Losses]) -> Callable[[], Losses]:
        """Record `function`, without running it, and return what runs the recording; its results are always the same tensors."""


class StepGraph:
    """Makes the steps of an `Optimization` by replaying a recording of one.

    The first steps are ordinary ones. Then one is recorded, on copies of its batch that stay where they are, and from there
    on each batch of that shape is copied there and the recording is run; batches of another shape are left to the ordinary
    step. Where the learning rate, or another number of the optimizer, has changed, the step is recorded again.

    A recording has no Python in it: a model that counts calls or draws random numbers there would be frozen. That is looked
    for in the first steps.

    Parameters
    ----------
    optimization : Optimization
        Makes the ordinary steps, and is recorded.
    recorder : Recorder, optional
        In place of that of the device.

    Attributes
    ----------
    replays : int
        Steps made by a recording.
    note : str
        Why steps are not, or no longer, made so; empty otherwise.
    """

    def __init__(self, optimization: Optimization, recorder: Recorder | None = None) -> None:
        self.replays = 0
        self.note = ""
        self._optimization = optimization
        self._recorder = recorder if recorder is not None else _CudaRecorder(optimization)
        self._shape: Hashable = None
        self._warm = 0
        self._static: Any = None
        self._numbers: Hashable = None
        self._replay: Callable[[], Losses] | None = None

    def step(self, batch: Any) -> tuple[torch.Tensor, torch.Tensor | None, int] | None:
        """Make a step, and return loss, penalty and number of samples; None if it is to be made in the ordinary way."""
        if self.note:
            return None
        inputs, targets = split_batch(batch)
        shape = _shape(batch)
        self._shape = self._shape if self._shape is not None else shape
        if shape != self._shape:
            return None
        count = batch_size(targets) or batch_size(inputs)
        if self._warm < _WARM_UP:
            losses = self._warm_up(batch)
            return None if losses is None else (*losses, count)
        numbers = _numbers(self._optimization.optimizer)
        if self._replay is None or numbers != self._numbers:
            self._numbers = numbers
            if not self._record(batch):
                return None
        else:
            _copy(batch, self._static)
        assert self._replay is not None
        loss, penalty = self._replay()
        self.replays += 1
        # The next replay writes into the same tensors.
        return loss.detach().clone(), None if penalty is None else penalty.detach().clone(), count

    def forget(self) -> None:
        """Record again before the next replay: what a step computes has changed."""
        self._replay = None
        self._warm = 0

    def _warm_up(self, batch: Any) -> Losses | None:
        before = _python_state(self._optimization.model)
        losses = self._recorder.warm(lambda: self._optimization.plain_step(batch))
        self._warm += 1
        if _python_state(self._optimization.model) != before:
            self.note = (
                "no CUDA graph: the model changes something in Python, or draws random numbers there, at each step"
            )
        return losses

    def _record(self, batch: Any) -> bool:
        self._replay = None
        if self._static is None:
            self._static = map_tensors(torch.clone, batch)
        else:
            _copy(batch, self._static)
        static = self._static
        # Gradients that are made inside the recording are written anew by each replay.
        self._optimization.fast_step.zero_grad()
        try:
            self._replay = self._recorder.record(lambda: self._optimization.plain_step(static))
        except Exception as error:  # whatever cannot be recorded raises in its own way; nothing was computed
            self.note = (
                f"no CUDA graph: the step cannot be recorded ({type(error).__name__}: {str(error).splitlines()[0]})"
            )
            self._optimization.fast_step.zero_grad()
            return False
        return True


class _CudaRecorder:
    def __init__(self, optimization: Optimization) -> None:
        self._device = optimization.device
        self._dropout = optimization.dropout
        self._side = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]  # torch does not annotate it

    def warm(self, function: Callable[[], Losses]) -> Losses:
        computing = torch.cuda.current_stream(self._device)
        self._side.wait_stream(computing)
        with torch.cuda.stream(self._side):
            losses = function()
        computing.wait_stream(self._side)
        return losses

    def record(self, function: Callable[[], Losses]) -> Callable[[], Losses]:
        graph = torch.cuda.CUDAGraph()
        if self._dropout is not None:
            graph.register_generator_state(self._dropout)  # so that each replay draws other masks
        # Other threads, such as the one that pins batches, may go on meanwhile.
        with torch.cuda.graph(graph, stream=self._side, capture_error_mode="thread_local"):
            losses = function()

        def replay() -> Losses:
            graph.replay()
            return losses

        return replay


def _can_be_recorded(optimizer: torch.optim.Optimizer) -> bool:
    """Whether a step of it neither asks the device anything nor counts on the host."""
    if optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks:
        return False
    return type(optimizer) is torch.optim.SGD or all(group.get("capturable") for group in optimizer.param_groups)


def _numbers(optimizer: torch.optim.Optimizer) -> Hashable:
    """Return what a recording has taken over from the optimizer as a constant."""
    return tuple(
        tuple((name, value) for name, value in group.items() if isinstance(value, bool | int | float | tuple))
        for group in optimizer.param_groups
    )


def _python_state(model: nn.Module) -> Hashable:
    """Return what a step that can be recorded leaves as it is: plain attributes, which buffers there are, generators."""
    state = random_state.capture({})
    attributes = tuple(
        (name, value)
        for module in model.modules()
        for name, value in vars(module).items()
        if isinstance(value, bool | int | float | str)
    )
    return (
        attributes,
        tuple((name, id(buffer)) for name, buffer in model.named_buffers()),
        tuple(state["python"][1].tolist()),
        tuple(state["numpy"][1].tolist()),
        state["numpy"][2],
        tuple(state["torch"].tolist()),
    )


def _shape(value: Any) -> Hashable:
    found: list[Hashable] = []
    map_tensors(lambda tensor: found.append((tensor.shape, tensor.dtype)), value)
    return tuple(found)


def _copy(batch: Any, static: Any) -> None:
    sources: list[torch.Tensor] = []
    map_tensors(sources.append, batch)
    places: list[torch.Tensor] = []
    map_tensors(places.append, static)
    for source, place in zip(sources, places, strict=True):
        place.copy_(source, non_blocking=True)
