"""The typed options of a launcher: a frozen dataclass whose fields are flags and settings.

An option is looked up in this order: the flag, the launcher's table in ``synicix.toml``, the field's default.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Given", "Option", "declared_options", "option", "read_options"]

_WANTED = {str: "a text", int: "an integer", float: "a number", bool: "true or false", Path: "a path"}


@dataclass(frozen=True)
class Option:
    """One option, as its field declares it.

    Attributes
    ----------
    name : str
        Of the field, and the key in ``synicix.toml``.
    kind : type
        ``str``, ``int``, ``float``, ``bool``, ``Path`` or ``tuple`` (of strings).
    default : object
        Its value where nobody says anything.
    help : str
        One sentence for ``--help`` and the docs.
    metavar : str
        Stands for the value in ``--help``.
    check : callable or None
        Takes the value and returns it, perhaps in another form; raises ``ValueError`` with what it must be.
    """

    name: str
    kind: type
    default: Any
    help: str
    metavar: str
    check: Callable[[Any], Any] | None

    @property
    def flag(self) -> str:
        """``--gpu-memory`` for ``gpu_memory``."""
        return f"--{self.name.replace('_', '-')}"


@dataclass(frozen=True)
class Given:
    """What was given for one option, and where: ``--memory`` or ``synicix.toml: plugins.synicix-launch.slurm.memory``.

    A flag's value is a text, whatever its kind. Paths are relative to `folder`.
    """

    where: str
    value: Any
    is_text: bool
    folder: Path


def option(default: Any, help: str, *, metavar: str = "", check: Callable[[Any], Any] | None = None) -> Any:
    """Declare a field of a launcher's options.

    Its annotation is ``str``, ``int``, ``float``, ``bool``, ``Path`` or ``tuple[str, ...]``, with ``| None`` where it may be
    absent.

    Parameters
    ----------
    default : object
        The value where nobody says anything.
    help : str
        One sentence.
    metavar : str
        Stands for the value in ``--help``; its kind by default.
    check : callable, optional
        Takes a value of the annotated type and returns it, perhaps in another form. It raises ``ValueError`` with the words
        that complete "must be ...".

    Examples
    --------
    >>> @dataclass(frozen=True)
    ... class LsfOptions:
    ...     queue: str = option("gpu", "The queue to submit to.")
    ...     gpus: int = option(1, "GPUs of each worker.", check=at_least(0))
    """
    return dataclasses.field(default=default, metadata={"help": help, "metavar": metavar, "check": check})


def declared_options(options: type) -> tuple[Option, ...]:
    """Return the options that a dataclass declares.

    Raises
    ------
    TypeError
        If it is no dataclass, or a field is not declared with `option` or has a type that no flag can have.
    """
    if not (isinstance(options, type) and dataclasses.is_dataclass(options)):
        raise TypeError("`options` must be a dataclass")
    hints = typing.get_type_hints(options)
    return tuple(_declared(field, hints[field.name]) for field in dataclasses.fields(options))


def read_options(
    declared: Sequence[Option], given: Mapping[str, Sequence[Given]], mistakes: list[str]
) -> dict[str, Any]:
    """Return the value of each option by name; what is wrong is added to `mistakes`, all of it.

    Parameters
    ----------
    declared : sequence of Option
        Which there are.
    given : mapping
        For each name what was given, that which wins last.
    mistakes : list of str
        Sentences that begin with a place.
    """
    values = {each.name: each.default for each in declared}
    by_name = {each.name: each for each in declared}
    for name, places in given.items():
        for place in places:
            if name not in by_name:
                mistakes.append(f"{place.where}: there is no such option; {_suggestion(name, list(by_name))}")
                continue
            try:
                values[name] = _value(by_name[name], place)
            except ValueError as error:
                mistakes.append(f"{place.where}: must be {error}, not {place.value!r}")
    return values


def _suggestion(name: str, names: list[str]) -> str:
    close = difflib.get_close_matches(name.replace("-", "_"), names, 1)
    return f"did you mean {close[0]}?" if close else f"the options are {', '.join(names)}"


def _declared(field: dataclasses.Field[Any], hint: Any) -> Option:
    arms = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    kinds = [arm for arm in arms if arm is not type(None)]
    kind = kinds[0] if len(kinds) == 1 else None
    if typing.get_origin(kind) is tuple and typing.get_args(kind) == (str, ...):
        kind = tuple
    if kind not in (*_WANTED, tuple) or field.default is dataclasses.MISSING or "help" not in field.metadata:
        raise TypeError(
            f"the field {field.name!r} must be declared as `option(default, help)` and annotated with str, int, float, bool, "
            "Path or tuple[str, ...]"
        )
    assert isinstance(kind, type)
    metavar = field.metadata["metavar"] or {int: "N", float: "NUMBER", Path: "PATH", tuple: "NAME,..."}.get(
        kind, "TEXT"
    )
    return Option(field.name, kind, field.default, field.metadata["help"], metavar, field.metadata["check"])


def _value(declared: Option, given: Given) -> Any:
    value = _from_text(declared.kind, given.value) if given.is_text else given.value
    value = _coerce(declared.kind, value, given.folder)
    return value if declared.check is None else declared.check(value)


def _from_text(kind: type, text: str) -> Any:
    if kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            return text
    return [part.strip() for part in text.split(",") if part.strip()] if kind is tuple else text


def _coerce(kind: type, value: Any, folder: Path) -> Any:
    """Return `value` as `kind`; only an integer serves for a number, a text for a path and a list for a tuple."""
    if kind is tuple:
        if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
            raise ValueError("a list of texts")
        return tuple(value)
    if kind is Path and isinstance(value, str) and value and "\0" not in value:
        try:
            return folder / Path(value).expanduser()
        except RuntimeError:
            raise ValueError("a path; there is no such user") from None
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        raise ValueError(_WANTED[kind])
    if kind is float and not math.isfinite(typing.cast(float, value)):
        raise ValueError("a finite number")
    if kind is str and any(ord(letter) < 32 or ord(letter) == 127 for letter in typing.cast(str, value)):
        raise ValueError("a text in one line")
    return value
