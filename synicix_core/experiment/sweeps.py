"""Read the ``grid`` and ``random`` tables of a config."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from synicix_core.experiment.document import Distribution, RandomSweep
from synicix_core.experiment.fields import Mistakes, check_path, check_value, did_you_mean, quoted, type_name

__all__ = ["check_nesting", "read_grid", "read_random"]

Grid = tuple[tuple[str, tuple[Any, ...]], ...]

DISTRIBUTIONS = ("choice", "int", "loguniform", "uniform")
_LARGEST_BOUND = 1e300


def read_grid(kind: str, content: Any, where: str, mistakes: Mistakes) -> Grid:
    """Read a ``grid`` table: keys and the values of each.

    Parameters
    ----------
    kind : str
        ``dataset``, ``model`` or ``training``.
    content : object
        What stands under ``grid``. Dotted keys may be quoted or not.
    where : str
        Full name of the place, for the messages.
    mistakes : list
        Receives what is wrong with it.

    Returns
    -------
    tuple of (path, values)
        Sorted by path.
    """
    if not isinstance(content, dict):
        mistakes.append(
            (where, f"expected a table of keys and lists of values, got {content!r} ({type_name(content)})")
        )
        return ()
    if not content:
        mistakes.append((where, "the grid is empty; give it a key with a list of values, or remove it"))
    grid: dict[str, tuple[Any, ...]] = {}
    for path, values in _leaves(content, lambda value: not isinstance(value, dict)):
        here = f"{where}.{path}"
        problem = check_path(kind, path)
        if problem:
            mistakes.append((here, problem))
        elif path in grid:
            mistakes.append((here, "the key is given twice, once quoted and once not"))
        elif not isinstance(values, list):
            mistakes.append((here, f"expected a list of values, got {values!r} ({type_name(values)})"))
        elif not values:
            mistakes.append((here, "the list of values is empty"))
        else:
            grid[path] = tuple(
                check_value(kind, path, value, f"{here}[{index}]", mistakes) for index, value in enumerate(values)
            )
    return tuple(sorted(grid.items()))


def read_random(kind: str, content: Any, where: str, mistakes: Mistakes) -> RandomSweep | None:
    """Read a ``random`` table: ``samples``, ``seed``, and keys with a distribution each.

    Parameters are those of `read_grid`. None is returned where no sweep can be made of it.
    """
    if not isinstance(content, dict):
        mistakes.append((where, f"expected a table of keys and distributions, got {content!r} ({type_name(content)})"))
        return None
    samples: Any = content.get("samples")
    if "samples" not in content:
        mistakes.append((f"{where}.samples", "say how many samples to draw, such as samples = 20"))
    elif not _is_integer(samples) or samples < 1:
        mistakes.append((f"{where}.samples", f"expected an integer of 1 or more, got {samples!r}"))
    seed = content.get("seed", 0)
    if not _is_integer(seed):
        message = f"expected the integer that seeds the draws, got {seed!r} ({type_name(seed)})"
        swept = "; the seed of a training is swept in its grid" if kind == "training" else ""
        mistakes.append((f"{where}.seed", message + swept))
    axes: dict[str, Distribution] = {}
    swept_keys = {key: value for key, value in content.items() if key not in ("samples", "seed")}
    if not swept_keys:
        mistakes.append((where, 'no key is drawn; give one, such as "params.name" = { uniform = [0.0, 1.0] }'))
    for path, value in _leaves(swept_keys, _ends_in_distribution):
        here = f"{where}.{path}"
        problem = check_path(kind, path)
        if problem:
            mistakes.append((here, problem))
        elif path in axes:
            mistakes.append((here, "the key is given twice, once quoted and once not"))
        else:
            distribution = _distribution(kind, path, value, here, mistakes)
            if distribution is not None:
                axes[path] = distribution
    if not (_is_integer(samples) and samples >= 1 and _is_integer(seed) and axes):
        return None
    return RandomSweep(samples, seed, tuple(sorted(axes.items())))


def check_nesting(
    values: Mapping[str, Any], grid: Grid, random: RandomSweep | None, where: str, mistakes: Mistakes
) -> None:
    """Note keys that are swept twice, and keys below something that is no table."""
    drawn = random.axes if random else ()
    twice = {path for path, _ in grid} & {path for path, _ in drawn}
    for path in sorted(twice):
        mistakes.append((f"{where}, {path}", "the key is in grid and in random; keep one of the two"))
    candidates: dict[str, tuple[Any, ...]] = dict(grid)
    candidates |= {path: axis.values if axis.kind == "choice" else axis.values[:1] for path, axis in drawn}
    for path in sorted(candidates):
        parts = path.split(".")
        for length in range(1, len(parts)):
            above = ".".join(parts[:length])
            # A sweep of the key above replaces what is written outside the sweeps.
            held = candidates.get(above) or _at(values, parts[:length])
            wrong = [value for value in held if not isinstance(value, dict)]
            if wrong:
                message = f"{above} is {wrong[0]!r}, not a table, so there is no {quoted(path)} in it"
                mistakes.append((f"{where}, {path}", message))
                break


def _leaves(content: Mapping[str, Any], is_leaf: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted paths and values: TOML reads the unquoted key ``params.lr`` as a table in a table."""
    for key, value in content.items():
        path = f"{prefix}{key}"
        if is_leaf(value) or not value:
            yield path, value
        else:
            yield from _leaves(value, is_leaf, f"{path}.")


