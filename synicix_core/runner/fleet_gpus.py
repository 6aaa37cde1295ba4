"""The GPUs of this machine, and NVIDIA's Multi-Process Service (MPS), by which several processes use one at the same time.

Source: NVIDIA, *Multi-Process Service*, https://docs.nvidia.com/deploy/mps/.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

__all__ = ["MultiProcessService", "visible_gpus"]

_CONTROL = "nvidia-cuda-mps-control"
_PIPES, _LOGS, _VISIBLE = "CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_LOG_DIRECTORY", "CUDA_VISIBLE_DEVICES"
_SECONDS = 20.0


def visible_gpus() -> tuple[str, ...]:
    """Return the NVIDIA GPUs that a worker would see, as torch names them; none where there is none. Imports no torch."""
    masked = os.environ.get(_VISIBLE)
    if masked is not None:
        named = [name.strip() for name in masked.split(",")]
        # CUDA takes those before the first that is not valid; "-1" is how people hide all.
        count = next((place for place, name in enumerate(named) if name in ("", "-1")), len(named))
    else:
        answer = _ask(["nvidia-smi", "--list-gpus"])
        count = 0 if answer is None else sum(line.startswith("GPU ") for line in answer.stdout.splitlines())
    return tuple(f"cuda:{index}" for index in range(count))


class MultiProcessService:
    """MPS for the workers of a fleet, where several of them are on one GPU and it can be had.

    One that runs already, somebody else's, is used and left alone. Otherwise one is started that belongs to this fleet, with
    pipes and logs of its own.

    Parameters
    ----------
    devices : sequence of str
        Of the workers, as torch names them.
    tell : callable
        Takes a sentence about what was done.

    Attributes
    ----------
    environment : mapping of str to str
        What the workers' environment needs in addition.
    """

    def __init__(self, devices: Sequence[str], tell: Callable[[str], None]) -> None:
        self.environment: Mapping[str, str] = {}
        self._own: Path | None = None
        shared = [device for device, workers in Counter(devices).items() if workers > 1 and device.startswith("cuda")]
        if not shared:
            return
        named = ", ".join(shared)
        if shutil.which(_CONTROL) is None:
            tell(f"The workers on {named} take turns there: NVIDIA's MPS ({_CONTROL}) is not installed.")
        elif _command("get_server_list", os.environ):
            tell(f"The workers share {named} through the MPS that runs already.")
        else:
            self._start(named, tell)

    def stop(self) -> None:
        """End the service, if it was started here; afterwards there is nothing to end."""
        own, self._own = self._own, None
        if own is not None:
            _command("quit", {**os.environ, **self.environment})
            shutil.rmtree(own, ignore_errors=True)

    def _start(self, named: str, tell: Callable[[str], None]) -> None:
        # The path of a socket must be short, which that of the project need not be.
        own = Path(tempfile.mkdtemp(prefix="synicix-mps-"))
        places = {_PIPES: own / "pipes", _LOGS: own / "logs"}
        for place in places.values():
            place.mkdir()
        directories = {name: str(place) for name, place in places.items()}
        environment = {**os.environ, **directories}
        # A client's list of devices counts among those of the service, so that one must see all of them.
        environment.pop(_VISIBLE, None)
        said_file = own / "said"
        try:
            # Not through a pipe: the service might keep its end open, and the reader would wait for as long.
            with said_file.open("w") as said_to:
                started = subprocess.run(
                    [_CONTROL, "-d"], env=environment, stdin=subprocess.DEVNULL, stdout=said_to, stderr=said_to,
                    timeout=_SECONDS, check=False,
                ).returncode == 0  # fmt: skip
        except (OSError, subprocess.TimeoutExpired):
            started = False
        if not started:
            said = said_file.read_text(encoding="utf-8", errors="replace").strip().partition("\n")[0]
            tell(f"The workers on {named} take turns there: MPS could not be started{f' ({said})' if said else ''}.")
            shutil.rmtree(own, ignore_errors=True)
            return
        self._own, self.environment = own, directories
        tell(f"The workers share {named} through an MPS of their own, which ends with them.")


def _command(text: str, environment: Mapping[str, str]) -> bool:
    """Give the service a command, and tell whether it took it."""
    answer = _ask([_CONTROL], environment, text + "\n")
    return answer is not None and answer.returncode == 0


def _ask(
    command: Sequence[str], environment: Mapping[str, str] | None = None, text: str = ""
) -> subprocess.CompletedProcess[str] | None:
    """Run a program, and return what it said; None if it is not there or does not answer."""
    try:
        return subprocess.run(
            command, env=environment, input=text, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
