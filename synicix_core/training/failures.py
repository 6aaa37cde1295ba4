"""Why a task ended badly: the kind of failure, which decides what happens next, and what equal failures have in common."""

from __future__ import annotations

import errno
import hashlib
import re
import socket
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from synicix_core.errors import DatasetError, ParamsError, SynicixError
from synicix_core.training.contract import TrainingDiverged

__all__ = ["Failure", "describe_failure", "forget", "is_transient", "summary"]


@dataclass(frozen=True)
class Failure:
    """An exception, described.

    Attributes
    ----------
    kind : {"out_of_memory", "transient", "diverged", "data", "error"}
        What is to happen: once more in smaller parts, once more later, or never again for the last three.
    cause : str
        Eight hexadecimal digits, equal for failures that have the same cause, whatever their numbers and names.
    message : str
        What people read first.
    stack : str
        The whole traceback.
    restart_executor : bool
        Whether this process cannot be trusted with another task: its GPU context is lost, or its memory in pieces.
    """

    kind: str
    cause: str
    message: str
    stack: str
    restart_executor: bool


def describe_failure(error: BaseException) -> Failure:
    """Describe an exception. The description holds no reference to it."""
    lost_gpu = any(_lost_gpu(item) for item in _chain(error))
    if any(_out_of_memory(item) for item in _chain(error)):
        kind = "out_of_memory"
    elif isinstance(error, TrainingDiverged):
        kind = "diverged"
    elif any(_DEVICE_ASSERT in str(item) for item in _chain(error)):
        kind = "error"  # an index out of range, usually; the same the next time
    elif lost_gpu or is_transient(error):
        kind = "transient"
    elif isinstance(error, DatasetError):
        kind = "data"
    else:
        kind = "error"
    return Failure(
        kind=kind,
        cause=_cause(kind, error),
        message=summary(error),
        stack="".join(traceback.format_exception(error)),
        restart_executor=lost_gpu or kind == "out_of_memory",
    )


def is_transient(error: BaseException) -> bool:
    """Tell whether waiting may help: a connection was lost, or a disk is full, away or slow.

    The errors that an error was raised from count too, but not those that were merely being handled.
    """
    seen: set[int] = set()
    item: BaseException | None = error
    while item is not None and id(item) not in seen:
        seen.add(id(item))
        if _comes_and_goes(item):
            return True
        reason = getattr(item, "reason", None)  # where urllib puts it
        item = reason if isinstance(reason, BaseException) else item.__cause__
    return False


def summary(error: BaseException) -> str:
    """Return the message of an exception on one line, with its type unless it is one of ours."""
    if isinstance(error, SynicixError):
        return str(error)
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def forget(error: BaseException) -> None:
    """Let go of what the frames of an exception hold, such as the tensors that filled the memory of a GPU."""
    for item in list(_chain(error)):
        traceback.clear_frames(item.__traceback__)
        item.__traceback__ = item.__cause__ = item.__context__ = None


_DEVICE_ASSERT = "device-side assert"
_NO_MEMORY = re.compile(
    r"out of memory|defaultcpuallocator|alloc_failed|not enough memory|cannot allocate memory|cudaErrorMemoryAllocation",
    re.IGNORECASE,
)
_GPU = re.compile(
    r"CUDA error|CUDA driver error|HIP error|cudaError[A-Z]|CUDNN_STATUS_(EXECUTION_FAILED|INTERNAL_ERROR|MAPPING_ERROR)"
)
_FAILED_WRITE = re.compile(r"PytorchStreamWriter|inline_container|file write failed|iostream error")
_LOADING_PROCESS = re.compile(r"DataLoader worker .*(killed|exited)")
_ERRNO = re.compile(r"\[Errno (\d+)\]|\berrno = (\d+)")

