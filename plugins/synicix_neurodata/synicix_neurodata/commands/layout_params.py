"""The option `--layout-param` of the commands that read recordings."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

__all__ = ["layout_params_option"]

_Command = TypeVar("_Command", bound=Callable[..., Any])


def layout_params_option(command: _Command) -> _Command:
    """Add ``--layout-param key=value``, given any number of times; the command gets a dict ``layout_params``."""
    return click.option(
        "--layout-param",
        "layout_params",
        multiple=True,
        metavar="KEY=VALUE",
        callback=_parsed,
        help="What the layout lets you say, such as a path in an NWB file; VALUE as JSON, or text. May be repeated.",
    )(command)


def _parsed(ctx: click.Context, param: click.Parameter, given: Sequence[str]) -> dict[str, Any]:
    params: dict[str, Any] = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise click.BadParameter(f"expected KEY=VALUE, got {text!r}.", ctx, param)
        if key in params:
            raise click.BadParameter(f'{key!r} is given twice; a list is given as {key}=\'["a", "b"]\'.', ctx, param)
        try:
            params[key] = json.loads(value)
        except json.JSONDecodeError:
            params[key] = value
    return params
