"""Groups whose members are trained in turn, an epoch or two each, so that all are under way at the same time.

The environment says how: `GROUP_KIT_SIZE` is how many go together, `GROUP_KIT_PLAN` what becomes of the look at it
(``decline``, ``raise``, ``die``), `GROUP_KIT_ROOM` how many fit of those that are asked for, `GROUP_KIT_FITS` how many fit
into memory at once, `GROUP_KIT_LEAST` the fewest that gain, `GROUP_KIT_APART` that models with another penalty than the
first do not go together. A line for each plan and each group goes to the file `GROUP_KIT_LOG`.
"""

import json
import os
import signal
from pathlib import Path

import torch

from synicix_core.training.contract import TrainingInterrupted
from synicix_core.training.group import GroupPlan, NotTogether
from synicix_core.training.run import run_task


def plan_group(spec, registry, limit=None):
    """Return what the environment says."""
    _log({"plan": spec.task, "limit": limit})
    how = os.environ.get("GROUP_KIT_PLAN")
    if how == "raise":
        raise RuntimeError("the model cannot be looked at")
    if how == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "decline":
        return GroupPlan(1, "the model branches on its data")
    size = int(os.environ.get("GROUP_KIT_SIZE", "4"))
    if limit is not None:
        return GroupPlan(min(limit, int(os.environ.get("GROUP_KIT_ROOM", limit))), "no more fit")
    least = int(os.environ.get("GROUP_KIT_LEAST", "2"))
    return GroupPlan(size, "with 4 a step takes 0.20 ms for each, alone 0.50 ms", least)


def run_group(members, registry, *, size, ended):
    """Train the members in turn."""
    _log({"group": [member.spec.task for member in members], "size": size})
    if len(members) > int(os.environ.get("GROUP_KIT_FITS", "1000")):
        raise torch.OutOfMemoryError(f"CUDA out of memory: {len(members)} models at once")
    left = []
    for index, member in enumerate(members):
        first, own = (one.spec.model.params.get("penalty") for one in (members[0], member))
        if own != first and "GROUP_KIT_APART" in os.environ:
            ended(index, NotTogether("its penalty is a number on the module"))
        else:
            left.append(index)
    while left:
        for index in list(left):
            member = members[index]
            turn = _Turn(member.observer)
            try:
                how = run_task(member.spec, registry, turn, state=member.state)
            except TrainingInterrupted as interrupted:
                if not member.observer.stop_requested():
                    continue  # it goes on from its checkpoint the next time
                how = interrupted
            except BaseException as error:
                how = error
            left.remove(index)
            ended(index, how)


class _Turn:
    """An observer that asks its task to stop after an epoch, besides when it is really to stop."""

    def __init__(self, observer):
        self._observer = observer
        self._over = False

    def stop_requested(self):
        return self._observer.stop_requested() or self._over

    def epoch_finished(self, **fields):
        self._over = fields["epoch"] < fields["epoch_limit"]
        self._observer.epoch_finished(**fields)

    def __getattr__(self, name):
        return getattr(self._observer, name)


def _log(line):
    if path := os.environ.get("GROUP_KIT_LOG"):
        with Path(path).open("a") as file:
            file.write(json.dumps(line) + "\n")
