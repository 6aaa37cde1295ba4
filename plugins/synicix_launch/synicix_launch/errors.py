"""What can go wrong between the project and a scheduler."""

from __future__ import annotations

from collections.abc import Sequence

from synicix_core import SynicixError

__all__ = ["LaunchError", "SchedulerError"]


class LaunchError(SynicixError):
    """Something that somebody wrote, or that is missing on this machine, keeps workers from being launched."""

    @classmethod
    def of_mistakes(cls, mistakes: Sequence[str], hint: str = "") -> LaunchError:
        """Return one error that lists all `mistakes`, each a sentence that begins with its place."""
        why = mistakes[0] if len(mistakes) == 1 else "".join(f"\n  {line}" for line in mistakes)
        return cls("The workers cannot be launched", why=why, hint=hint)


class SchedulerError(SynicixError):
    """The scheduler's own program refused or failed; its text is in the message."""

    exit_code = 1
