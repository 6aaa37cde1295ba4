"""Whether the kernel killed something of ours for want of memory."""

from __future__ import annotations

from pathlib import Path

__all__ = ["count_memory_kills"]


def count_memory_kills() -> int:
    """Return how many processes of this control group were killed for memory so far; 0 where the machine does not tell."""
    return next((found for file in _files() if (found := _read(file)) is not None), 0)


def _files() -> list[Path]:
    """Return where the kernel may count them: for this group in the unified hierarchy, in the older one, or at their roots."""
    root, files = Path("/sys/fs/cgroup"), list[Path]()
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return []
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if "memory" in controllers.split(","):
            files += [root / "memory" / path[1:] / "memory.oom_control", root / "memory" / "memory.oom_control"]
        elif not controllers:
            files += [root / path[1:] / "memory.events", root / "memory.events"]
    return files


def _read(file: Path) -> int | None:
    try:
        lines = file.read_text(encoding="ascii").splitlines()
        return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), None)
    except (OSError, ValueError, IndexError):
        return None