_TEMPORARY = {
    getattr(errno, name)
    for name in (
        *("EIO", "ESTALE", "EAGAIN", "EBUSY", "ENOSPC", "EDQUOT", "EMFILE", "ENFILE", "ENOBUFS", "ENOLCK", "EREMOTEIO"),
        *("ETIMEDOUT", "ECONNRESET", "ECONNREFUSED", "ECONNABORTED", "ENOTCONN", "EPIPE", "ESHUTDOWN", "EHOSTDOWN"),
        *("ENETUNREACH", "ENETDOWN", "ENETRESET", "EHOSTUNREACH"),
    )
    if hasattr(errno, name)
}


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and all that it was raised from or while handling."""
    waiting: list[BaseException | None] = [error]
    seen: set[int] = set()
    while waiting:
        item = waiting.pop()
        if item is not None and id(item) not in seen:
            seen.add(id(item))
            yield item
            waiting += [item.__cause__, None if item.__suppress_context__ else item.__context__]


def _out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if isinstance(error, OSError):
        return _errno(error) == errno.ENOMEM
    return isinstance(error, RuntimeError) and _NO_MEMORY.search(_first_words(error)) is not None


def _lost_gpu(error: BaseException) -> bool:
    if isinstance(error, torch.OutOfMemoryError):
        return False
    if isinstance(error, getattr(torch, "AcceleratorError", ())):
        return True
    return isinstance(error, RuntimeError) and _GPU.search(_first_words(error)) is not None


def _comes_and_goes(error: BaseException) -> bool:
    if isinstance(error, ConnectionError | TimeoutError | socket.gaierror):
        return True
    if isinstance(error, OSError) and _errno(error) in _TEMPORARY:
        return True
    if isinstance(error, RuntimeError):
        text = str(error)
        return _FAILED_WRITE.search(text) is not None or _LOADING_PROCESS.search(text) is not None
    # Libraries that speak over the network have errors of their own by these names.
    names = [kind.__name__ for kind in type(error).__mro__]
    return any(name.endswith(("ConnectionError", "Timeout", "TimeoutError")) for name in names)


def _errno(error: OSError) -> int | None:
    """Return the number of an error of the system; HDF5, and torch for its data-loading processes, leave it in the text."""
    if error.errno is not None:
        return error.errno
    found = _ERRNO.findall(str(error))
    return int(found[-1][0] or found[-1][1]) if found else None


def _first_words(error: BaseException) -> str:
    # What follows may quote anything, such as the advice of CUDA.
    return str(error)[:2000]


def _cause(kind: str, error: BaseException) -> str:
    name = f"{type(error).__module__}.{type(error).__qualname__}"
    where = _what(error.what) if isinstance(error, SynicixError) else _place(error)
    if isinstance(error, ParamsError):
        where = "\0".join([where, *sorted({path for path, _ in error.mistakes})])
    return hashlib.sha256("\0".join((kind, name, where)).encode()).hexdigest()[:8]


def _what(text: str) -> str:
    """Return what failed without what differs from task to task: names in quotes, and numbers."""
    return " ".join(re.sub(r"'[^']*'|\"[^\"]*\"|`[^`]*`|\d+", "", text.split("\n", 1)[0]).split())


def _place(error: BaseException) -> str:
    """Return file and function of the innermost frame that is neither torch's nor ours, or of the innermost at all."""
    frames = [(frame.filename, frame.name) for frame in traceback.extract_tb(error.__traceback__)]
    # An error of a data-loading process arrives with its own traceback as text, and ends in it.
    frames += re.findall(r'^ *File "(.*)", line \d+, in (.*)$', str(error), re.MULTILINE)
    foreign = [frame for frame in frames if not _is_library(frame[0])]
    if not frames:
        return ""
    file, function = (foreign or frames)[-1]
    return f"{_relative(file)}:{function}"


_LIBRARIES = (f"{Path(str(torch.__file__)).parent}/", f"{Path(__file__).parents[1]}/", "<")


def _is_library(file: str) -> bool:
    return file.startswith(_LIBRARIES)


def _relative(file: str) -> str:
    """Return a file's path below the directory that Python found it in, so that it is the same on every machine."""
    roots = [str(Path(root).resolve()) + "/" for root in sys.path]
    inside = [root for root in roots if file.startswith(root)]
    return file.removeprefix(max(inside, key=len)) if inside else Path(file).name
