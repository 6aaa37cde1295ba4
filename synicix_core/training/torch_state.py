"""The global switches of torch, as a task finds them and as it leaves them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from synicix_core.training.random_state import capture, restore

__all__ = ["restored_torch_state", "set_deterministic", "set_float32_precision"]

_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"


@contextmanager
def restored_torch_state() -> Iterator[None]:
    """Undo, at the end, every change of torch's global switches and random state, so that tasks do not meet.

    Restored are: float32 precision, cuDNN's switches, deterministic algorithms, the default dtype and device, gradient
    and anomaly mode, the number of threads, and Python's, NumPy's and torch's random state.
    """
    cudnn = torch.backends.cudnn
    matmul, convolution = _float32_precision()
    flags = (cudnn.benchmark, cudnn.deterministic, cudnn.enabled)
    deterministic = _deterministic()
    dtype, device = torch.get_default_dtype(), torch.get_default_device()
    gradients, anomaly, threads = torch.is_grad_enabled(), torch.is_anomaly_enabled(), torch.get_num_threads()
    workspace = os.environ.get(_WORKSPACE)
    random_state = capture({})
    try:
        yield
    finally:
        _set_legacy(matmul, convolution)
        cudnn.benchmark, cudnn.deterministic, cudnn.enabled = flags
        if _deterministic() != deterministic:  # setting it imports torch's compiler, which takes seconds
            torch.use_deterministic_algorithms(deterministic[0], warn_only=deterministic[1])
        torch.set_default_dtype(dtype)
        if torch.get_default_device() != device:
            torch.set_default_device(None if device == torch.device("cpu") else device)
        torch.set_grad_enabled(gradients)
        torch.autograd.set_detect_anomaly(anomaly)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        if workspace is None:
            os.environ.pop(_WORKSPACE, None)
        else:
            os.environ[_WORKSPACE] = workspace
        restore(random_state, {})


def set_float32_precision(*, tf32: bool) -> None:
    """Let matrix products and convolutions of float32 tensors use TF32 on a GPU, or keep them exact.

    torch's own default is exact products but TF32 convolutions.
    """
    _set_legacy("high" if tf32 else "highest", tf32)


def set_deterministic() -> None:
    """Make torch use deterministic algorithms only; an operation that has none raises."""
    # cuBLAS reads this when it is first used; without it torch refuses matrix products in deterministic mode.
    os.environ.setdefault(_WORKSPACE, ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False


def _deterministic() -> tuple[bool, bool]:
    return torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()


def _float32_precision() -> tuple[str, bool]:
    try:
        return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    except RuntimeError:  # somebody used torch's newer switches, which the older readers refuse to translate
        return "highest", True


def _set_legacy(matmul: str, convolution: bool) -> None:
    # The older switches exist in every supported torch, and setting both makes the newer ones agree again.
    torch.set_float32_matmul_precision(matmul)
    torch.backends.cudnn.allow_tf32 = convolution
