"""What Python runs first in the workers of the fault tests: faults that cannot be had from outside a process.

`FAULTS` names a directory. A file ``full-checkpoint`` or ``full-model`` in it makes the disk full for such files, with
``memory-kills`` the kernel kills something for want of memory all the time. `FAULT_CLOCK` puts the clock wrong by so many
seconds, for `time` everywhere and for `datetime` in the core. `FAULT_HOST` is what the machine is called, `FAULT_SLOW_COPY` how
many seconds each byte of a dataset takes to read, and `FAULT_WAIT` how long a worker with nothing to do waits before it looks
again.
"""

import datetime
import errno
import importlib.abc
import importlib.machinery
import itertools
import os
import platform
import sys
import time
from pathlib import Path

_PATCHES = {}
"""What is done to a module, or to all modules of a package, once it is imported; by its name."""


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        patches = [patch for target, patch in _PATCHES.items() if f"{name}.".startswith(f"{target}.")]
        if not patches or path is None:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        if spec is not None:
            spec.loader = _Loader(spec.loader, patches)
        return spec


class _Loader:
    """Loads a module as ever, and patches it afterwards."""

    def __init__(self, loader, patches):
        self._loader = loader
        self._patches = patches

    def __getattr__(self, name):
        return getattr(self._loader, name)

    def exec_module(self, module):
        self._loader.exec_module(module)
        for patch in self._patches:
            patch(module)


def _fill_disks(faults):
    fsync = os.fsync

    def full_fsync(file):
        descriptor = file if isinstance(file, int) else file.fileno()
        name = Path(f"/proc/self/fd/{descriptor}").readlink().name
        for kind, part in (("checkpoint", ".checkpoint."), ("model", ".partial.pt")):
            if part in name and (faults / f"full-{kind}").exists():
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(file)

    os.fsync = full_fsync


def _count_kills(faults):
    kills = itertools.count()

    def count(module):
        module.count_memory_kills = lambda: next(kills) if (faults / "memory-kills").exists() else 0

    _PATCHES["synicix_core.runner.memory_kills"] = count


def _set_clock(offset):
    real_time, real_time_ns, real = time.time, time.time_ns, datetime.datetime
    time.time = lambda: real_time() + offset
    time.time_ns = lambda: real_time_ns() + int(offset * 1e9)

    class Anywhere(type):
        def __instancecheck__(cls, instance):
            return isinstance(instance, real)

    class Wrong(real, metaclass=Anywhere):
        @classmethod
        def now(cls, tz=None):
            return real.now(tz) + datetime.timedelta(seconds=offset)

    def set_clock(module):
        # Not for everybody: libraries in C take the class in `datetime` for the one that they know.
        if getattr(module, "datetime", None) is real:
            module.datetime = Wrong

    _PATCHES["synicix_core"] = set_clock


def _slow_down_reading(seconds):
    def slow_down(module):
        chunks = module._chunks

        def slow_chunks(path):
            for chunk in chunks(path):
                for index in range(len(chunk)):
                    time.sleep(seconds)
                    yield chunk[index : index + 1]

        module._chunks = slow_chunks

    _PATCHES["synicix_core.runner.cache_contents"] = slow_down


def _wait_for(seconds):
    _PATCHES["synicix_core.runner.supervisor"] = lambda module: setattr(module, "_WAIT_SECONDS", (seconds, seconds))


if folder := os.environ.get("FAULTS"):
    _fill_disks(Path(folder))
    _count_kills(Path(folder))
if offset := os.environ.get("FAULT_CLOCK"):
    _set_clock(float(offset))
if host := os.environ.get("FAULT_HOST"):
    platform.node = lambda: host
if seconds := os.environ.get("FAULT_SLOW_COPY"):
    _slow_down_reading(float(seconds))
if seconds := os.environ.get("FAULT_WAIT"):
    _wait_for(float(seconds))
if _PATCHES:
    sys.meta_path.insert(0, _Finder())
