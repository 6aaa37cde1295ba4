"""Check the parameters that a row gives to a provider against the target's signature."""

from __future__ import annotations

import collections.abc
import dataclasses
import difflib
import functools
import inspect
import types
import typing
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from synicix_core.errors import ParamsError
from synicix_core.hashing import jsonable
from synicix_core.registry import Registered

__all__ = ["SUPPLIED", "CheckedParams", "Parameter", "Signature", "as_arguments", "check_params", "describe"]

SUPPLIED: dict[str, tuple[str, ...]] = {
    "dataset": (),
    "model": ("input_shape", "output_shape"),
    "sampler": ("generator",),
    "trainer": (
        "train_dataloader",
        "validation_dataloader",
        "test_dataloader",
        "device",
        "model_class",
        "model_class_params",
        "optimizer_class",
        "optimizer_class_params",
        "criterion_class",
        "criterion_class_params",
        "model_save_path",
        "max_epoch",
        "context",
    ),
    "optimizer": (),
    "criterion": (),
    "metric": (),
}
"""What the pipeline itself passes by keyword to a target of each kind; a row cannot set these."""

_POSITIONAL = {"dataset": 2, "sampler": 1, "optimizer": 1}
"""How many arguments it passes by position, whatever the target calls them."""

_UNCHECKED = object()


@dataclass(frozen=True)
class Parameter:
    """One parameter of a target.

    Attributes
    ----------
    name : str
        Its name.
    annotation : object
        Its type, or ``inspect.Parameter.empty``.
    default : object
        Its default, or ``inspect.Parameter.empty``.
    """

    name: str
    annotation: Any = inspect.Parameter.empty
    default: Any = inspect.Parameter.empty

    @property
    def required(self) -> bool:
        """Whether it has no default."""
        return self.default is inspect.Parameter.empty

    @property
    def type_text(self) -> str:
        """The annotation as people write it; empty where there is none."""
        return "" if self.annotation is inspect.Parameter.empty else _type_text(self.annotation)


@dataclass(frozen=True)
class Signature:
    """The parameters that a row may give to a provider."""

    parameters: tuple[Parameter, ...]
    accepts_any: bool = False
    accepts: frozenset[str] = frozenset()
    """Every name that the target takes by keyword, those that the pipeline passes included."""
    passed: frozenset[str] = frozenset()
    """Names that the pipeline passes itself."""

    def get(self, name: str) -> Parameter | None:
        """Return the parameter of that name, or None."""
        return next((parameter for parameter in self.parameters if parameter.name == name), None)


@dataclass(frozen=True)
class CheckedParams:
    """Parameters after the check.

    Attributes
    ----------
    values : dict
        As they are stored: JSON, integers turned into floats where the annotation says float.
    mistakes : tuple of (path, message)
        Everything that is wrong.
    notes : tuple of str
        What could not be checked.
    """

    values: dict[str, Any]
    mistakes: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()


@dataclass
class _Check:
    mistakes: list[tuple[str, str]] = field(default_factory=list)


