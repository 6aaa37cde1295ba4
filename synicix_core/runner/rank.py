"""A rank other than 0: trains along with the executor that started it, which is rank 0, and tells only what went wrong.

Started as its own program by `synicix_core.runner.ranks`, in the executor's process group. It ends with the executor.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import sys
from typing import Any

from synicix_core.runner.channel import Channel
from synicix_core.training.parent_death import die_with

__all__ = ["main"]


def main() -> None:
    """Serve the executor at the other end of the descriptors named on the command line."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    die_with(int(sys.argv[3]))
    faulthandler.enable()
    channel = Channel(int(sys.argv[1]), int(sys.argv[2]))
    with contextlib.suppress(OSError):  # the executor is gone
        _serve(channel)


def _serve(channel: Channel) -> None:
    from synicix_core.runner.executor_ends import failed
    from synicix_core.training.spec import TaskState

    state = TaskState()
    try:
        _train_along(channel, state)
    except (Exception, SystemExit, KeyboardInterrupt) as error:  # whatever a plugin raises
        channel.send(failed(error, state))
        # At once: the others wait for this rank until its connections are closed.
        os._exit(1)


def _train_along(channel: Channel, state: Any) -> None:
    from synicix_core.registry import get_registry
    from synicix_core.runner.device import use_device
    from synicix_core.training.contract import TrainingInterrupted
    from synicix_core.training.data_parallel import join
    from synicix_core.training.rank import run_other
    from synicix_core.training.spec import TaskSpec

    channel.send({"type": "ready"})
    messages = channel.messages()
    told = next(messages, None)
    if told is None:
        return
    import torch

    rank, ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    os.environ["MASTER_PORT"] = str(told["port"])
    device, _ = use_device(told["device"], told["threads"])
    parallel = join(rank, ranks, torch.device(device), told["port"])
    for message in messages:
        with contextlib.suppress(TrainingInterrupted):  # rank 0 says so
            run_other(TaskSpec.from_wire(message["spec"]), get_registry(), parallel, state)


if __name__ == "__main__":
    main()
