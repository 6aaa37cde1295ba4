"""Which device an executor trains on."""

from __future__ import annotations

from synicix_core.errors import ConfigurationError
from synicix_core.runner.allocator import keep_freed_memory

__all__ = ["use_device"]

_KINDS = ("cpu", "cuda", "mps", "xpu")


def use_device(name: str, threads: int) -> tuple[str, str]:
    """Find a device; if it is the CPU, limit this process to `threads` threads and let it keep the memory that it frees.

    Parameters
    ----------
    name : str
        As torch names it (``cpu``, ``cuda``, ``cuda:1``, ``mps``); ``auto`` takes the first GPU, or the CPU where there is none.
    threads : int
        CPU threads; 0 leaves the choice to torch.

    Returns
    -------
    device, description : str
        The name in full, and what people call it.

    Raises
    ------
    ConfigurationError
        If this machine has no such device.
    """
    import torch

    if name == "auto":
        name = "cuda:0" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    kind = name.partition(":")[0]
    if kind not in _KINDS:
        raise ConfigurationError(
            f"there is no device {name!r}", hint=f"Use --device auto, {', '.join(_KINDS)} or cuda:1."
        )
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        why = " ".join(str(error).split()).split(". ")[0]
        raise ConfigurationError(
            f"there is no device {name!r} here", why=why, hint="Use --device auto or cpu."
        ) from error
    if device.type == "cuda":
        index = device.index or 0
        return f"cuda:{index}", torch.cuda.get_device_name(index)
    if device.type == "cpu":
        keep_freed_memory()
        if threads:
            torch.set_num_threads(threads)
    return device.type, "Apple GPU" if device.type == "mps" else "CPU"