@functools.lru_cache(maxsize=1024)
def describe(registered: Registered) -> Signature:
    """Read the parameters of a provider from its `params` dataclass, or from the target's signature.

    Raises
    ------
    PluginImportError
        If the target cannot be imported.
    """
    target = registered.load()
    supplied = SUPPLIED[registered.kind]
    description = registered.load_params()
    if description is not None:
        return _describe_dataclass(description, frozenset(supplied))
    try:
        signature = inspect.signature(target)
    except (ValueError, TypeError):
        return Signature((), accepts_any=True)
    hints = _type_hints(target)
    found = list(signature.parameters.values())
    by_position = [p for p in found if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    passed = {p.name for p in by_position[: _POSITIONAL.get(registered.kind, 0)]}
    named = [p for p in found if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    parameters = tuple(
        Parameter(p.name, hints.get(p.name, p.annotation), p.default)
        for p in named
        if p.name not in passed and p.name not in supplied
    )
    return Signature(
        parameters,
        accepts_any=any(p.kind is p.VAR_KEYWORD for p in found),
        accepts=frozenset(p.name for p in named),
        passed=frozenset(passed | set(supplied)),
    )


def check_params(
    registered: Registered,
    params: Any,
    *,
    supplied: Collection[str] = (),
    optional_missing: bool = False,
    path: str = "",
) -> CheckedParams:
    """Check what a row gives to a provider. All mistakes are found at once; none is raised.

    Parameters
    ----------
    registered : Registered
        The provider.
    params : dict
        The parameters as somebody wrote them.
    supplied : collection of str
        Names that somebody else supplies beside the pipeline (a model's additional parameters).
    optional_missing : bool
        Whether parameters without a default may be missing, because it is not known yet who supplies them.
    path : str
        Where the parameters stand, for the messages.
    """
    if not isinstance(params, Mapping):
        return CheckedParams({}, ((path, f"parameters are a table of names and values, not {params!r}"),))
    try:
        values = jsonable(dict(params), path)
    except ParamsError as error:
        return CheckedParams({}, error.mistakes)
    signature = describe(registered)
    check = _Check()
    notes = []
    checked = {}
    for name, value in values.items():
        here = f"{path}.{name}" if path else name
        parameter = signature.get(name)
        if name in signature.passed and parameter is None:
            check.mistakes.append((here, "the pipeline passes this itself; a row cannot set it"))
        elif name in supplied:
            check.mistakes.append(
                (here, "the dataset supplies this through get_additional_model_params(); a row cannot set it too")
            )
        elif parameter is None and not signature.accepts_any:
            check.mistakes.append((here, _unknown(registered, signature, name)))
        elif parameter is None or parameter.annotation is inspect.Parameter.empty:
            checked[name] = value
            if parameter is None:
                notes.append(f"{here}: {registered.qualified} takes any name, so this one is not checked")
        else:
            checked[name] = _coerce(value, parameter.annotation, here, check)
    if not optional_missing:
        for parameter in signature.parameters:
            if parameter.required and parameter.name not in values and parameter.name not in supplied:
                here = f"{path}.{parameter.name}" if path else parameter.name
                expected = f" ({parameter.type_text})" if parameter.type_text else ""
                check.mistakes.append(
                    (here, f"{registered.qualified} needs this parameter{expected}; it has no default")
                )
    return CheckedParams(checked, tuple(check.mistakes), tuple(notes))


def as_arguments(registered: Registered, params: Mapping[str, Any]) -> dict[str, Any]:
    """Return stored parameters in the form in which the target is called: lists become tuples where it wants tuples."""
    signature = describe(registered)
    arguments = {}
    for name, value in params.items():
        parameter = signature.get(name)
        annotated = parameter is not None and parameter.annotation is not inspect.Parameter.empty
        arguments[name] = _as_argument(value, parameter.annotation) if annotated and parameter is not None else value
    return arguments


def _describe_dataclass(description: Any, accepts: frozenset[str]) -> Signature:
    hints = _type_hints(description)
    parameters = []
    for item in dataclasses.fields(description):
        default = item.default
        if default is dataclasses.MISSING and item.default_factory is not dataclasses.MISSING:
            default = item.default_factory()
        missing = default is dataclasses.MISSING
        parameters.append(
            Parameter(item.name, hints.get(item.name, item.type), inspect.Parameter.empty if missing else default)
        )
    return Signature(tuple(parameters), accepts=accepts | {parameter.name for parameter in parameters}, passed=accepts)


def _type_hints(target: Any) -> dict[str, Any]:
    function = target.__init__ if inspect.isclass(target) and not dataclasses.is_dataclass(target) else target
    try:
        return typing.get_type_hints(function)
    except Exception:  # an annotation that names something absent at run time is only not checked
        return {}


def _unknown(registered: Registered, signature: Signature, name: str) -> str:
    names = [parameter.name for parameter in signature.parameters]
    near = difflib.get_close_matches(name, names, 1)
    if near:
        return f"{registered.qualified} has no parameter {name!r}; did you mean {near[0]!r}?"
    listed = ", ".join(names) if names else "none"
    return f"{registered.qualified} has no parameter {name!r}; its parameters are: {listed}"


def _coerce(value: Any, annotation: Any, path: str, check: _Check) -> Any:
    """Return `value` with integers turned into floats where `annotation` says so; note a mistake if it does not fit."""
    fitted, message = _fit(value, annotation)
    if message:
        check.mistakes.append((path, message))
    return fitted


def _fit(value: Any, annotation: Any) -> tuple[Any, str]:
    """Return the value that is stored for `value`, and what is wrong with it ('' if it fits)."""
    options = _options(annotation)
    if options is _UNCHECKED:
        return value, ""
    best = value
    for option in options:
        fitted = _fit_one(value, option)
        if fitted is not _UNCHECKED:
            if type(fitted) is type(value):
                return fitted, ""
            best = fitted
    if best is not value:
        return best, ""
    return value, f"expected {_type_text(annotation)}, got {value!r} ({_json_type(value)})"


def _options(annotation: Any) -> Any:
    """Return the JSON-checkable members of an annotation, or `_UNCHECKED` where any of them accepts anything."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _options(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        members: list[Any] = []
        for member in typing.get_args(annotation):
            if _is_tensor(member):
                continue
            inner = _options(member)
            if inner is _UNCHECKED:
                return _UNCHECKED
            members.extend(inner)
        return members or _UNCHECKED
    if annotation is None or annotation is type(None):
        return [type(None)]
    if origin is typing.Literal or annotation in (bool, int, float, str, list, tuple, dict):
        return [annotation]
    if origin in (list, tuple, dict) or _abstract(annotation, origin):
        return [annotation]
    return _UNCHECKED


def _fit_one(value: Any, option: Any) -> Any:
    """Return what is stored for `value` under one member of an annotation; `_UNCHECKED` if it does not fit."""
    origin = typing.get_origin(option) or option
    arguments = typing.get_args(option)
    if origin is typing.Literal:
        return value if any(value == choice and type(value) is type(choice) for choice in arguments) else _UNCHECKED
    if origin is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if origin in (bool, int, float, str, type(None)):
        return value if type(value) is origin else _UNCHECKED
    if origin in (dict, collections.abc.Mapping, collections.abc.MutableMapping):
        if not isinstance(value, dict):
            return _UNCHECKED
        item_type = arguments[1] if len(arguments) == 2 else Any
        return _fit_all(
            list(value.values()), [item_type] * len(value), lambda items: dict(zip(value, items, strict=True))
        )
    if not isinstance(value, list):
        return _UNCHECKED
    if origin is tuple and arguments and not (len(arguments) == 2 and arguments[1] is Ellipsis):
        return _fit_all(value, list(arguments), list) if len(value) == len(arguments) else _UNCHECKED
    item_type = arguments[0] if arguments else Any
    return _fit_all(value, [item_type] * len(value), list)


def _fit_all(values: list[Any], annotations: list[Any], build: Any) -> Any:
    fitted = [_fit(value, annotation) for value, annotation in zip(values, annotations, strict=True)]
    return _UNCHECKED if any(message for _, message in fitted) else build([value for value, _ in fitted])


def _as_argument(value: Any, annotation: Any) -> Any:
    options = _options(annotation)
    if options is _UNCHECKED:
        return value
    fitting = [option for option in options if _fit_one(value, option) is not _UNCHECKED]
    exact = [option for option in fitting if type(_fit_one(value, option)) is type(value)]
    if not fitting:
        return value
    option = (exact or fitting)[0]
    origin, arguments = typing.get_origin(option) or option, typing.get_args(option)
    if origin is float:
        return float(value)
    if isinstance(value, dict):
        item_type = arguments[1] if len(arguments) == 2 else Any
        return {key: _as_argument(item, item_type) for key, item in value.items()}
    if not isinstance(value, list):
        return value
    if origin is tuple and arguments and not (len(arguments) == 2 and arguments[1] is Ellipsis):
        return tuple(_as_argument(item, kind) for item, kind in zip(value, arguments, strict=True))
    items = [_as_argument(item, arguments[0] if arguments else Any) for item in value]
    return tuple(items) if origin is tuple else items


def _abstract(annotation: Any, origin: Any) -> bool:
    containers = (
        collections.abc.Sequence,
        collections.abc.MutableSequence,
        collections.abc.Iterable,
        collections.abc.Collection,
        collections.abc.Mapping,
        collections.abc.MutableMapping,
    )
    # A string is a Sequence too, but nobody who annotates Sequence[int] means one.
    return origin in containers or annotation in containers


def _is_tensor(annotation: Any) -> bool:
    return getattr(annotation, "__name__", "") == "Tensor" and getattr(annotation, "__module__", "").startswith("torch")


def _type_text(annotation: Any) -> str:
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        members = [member for member in typing.get_args(annotation) if not _is_tensor(member)]
        return " or ".join(_type_text(member) for member in members)
    if origin is typing.Literal:
        return " or ".join(repr(choice) for choice in typing.get_args(annotation))
    if annotation is None or annotation is type(None):
        return "None"
    if inspect.isclass(annotation) and origin is None:
        return annotation.__name__
    if origin is not None and typing.get_args(annotation):
        inner = ", ".join(
            "..." if argument is Ellipsis else _type_text(argument) for argument in typing.get_args(annotation)
        )
        return f"{getattr(origin, '__name__', origin)}[{inner}]"
    return str(annotation).removeprefix("typing.")


def _json_type(value: Any) -> str:
    names = {
        dict: "table",
        list: "list",
        str: "string",
        bool: "boolean",
        int: "integer",
        float: "float",
        type(None): "null",
    }
    return names[type(value)]
