"""Which device an executor trains on."""

from __future__ import annotations

from synicix_core.errors import ConfigurationError

__all__ = ["describe_device"]


def describe_device(name: str) -> tuple[str, str]:
    """Find a device.

    Parameters
    ----------
    name : str
        As torch names it (``cpu``, ``cuda``, ``cuda:1``, ``mps``); ``auto`` takes the first GPU, or the CPU where there is none.

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
    return device.type, "Apple GPU" if device.type == "mps" else "CPU"