def _ends_in_distribution(value: Any) -> bool:
    """Whether `value` is meant as a distribution; if not, it is a table on the way to one."""
    return not isinstance(value, dict) or not all(isinstance(item, dict) for item in value.values())


def _distribution(kind: str, path: str, value: Any, where: str, mistakes: Mistakes) -> Distribution | None:
    if not isinstance(value, dict) or len(value) != 1:
        example = "{ uniform = [0.0, 1.0] }"
        mistakes.append((where, f"expected one distribution, such as {example}, got {value!r}"))
        return None
    ((name, arguments),) = value.items()
    if name not in DISTRIBUTIONS:
        near = did_you_mean(name, DISTRIBUTIONS) or "there are " + ", ".join(DISTRIBUTIONS)
        mistakes.append((where, f"there is no distribution {name!r}; {near}"))
        return None
    before = len(mistakes)
    if name == "choice":
        if not isinstance(arguments, list) or not arguments:
            mistakes.append((where, f"choice takes a list of values, got {arguments!r}"))
            return None
        values = tuple(
            check_value(kind, path, item, f"{where}.choice[{index}]", mistakes) for index, item in enumerate(arguments)
        )
    else:
        problem = _bounds_problem(name, arguments)
        if problem:
            mistakes.append((where, f"{name} {problem}, got {arguments!r}"))
            return None
        values = tuple(arguments)
        # A key that is no parameter has a type of its own; a float is no batch size.
        sample = values[0] if name == "int" else float(values[0])
        check_value(kind, path, sample, where, mistakes)
    return Distribution(name, values) if len(mistakes) == before else None


def _bounds_problem(name: str, arguments: Any) -> str:
    if not isinstance(arguments, list) or len(arguments) != 2:
        return "takes two bounds, [low, high]"
    if name == "int":
        if not all(_is_integer(bound) and abs(bound) < 2**63 for bound in arguments):
            return "takes two integers"
        return "" if arguments[0] <= arguments[1] else "takes the lower bound first"
    numbers = all(isinstance(bound, int | float) and not isinstance(bound, bool) for bound in arguments)
    if not numbers or not all(abs(bound) <= _LARGEST_BOUND for bound in arguments):
        return "takes two finite numbers"
    if name == "loguniform" and arguments[0] <= 0:
        return "takes bounds above zero"
    return "" if arguments[0] < arguments[1] else "takes the lower bound first"


def _at(values: Mapping[str, Any], parts: list[str]) -> Iterator[Any]:
    """Yield what stands at a path, or nothing where the path ends early at something absent."""
    found: Any = values
    for part in parts:
        if not isinstance(found, Mapping) or part not in found:
            return
        found = found[part]
    yield found


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
