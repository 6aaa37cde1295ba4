"""What can go wrong. Every message says what failed, where, why, and what to do about it."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = [
    "CheckpointError",
    "ClaimLost",
    "ConfigurationError",
    "DatabaseUnavailable",
    "DatasetError",
    "DatasetMissing",
    "ParamsError",
    "PluginError",
    "PluginHookError",
    "PluginImportError",
    "PluginValidationError",
    "ProviderConflict",
    "ProviderNotFound",
    "SynicixError",
]


class SynicixError(Exception):
    """Base of every error that Synicix raises on purpose.

    Parameters
    ----------
    what : str
        What failed, without a final full stop.
    where : str, optional
        The file, table, key, distribution or provider it happened in.
    why : str, optional
        The cause.
    hint : str, optional
        What to do next; a command where there is one.
    """

    exit_code = 2
    """Exit status of the command line: 2 for the user's mistake, 1 for a failure."""

    def __init__(self, what: str, *, where: str = "", why: str = "", hint: str = "") -> None:
        self.what = what
        self.where = where
        self.why = why
        self.hint = hint
        super().__init__(what, where, why, hint)

    def __str__(self) -> str:
        why = f":{'' if self.why.startswith(chr(10)) else ' '}{self.why}" if self.why else ""
        head = self.what + (f" ({self.where})" if self.where else "") + why
        return ("\n" if "\n" in head else " ").join(_sentence(part) for part in (head, self.hint) if part)


def _sentence(text: str) -> str:
    text = text.strip()
    complete = text.endswith((".", "?", "!", ":")) or "\n" in text
    # A full stop behind a command would be copied with it.
    return text if complete or "Run: " in text.rpartition(". ")[2] else text + "."


class ConfigurationError(SynicixError):
    """Settings, credentials or the schema do not allow the command to run."""


class PluginError(SynicixError):
    """A plugin misbehaves.

    Attributes
    ----------
    distribution, version, entry_point : str
        Which plugin it is.
    """

    exit_code = 1

    def __init__(
        self,
        what: str,
        *,
        distribution: str = "",
        version: str = "",
        entry_point: str = "",
        why: str = "",
        hint: str = "",
    ) -> None:
        self.distribution = distribution
        self.version = version
        self.entry_point = entry_point
        where = f"{distribution} {version}".strip()
        super().__init__(what, where=f"{where}, {entry_point}" if entry_point else where, why=why, hint=hint)


class PluginImportError(PluginError):
    """A hook module, or the target of a provider, cannot be imported."""


class PluginValidationError(PluginError):
    """A plugin declares something that is not allowed: an unknown hook, a bad name, the same provider twice."""


class PluginHookError(PluginError):
    """A hook implementation raised."""


class ProviderNotFound(SynicixError, LookupError):
    """No installed plugin provides what was named.

    Attributes
    ----------
    kind, name : str
        What was looked up.
    suggestions : tuple of str
        Names that look alike.
    """

    def __init__(
        self, what: str, *, kind: str, name: str, suggestions: Sequence[str] = (), why: str = "", hint: str = ""
    ) -> None:
        self.kind = kind
        self.name = name
        self.suggestions = tuple(suggestions)
        super().__init__(what, why=why, hint=hint)


class ProviderConflict(SynicixError, LookupError):
    """A short name is provided by several distributions.

    Attributes
    ----------
    kind, name : str
        What was looked up.
    candidates : tuple of str
        The qualified names to choose from.
    """

    def __init__(
        self, what: str, *, kind: str, name: str, candidates: Sequence[str], why: str = "", hint: str = ""
    ) -> None:
        self.kind = kind
        self.name = name
        self.candidates = tuple(candidates)
        super().__init__(what, why=why, hint=hint)


class ParamsError(SynicixError, ValueError):
    """Values that somebody wrote are wrong; all mistakes are collected before it is raised.

    Attributes
    ----------
    mistakes : tuple of (path, message)
        Where each mistake is, and what it is.
    """

    def __init__(self, what: str, mistakes: Sequence[tuple[str, str]], *, where: str = "", hint: str = "") -> None:
        self.mistakes = tuple(mistakes)
        lines = "".join(f"\n  {path}: {message}" if path else f"\n  {message}" for path, message in self.mistakes)
        super().__init__(what, where=where, why=lines.lstrip() if len(self.mistakes) == 1 else lines, hint=hint)


class DatasetError(SynicixError):
    """A dataset file cannot be used.

    Attributes
    ----------
    file : str
        The file.
    """

    def __init__(self, what: str, *, file: str = "", why: str = "", hint: str = "") -> None:
        self.file = file
        super().__init__(what, where=file, why=why, hint=hint)


class DatasetMissing(DatasetError):
    """A dataset file is not on this machine; another one may have it."""


class DatabaseUnavailable(SynicixError):
    """The database cannot be reached, or the connection was lost and did not come back."""

    exit_code = 1


class ClaimLost(SynicixError):
    """This worker no longer holds the claim on its task; another worker may be training it."""

    exit_code = 1


class CheckpointError(SynicixError):
    """A checkpoint or a saved model cannot be written, read or trusted."""

    exit_code = 1
