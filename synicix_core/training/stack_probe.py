"""Whether tasks like one can be trained as a stack, in which way, and how many: found out by trying."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from synicix_core.registry import Registry
from synicix_core.training.batches import full_precision, map_tensors, split_output
from synicix_core.training.closeness import close
from synicix_core.training.likeness import difference
from synicix_core.training.loss_sums import LossSums
from synicix_core.training.nn_trainer import NNTrainer
from synicix_core.training.spec import TaskSpec, Unheard
from synicix_core.training.stack import Stack
from synicix_core.training.stack_conditions import Room, why_alone
from synicix_core.training.stacked_model import Mode, StackedModel
from synicix_core.training.step_comparison import (
    Unfit,
    batch_of,
    buffers_of,
    difference_in_a_step,
    is_coarse,
    leaves,
    no_change_of_attributes,
    no_random_numbers_of_its_own,
    positions_of,
    put_back,
    step_alone,
    step_stacked,
    weights_of,
)
from synicix_core.training.task_run import TaskRun
from synicix_core.training.torch_state import restored_torch_state
from synicix_core.training.training_run import TrainingRun
from synicix_core.training.unfit_code import brief, is_of_stacking, what_cannot_be_stacked

__all__ = ["Finding", "confirm", "probe"]

_MODES: tuple[Mode, ...] = ("forward", "gradient")
_MOST = {"cpu": 64, "cuda": 256}
_GAIN = 0.9
"""A stack takes at most this part of the time that its tasks take one by one, or they are trained one by one."""
_SMALL = (2, 3, 4, 6, 8, 12, 16, 24, 32)
"""Sizes of groups that are tried, from the smallest on, until one gains."""
_STEPS = 5
_APART = 0.05
"""Steps as one and alone move the weights apart by at most this part of how far they move them: rounding, amplified."""
_EXACT = 3
"""Stacks of one to so many are compared bit for bit."""


@dataclass(frozen=True)
class Finding:
    """What came of trying.

    Attributes
    ----------
    size : int
        How many tasks make the best stack; 1: train each by itself.
    reason : str
        Why each by itself, or what was measured: "with 16 a step takes 0.31 ms for each, alone 1.92 ms". Where fewer are
        trained at a time than were wanted, why no more.
    mode : {"forward", "gradient"}
        How to stack them.
    exact : bool
        Whether a task's numbers were the same, bit for bit, in stacks of different sizes.
    evaluates : bool
        Whether the stack can be measured as one, too.
    scores : bool
        And scored: what is saved of a model is all that changes as it learns.
    params : dict
        Parameters of the model that was tried.
    least : int
        Fewer tasks than that are faster one by one.
    """

    size: int
    reason: str = ""
    mode: Mode = "forward"
    exact: bool = False
    evaluates: bool = False
    scores: bool = False
    params: dict[str, Any] = field(default_factory=dict)
    least: int = 2


def probe(spec: TaskSpec, registry: Registry, limit: int | None, progress: Callable[[], None]) -> Finding:
    """Try a task: one step of a stack against the same step alone, then some steps of both by the clock.

    Nothing is trained or written, and the random state is afterwards what it was.

    Parameters
    ----------
    spec : TaskSpec
        One of them.
    registry : Registry
        Where the providers are found.
    limit : int, optional
        So many are wanted, whatever the clock says; None: as many as are fastest.
    progress : callable
        Called now and then.
    """
    with restored_torch_state(), ExitStack() as ending:
        folder = Path(ending.enter_context(tempfile.TemporaryDirectory()))
        trial = _Trial(spec, registry, folder, ending, progress)
        try:
            return trial.find(limit)
        except Unfit as error:
            return Finding(1, str(error))
        except Exception as error:  # of the task itself, which will end in it alone
            stacking = is_of_stacking(error)
            return Finding(1, what_cannot_be_stacked(error) if stacking else f"a trial raised {brief(error)}")


def confirm(runs: Sequence[TrainingRun], mode: Mode) -> str:
    """Say why two trainings of a group, which have just been built, cannot be stacked in that way; empty if they can."""
    with restored_torch_state():
        try:
            return difference_in_a_step(runs, mode)
        except Unfit as error:
            return str(error)
        except Exception as error:
            return what_cannot_be_stacked(error)


class _Trial:
    """Tasks that differ from one in their seed alone, and what is tried with them."""

    def __init__(
        self, spec: TaskSpec, registry: Registry, folder: Path, ending: ExitStack, progress: Callable[[], None]
    ) -> None:
        self._spec = spec
        self._registry = registry
        self._folder = folder
        self._ending = ending
        self._progress = progress
        self._runs: list[TrainingRun] = []
        self._changes_unseen = False

    def find(self, limit: int | None) -> Finding:
        first = self._build(1)[0]
        if why := why_alone(first):
            raise Unfit(why)
        if limit == 1:
            raise Unfit("a group of one was asked for")
        device = first.device
        room = Room(first.trainer.model, device)
        fitting = room.gaining if limit is None else room.fitting
        most = min(limit or _MOST[device.type], fitting)
        if most < 2:
            raise Unfit(room.reason(2))
        pair = [first, *self._build(2)]
        if why := difference(pair[0].trainer.model, pair[1].trainer.model):
            raise Unfit(f"models of different seeds differ: {why}")
        mode = self._mode()
        if why := self._difference_after_steps(mode):
            raise Unfit(why)
        self._look_at_metric()
        if limit is not None:
            self._build(min(most, _EXACT))
            return self._finding(most, mode, room.reason(limit) if most < limit else "")
        alone = self._clock([lambda: self._step_alone(self._runs[0])])
        sizes = sorted({most, max(most // 4, 2)}, reverse=True)
        self._build(sizes[0])
        times = {size: self._clock_stack(size, mode) / size for size in sizes}
        best = min(times, key=lambda size: times[size])
        if times[best] > _GAIN * alone:
            raise Unfit(
                f"nothing is gained: a step takes {1000 * times[best]:.2f} ms per task with {best} as one, "
                f"{1000 * alone:.2f} ms alone"
            )
        gained = f"with {best} a step takes {1000 * times[best]:.2f} ms for each, alone {1000 * alone:.2f} ms"
        small = (size for size in _SMALL if size < best)
        least = next((size for size in small if self._clock_stack(size, mode) / size <= _GAIN * alone), best)
        return self._finding(best, mode, gained, least)

    def _finding(self, size: int, mode: Mode, reason: str, least: int = 2) -> Finding:
        evaluates = self._evaluates(mode)
        scores = evaluates and not self._changes_unseen
        exact = self._is_exact(mode)
        return Finding(size, reason, mode, exact, evaluates, scores, self._spec.model.params, least)

    def _build(self, count: int) -> list[TaskRun]:
        """Build tasks until there are so many; return the new ones."""
        new = []
        while len(self._runs) < count:
            run = self._build_one(len(self._runs))
            new.append(run)
            if type(run.trainer) is not NNTrainer:
                break
            self._runs.append(run.trainer.run)
        return new

    def _build_one(self, number: int) -> TaskRun:
        spec = replace(
            self._spec,
            seed=self._spec.seed + number,
            model_save_path=str(self._folder / f"{number}.pt"),
            checkpoint_path=str(self._folder / f"{number}.checkpoint"),
            resume_from=(),
        )
        run = TaskRun(spec, self._registry, Unheard())
        self._ending.callback(run.close)
        run.prepare()
        self._progress()
        return run

    def _mode(self) -> Mode:
        """Return the first way in which a step of two is the step of each alone."""
        runs = self._runs[:2]
        saved = runs[0].model.state_dict()
        unseen = {name: buffer for name, buffer in buffers_of(runs[0]).items() if name not in saved}
        with put_back(runs):
            step_alone(runs[0], batch_of(runs[0]))
            after = buffers_of(runs[0])
        self._changes_unseen = not all(torch.equal(buffer, after[name]) for name, buffer in unseen.items())
        reasons = []
        for mode in _MODES:
            try:
                why = difference_in_a_step(runs, mode)
            except Unfit:
                raise
            except Exception as error:
                why = what_cannot_be_stacked(error)
            if not why:
                return mode
            reasons.append(why)
        raise Unfit(reasons[0])

    def _difference_after_steps(self, mode: Mode) -> str:
        """Say how steps with everything that belongs to them, optimizer and average and all, move two models otherwise."""
        alone = [self._build_one(number).trainer.run for number in range(2)]
        stacked = [self._build_one(number).trainer.run for number in range(2)]
        before = [weights_of(run) for run in alone]
        stack = Stack(stacked, mode, evaluates=False)
        try:
            for last in (False, True):
                for run in alone:
                    batches = [batch_of(run, last=last) for _ in range(run.accumulate)]
                    run.optimization.step(batches, LossSums(run.optimization.criterion))
                rows = torch.stack([positions_of(run, last=last) for run in stacked])
                stack.step([rows] * stacked[0].accumulate)
                for run in stacked:
                    run.optimization.learning_rate.after_step()
                stack.rates_change()
            if not stack.model.is_intact():
                return "its optimizer, or its model, puts new tensors in the place of those that learn"
        finally:
            stack.release()
        for start, one, other in zip(before, alone, stacked, strict=True):
            moved, apart = weights_of(one) - start, weights_of(one) - weights_of(other)
            if not float(apart.norm()) <= _APART * float(moved.norm()):
                return "after some steps of two models as one, their weights are not those of each alone"
        return ""

    def _look_at_metric(self) -> None:
        run = self._runs[0]
        if not run.collects or run.metric.takes_column:
            return
        with torch.no_grad():
            run.model.eval()
            inputs, targets = batch_of(run)
            output = full_precision(split_output(run.model(inputs))[0])
        with no_random_numbers_of_its_own("its metric"):
            run.metric(output, targets)

    def _is_exact(self, mode: Mode) -> bool:
        """Tell whether the first task's steps are the same, bit for bit, in stacks of one, two and more.

        The last batch of an epoch counts, too: some operations compute the last numbers of a tensor in another way.
        """
        runs = self._runs[:_EXACT]
        for last in (False, True):
            found = []
            for count in range(1, len(runs) + 1):
                batches = [batch_of(run, last=last) for run in runs]
                with put_back(runs[:count]):
                    losses, penalties, gradients = step_stacked(runs[:count], batches[:count], mode)
                    found.append([losses[0], penalties[0], *(g[0] for g in gradients.values() if g is not None)])
            if not all(
                torch.equal(one, other) for others in found[1:] for one, other in zip(found[0], others, strict=True)
            ):
                return False
        return True

    def _evaluates(self, mode: Mode) -> bool:
        """Tell whether the outputs of two as one, in evaluation mode, are those of each alone."""
        if mode == "gradient":
            return False
        runs = self._runs[:2]
        inputs, targets = batch_of(runs[0])
        alone = []
        for run in runs:
            run.model.eval()
            with (
                torch.no_grad(),
                run.optimization.precision.autocast(),
                no_random_numbers_of_its_own(),
                no_change_of_attributes(run),
            ):
                alone.append(full_precision(split_output(run.model(map_tensors(torch.clone, inputs)))[0]))
        first = runs[0].optimization
        model = StackedModel([run.model for run in runs], first.criterion, first.precision.autocast, mode)
        try:
            together, _ = model.outputs(
                *(map_tensors(lambda tensor: tensor.expand(2, *tensor.shape), part) for part in (inputs, targets))
            )
        except Exception:  # whatever it is: then each is measured alone
            return False
        finally:
            model.release()
        return all(
            close(one, other[k], coarse=is_coarse(runs[0]))
            for k, output in enumerate(alone)
            for one, other in zip(leaves(output), leaves(together), strict=True)
        )

    def _clock(self, steps: Sequence[Callable[[], object]]) -> float:
        """Return the seconds that a call of all of them takes: the least of a few."""
        least = float("inf")
        for turn in range(_STEPS + 1):
            _wait(self._runs[0].optimization.device)
            began = time.perf_counter()
            for step in steps:
                step()
            _wait(self._runs[0].optimization.device)
            self._progress()
            least = min(least, time.perf_counter() - began) if turn else least
        return least

    def _step_alone(self, run: TrainingRun) -> None:
        run.optimization.step([batch_of(run)], LossSums(run.optimization.criterion))

    def _clock_stack(self, count: int, mode: Mode) -> float:
        stack = Stack(self._runs[:count], mode, evaluates=False)
        positions = torch.stack([positions_of(run) for run in stack.runs])
        try:
            return self._clock([lambda: stack.step([positions])])
        except torch.OutOfMemoryError:
            return float("inf")
        finally:
            stack.release()


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
