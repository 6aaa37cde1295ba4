"""A step of several trainings as one beside the step of each alone, without leaving a trace."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import RandomSampler

from synicix_core.training.batches import full_precision, map_tensors, split_output
from synicix_core.training.closeness import close
from synicix_core.training.likeness import plain_attributes
from synicix_core.training.loaders import TaskDataLoader
from synicix_core.training.random_state import capture
from synicix_core.training.stacked_model import Gradients, Mode, StackedModel
from synicix_core.training.tier_pass import criterion_loss
from synicix_core.training.training_run import TrainingRun

__all__ = [
    "Unfit",
    "batch_of",
    "buffers_of",
    "difference_in_a_step",
    "is_coarse",
    "leaves",
    "no_change_of_attributes",
    "no_random_numbers_of_its_own",
    "positions_of",
    "put_back",
    "step_alone",
    "step_stacked",
    "weights_of",
]


class Unfit(Exception):
    """Why tasks of this kind are not stacked."""


def batch_of(run: TrainingRun, *, last: bool = False) -> Any:
    """Return the first or the last batch of an epoch, without any effect on the order of the epochs."""
    loader = run.batches.loader
    assert isinstance(loader, TaskDataLoader) and loader.resident is not None
    return loader.resident.take(positions_of(run, last=last))


def positions_of(run: TrainingRun, *, last: bool = False) -> Tensor:
    loader = run.batches.loader
    assert isinstance(loader, TaskDataLoader) and loader.batch_size is not None
    generator = loader.sampler.generator if isinstance(loader.sampler, RandomSampler) else None
    before = generator.get_state() if generator is not None else None
    order = loader.order()
    assert order is not None
    if generator is not None and before is not None:
        generator.set_state(before)
    return torch.split(order, loader.batch_size)[-1 if last else 0]


def step_alone(run: TrainingRun, batch: Any) -> list[Tensor]:
    """Return loss, penalty and gradients of one training step, as `Optimization` computes them."""
    optimization = run.optimization
    run.model.train()
    run.model.zero_grad()
    with no_random_numbers_of_its_own(_code_of(run)), no_change_of_attributes(run):
        with optimization.precision.autocast():
            output, penalty = split_output(run.model(batch[0]))
        loss = criterion_loss(optimization.criterion, full_precision(output), batch[1])
        penalty = torch.zeros_like(loss) if penalty is None else penalty
        (loss + penalty).backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
    gradients = [p.grad for p in run.model.parameters() if p.requires_grad and p.grad is not None]
    run.model.zero_grad()
    return [loss.detach(), penalty.detach(), *gradients]


def step_stacked(runs: Sequence[TrainingRun], batches: Sequence[Any], mode: Mode) -> Gradients:
    first = runs[0].optimization
    model = StackedModel([run.model for run in runs], first.criterion, first.precision.autocast, mode)
    inputs, targets = (_stack_nested([batch[part] for batch in batches]) for part in (0, 1))
    try:
        return model.gradients(inputs, targets)
    finally:
        model.release()


def _stack_nested(values: Sequence[Any]) -> Any:
    columns = [leaves(value) for value in values]
    stacked = iter([torch.stack(leaves) for leaves in zip(*columns, strict=True)])
    return map_tensors(lambda _: next(stacked), values[0])


def leaves(value: Any) -> list[Tensor]:
    found: list[Tensor] = []

    def note(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    map_tensors(note, value)
    return found


def difference_in_a_step(runs: Sequence[TrainingRun], mode: Mode) -> str:
    """Say in what a step of some as one differs from the step of each alone, for a whole batch and for the last one."""
    for last in (False, True):
        with put_back(runs):
            alone = [step_alone(run, batch_of(run, last=last)) for run in runs]
            buffers = [buffers_of(run) for run in runs]
        with put_back(runs):
            with no_random_numbers_of_its_own(_code_of(runs[0])), no_change_of_attributes(runs[0]):
                together = step_stacked(runs, [batch_of(run, last=last) for run in runs], mode)
            after = [buffers_of(run) for run in runs]
        coarse = is_coarse(runs[0])
        if why := _unlike(alone, together, coarse) or _unlike_buffers(buffers, after, coarse):
            return why
    return ""


def is_coarse(run: TrainingRun) -> bool:
    return run.optimization.precision.resolved != "fp32"


def weights_of(run: TrainingRun) -> Tensor:
    """Return all weights that learn, and their averages, as one vector."""
    average = run.optimization.average
    tensors = [p for p in run.model.parameters() if p.requires_grad] + (average.values if average is not None else [])
    return torch.cat([tensor.detach().reshape(-1).double().cpu() for tensor in tensors])


def _unlike(alone: Sequence[Sequence[Tensor]], together: Gradients, coarse: bool) -> str:
    losses, penalties, gradients = together
    found = [gradient for gradient in gradients.values() if gradient is not None]
    for k, (loss, penalty, *own) in enumerate(alone):
        if len(own) != len(found):
            return "in a step of two models as one, other parameters learn than in the step of each alone"
        for what, one, other in (
            ("loss", loss, losses[k]),
            ("penalty", penalty, penalties[k]),
            *(("gradient", one, other[k]) for one, other in zip(own, found, strict=True)),
        ):
            if not close(one, other, coarse=coarse):
                return f"in a step of two models as one, the {what} is not that of each alone"
    return ""


def _unlike_buffers(alone: Sequence[dict[str, Tensor]], together: Sequence[dict[str, Tensor]], coarse: bool) -> str:
    for one, other in zip(alone, together, strict=True):
        for name, buffer in one.items():
            if name not in other or buffer.shape != other[name].shape or not close(buffer, other[name], coarse=coarse):
                return f"its buffer {name} does not become what it becomes alone; is it replaced, instead of changed in place?"
    return ""


def buffers_of(run: TrainingRun) -> dict[str, Tensor]:
    return {name: buffer.detach().clone() for name, buffer in run.model.named_buffers()}


@contextmanager
def put_back(runs: Sequence[TrainingRun]) -> Iterator[None]:
    """Undo what a step does to buffers and generators, so that the next one begins where it began."""
    buffers = [buffers_of(run) for run in runs]
    generators = [run.optimization.dropout for run in runs]
    states = [generator.get_state() if generator is not None else None for generator in generators]
    try:
        yield
    finally:
        for run, kept in zip(runs, buffers, strict=True):
            for name, buffer in run.model.named_buffers():
                if name in kept and kept[name].shape == buffer.shape:
                    buffer.copy_(kept[name])
        for generator, state in zip(generators, states, strict=True):
            if generator is not None and state is not None:
                generator.set_state(state)


@contextmanager
def no_random_numbers_of_its_own(whose: str = "its model or criterion") -> Iterator[None]:
    before = _random_state()
    yield
    if _random_state() != before:
        raise Unfit(f"{whose} draws random numbers of its own; only torch.nn's layers of dropout may")


def _code_of(run: TrainingRun) -> str:
    return f"its model {type(run.model).__name__}, or its criterion,"


def _random_state() -> list[bytes]:
    """Return the state of the process's generators, to be compared."""
    state = capture({})
    rest = (state["python"][::2], state["numpy"][2:])
    return [repr(rest).encode(), *(tensor.numpy().tobytes() for tensor in leaves(list(state.values())))]


@contextmanager
def no_change_of_attributes(run: TrainingRun) -> Iterator[None]:
    owners = (run.model, run.optimization.criterion)
    before = [plain_attributes(owner) for owner in owners]
    yield
    for known, owner in zip(before, owners, strict=True):
        now = plain_attributes(owner)
        changed = sorted(name for name in known.keys() | now.keys() if known.get(name) != now.get(name))
        if changed:
            verb = "change" if len(changed) > 1 else "changes"
            raise Unfit(f"{', '.join(changed[:3])} {verb} as the model learns; tensors may, in buffers")
