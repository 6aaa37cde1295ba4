"""Why a task ended badly, and that nothing of it stays behind."""

from __future__ import annotations

import contextlib
import errno
import gc
import json
import resource
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from synicix_core.errors import CheckpointError, DatasetError, ParamsError
from synicix_core.training.contract import TrainingDiverged
from synicix_core.training.failures import describe_failure, forget, is_transient
from synicix_core.training.saved_files import save_atomically


def caught(function: Callable[[], Any]) -> BaseException:
    try:
        function()
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


def chained(outer: BaseException, inner: BaseException, *, cause: bool = True) -> BaseException:
    def raises() -> None:
        try:
            raise inner
        except BaseException as error:
            if cause:
                raise outer from error
            raise outer  # noqa: B904  # what people forget is what is tested

    return caught(raises)


class ReadTimeout(Exception):
    """As an HTTP library calls it."""


GPU = "CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be asynchronously reported"
ASSERT = "CUDA error: device-side assert triggered\nCUDA kernel errors might be asynchronously reported"
WORKER = "DataLoader worker (pid 4711) is killed by signal: Killed. "
SHARED = "DataLoader worker (pid 1) is killed by signal: Bus error. It is possible that dataloader's workers are out of shared memory."
KINDS: list[tuple[BaseException, str, bool]] = [
    (ValueError("no"), "error", False),
    (SystemExit(3), "error", False),
    (KeyboardInterrupt(), "error", False),
    (ParamsError("no", [("a", "b")]), "error", False),
    (FileNotFoundError(errno.ENOENT, "No such file"), "error", False),
    (MemoryError(), "out_of_memory", True),
    (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB."), "out_of_memory", True),
    (RuntimeError("CUDA error: out of memory"), "out_of_memory", True),
    (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), "out_of_memory", True),
    (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), "out_of_memory", True),
    (RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"), "out_of_memory", True),
    (OSError(errno.ENOMEM, "Cannot allocate memory"), "out_of_memory", True),
    (chained(ValueError("no"), MemoryError(), cause=False), "out_of_memory", True),
    (chained(CheckpointError("no"), torch.OutOfMemoryError("CUDA out of memory")), "out_of_memory", True),
    (OSError(errno.EIO, "Input/output error"), "transient", False),
    (OSError(errno.ESTALE, "Stale file handle"), "transient", False),
    (OSError(errno.ENOSPC, "No space left on device"), "transient", False),
    (ConnectionResetError("reset"), "transient", False),
    (TimeoutError(), "transient", False),
    (ReadTimeout("slow"), "transient", False),
    (OSError("Can't read data (file read failed: time = Mon, errno = 5, error message = 'Input/output error')"), "transient", False),
    (OSError("Caught OSError in DataLoader worker process 0.\nOriginal\nOSError: [Errno 116] Stale file"), "transient", False),
    (chained(DatasetError("the dataset cannot be read"), OSError(errno.EIO, "I/O")), "transient", False),
    (chained(CheckpointError("the file cannot be written"), OSError(errno.EDQUOT, "quota")), "transient", False),
    (RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 640 vs 598"), "transient", False),
    (RuntimeError(WORKER), "transient", False),
    (RuntimeError(SHARED), "transient", False),
    (RuntimeError(GPU), "transient", True),
    (torch.AcceleratorError(GPU), "transient", True),
    (torch.AcceleratorError(ASSERT), "error", True),
    (TrainingDiverged("training diverged"), "diverged", False),
    (DatasetError("the file is not what it was"), "data", False),
    (chained(DatasetError("the dataset cannot be read"), KeyError("responses")), "data", False),
    # The connection was lost, which was dealt with, badly.
    (chained(KeyError("fallback"), ConnectionResetError(), cause=False), "error", False),
]  # fmt: skip


@pytest.mark.parametrize(("error", "kind", "restart"), KINDS, ids=lambda value: repr(value)[:50])
def test_kinds(error: BaseException, kind: str, restart: bool) -> None:
    failure = describe_failure(error)
    assert (failure.kind, failure.restart_executor) == (kind, restart)
    assert len(failure.cause) == 8 and int(failure.cause, 16) >= 0


def test_what_really_happens_is_recognised(tmp_path: Path) -> None:
    assert describe_failure(caught(lambda: torch.empty(10**15))).kind == "out_of_memory"
    full = caught(lambda: torch.save({"a": torch.zeros(100_000)}, "/dev/full"))
    assert describe_failure(full).kind == "transient"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        large = caught(lambda: save_atomically({"a": torch.zeros(1_000_000)}, tmp_path / "model"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert isinstance(large, CheckpointError) and "File too large" in large.why
    assert isinstance(large.__cause__, OSError) and list(tmp_path.iterdir()) == []


def test_message_and_stack() -> None:
    failure = describe_failure(chained(ValueError("two\nlines"), KeyError("inner")))
    assert failure.message == "ValueError: two lines"
    assert "KeyError: 'inner'" in failure.stack and "direct cause" in failure.stack
    ours = describe_failure(DatasetError("it cannot be read", file="/a", why="it is empty"))
    assert ours.message == "it cannot be read (/a): it is empty."
    assert describe_failure(MemoryError()).message == "MemoryError"


def failing(number: int) -> None:
    raise ValueError(f"unit {number} is not known")


def failing_elsewhere(number: int) -> None:
    raise ValueError(f"unit {number} is not known")


def cause(function: Callable[[], Any]) -> str:
    return describe_failure(caught(function)).cause


def test_different_parameters_are_different_causes() -> None:
    def of(path: str, message: str) -> str:
        return describe_failure(ParamsError("NNTrainer cannot be built", [(path, message)])).cause

    assert of("ema_decay", "expected less than 1, got 2.0") == of("ema_decay", "expected less than 1, got 3.0")
    assert of("ema_decay", "is wrong") != of("accumulate_batches", "is wrong")


def test_equal_causes_whatever_the_numbers_and_different_ones_apart() -> None:
    assert cause(lambda: failing(1)) == cause(lambda: failing(2))
    assert cause(lambda: failing(1)) != cause(lambda: failing_elsewhere(1))
    # Inside torch, the frame that called it tells.
    assert cause(lambda: torch.zeros(2) @ torch.zeros(3)) == cause(lambda: torch.zeros(5) @ torch.zeros(4))

    def linear(size: int) -> None:
        torch.nn.Linear(size, 2)(torch.zeros(1, size + 1))

    assert cause(lambda: linear(1)) == cause(lambda: linear(7))
    assert cause(lambda: linear(1)) != cause(lambda: failing(1))

    def ours(name: str, count: int) -> None:
        raise CheckpointError(f"the file {name!r} is {count} bytes short", where=f"/models/{name}")

    assert cause(lambda: ours("a", 1)) == cause(lambda: ours("b", 22))
    assert cause(lambda: ours("a", 1)) != describe_failure(CheckpointError("the file is missing")).cause


def test_a_cause_is_the_same_on_a_machine_with_other_directories(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for name in ("one", "two"):
        (tmp_path / name / "their_lab").mkdir(parents=True)
        file = tmp_path / name / "their_lab" / "nets.py"
        file.write_text("def forward():\n    raise ValueError\n")
        namespace: dict[str, Any] = {}
        exec(compile(file.read_text(), str(file), "exec"), namespace)
        with monkeypatch.context() as patch:
            patch.syspath_prepend(tmp_path / name)
            found.append(cause(namespace["forward"]))
    assert found[0] == found[1]


def test_an_error_of_a_data_loading_process_has_the_cause_that_it_had_there() -> None:
    def arrived(function: str) -> str:
        text = (
            "Caught ValueError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n"
            f'  File "{torch.__file__}", line 3, in fetch\n    data = 1\n'
            f'  File "/lab/data.py", line 7, in {function}\n    raise ValueError\nValueError: 7\n'
        )
        return describe_failure(ValueError(text)).cause

    assert arrived("__getitem__") == arrived("__getitem__") != arrived("read")


def test_nothing_of_a_failure_is_kept_alive() -> None:
    kept: list[Any] = []

    def inner() -> None:
        heavy = torch.zeros(10)
        kept.append(weakref.ref(heavy))
        raise KeyError("inner")

    def outer() -> None:
        heavy = torch.zeros(10)
        kept.append(weakref.ref(heavy))
        try:
            inner()
        except KeyError as error:
            raise ValueError("outer") from error

    gc.disable()
    try:
        error = caught(outer)
        failure = describe_failure(error)
        assert all(reference() is not None for reference in kept)
        forget(error)
        assert [reference() for reference in kept] == [None, None]
    finally:
        gc.enable()
    assert "inner" in failure.stack
    json.dumps(vars(failure))


def test_a_chain_that_bites_its_tail_ends() -> None:
    one, two = ValueError("1"), ValueError("2")
    one.__cause__, two.__cause__ = two, one
    assert not is_transient(one)
    with contextlib.suppress(RecursionError):
        assert describe_failure(one).kind == "error"
