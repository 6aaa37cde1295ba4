"""Mixed precision: what a name like ``"bf16"`` means on a device, as autocast and gradient scaler."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from synicix_core.errors import ConfigurationError, ParamsError
from synicix_core.training.torch_state import set_float32_precision

__all__ = ["PRECISIONS", "Precision", "resolve_precision"]

PRECISIONS = ("auto", "fp32", "tf32", "bf16", "fp16")
"""What a training config may ask for."""


class Precision:
    """Autocast and gradient scaling of one training run.

    Parameters
    ----------
    resolved : {"fp32", "tf32", "bf16", "fp16"}
        What is used.
    device : torch.device
        Where the model is.
    scaler : torch.amp.GradScaler, optional
        Scales gradients; made for fp16 where none is given.

    Attributes
    ----------
    resolved : str
        What is used, after ``"auto"`` was decided.
    scaler : torch.amp.GradScaler or None
        None where gradients need no scaling.
    """

    def __init__(self, resolved: str, device: torch.device, scaler: torch.amp.GradScaler | None = None) -> None:
        self.resolved = resolved
        self.device = device
        self.scaler = scaler if scaler is not None or resolved != "fp16" else torch.amp.GradScaler(device.type)
        self._dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(resolved)
        self._scale = self.scaler.get_scale() if self.scaler is not None else 1.0

    def __repr__(self) -> str:
        return f"Precision({self.resolved!r}, {str(self.device)!r})"

    def apply(self) -> None:
        """Set torch's float32 switches: TF32 on for ``"tf32"``, exact for all others."""
        set_float32_precision(tf32=self.resolved == "tf32")

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context for the forward pass. Compute the loss outside of it, from ``output.float()``."""
        if self._dtype is None:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self._dtype)

    def backward(self, loss: torch.Tensor) -> None:
        """Compute the gradients of `loss`, scaled where that is needed."""
        (loss if self.scaler is None else self.scaler.scale(loss)).backward()  # type: ignore[no-untyped-call]

    def unscale_(self, optimizer: torch.optim.Optimizer) -> None:
        """Make the gradients true ones, in place; call once per step, before clipping or looking at them."""
        if self.scaler is not None:
            self.scaler.unscale_(optimizer)

    def step(self, optimizer: torch.optim.Optimizer) -> bool:
        """Step the optimizer.

        Returns
        -------
        bool
            False where the step was skipped because scaled gradients overflowed; the scale is halved then.
        """
        if self.scaler is None:
            optimizer.step()
            return True
        self.scaler.step(optimizer)
        self.scaler.update()
        before, self._scale = self._scale, self.scaler.get_scale()
        return self._scale >= before

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the scaler; empty without one."""
        return {} if self.scaler is None else self.scaler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` returned."""
        if self.scaler is not None and state:
            self.scaler.load_state_dict(state)
            self._scale = self.scaler.get_scale()


def resolve_precision(requested: str, device: torch.device) -> Precision:
    """Decide what `requested` means on `device`.

    ``"auto"`` is bf16 on a GPU that has it, fp16 with gradient scaling on older tensor cores, else fp32; on the CPU fp32.
    ``"tf32"`` is fp32 where there is no TF32.

    Raises
    ------
    ParamsError
        If there is no such precision.
    ConfigurationError
        If the device cannot do it.
    """
    if requested not in PRECISIONS:
        raise ParamsError(
            "the precision is not known",
            [("precision", f"expected one of {', '.join(PRECISIONS)}, got {requested!r}")],
        )
    if device.type != "cuda":
        if requested == "fp16":
            raise ConfigurationError(
                f"precision 'fp16' needs a CUDA GPU and this task runs on {device.type!r}",
                why="fp16 with gradient scaling is slower and less exact there than fp32",
                hint='Set precision to "auto", "bf16" or "fp32", or train on a GPU.',
            )
        return Precision("bf16" if requested == "bf16" else "fp32", device)
    capability = torch.cuda.get_device_capability(device)
    with torch.cuda.device(device):
        has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    if requested == "bf16" and not has_bf16:
        raise ConfigurationError(
            "precision 'bf16' is not supported by this GPU",
            where=torch.cuda.get_device_name(device),
            hint='Set precision to "auto", "fp16" or "fp32".',
        )
    if requested == "auto":
        return Precision("bf16" if has_bf16 else "fp16" if capability >= (7, 0) else "fp32", device)
    if requested == "tf32" and capability < (8, 0):
        return Precision("fp32", device)
    return Precision(requested, device)
