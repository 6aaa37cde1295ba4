"""Numbers that this program gives to configs, for the database to sort, group and compute by."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

__all__ = ["UNLIMITED", "join_numbers"]

UNLIMITED = "LIMIT 9223372036854775807"
"""Keeps a subquery apart from the query around it, in both databases: it is planned and computed for itself."""


def join_numbers(
    adapter: Any, join: str, alias: str, md5: str, columns: Mapping[str, Mapping[str, float | None]]
) -> tuple[str, list[Any]]:
    """Return the SQL that joins a table of numbers, however many, with its arguments.

    Parameters
    ----------
    adapter : datajoint.adapters.Adapter
        Of the connection.
    join : {"JOIN", "LEFT JOIN"}
        How.
    alias : str
        What to call the table.
    md5 : str
        SQL of the column to join by.
    columns : mapping
        ``{name of a column: {md5 of a config: number}}``; the columns have numbers for the same configs.
    """
    keys = list(next(iter(columns.values())))
    names = ", ".join(["k", *columns])
    if adapter.backend == "postgresql":
        arrays = ", ".join(["CAST(%s AS bpchar[])", *["CAST(%s AS float8[])"] * len(columns)])
        table = f"(SELECT * FROM unnest({arrays}) AS given({names}))"
        args: list[Any] = [keys]
        for numbers in columns.values():
            given = [numbers[key] for key in keys]
            args.append([None if number is None else float(number) for number in given])
        return f"{join} {table} {alias} ON {alias}.k = {md5}", args
    paths = "".join(f", {name} DOUBLE PATH '$[{index}]'" for index, name in enumerate(columns, start=1))
    table = f"JSON_TABLE(%s, '$[*]' COLUMNS (k CHAR(32) PATH '$[0]'{paths})) given"
    rows = [[key, *(numbers[key] for numbers in columns.values())] for key in keys]
    # A table function by itself would be read through for every row; and its text has the collation of the connection,
    # which need not be that of the tables.
    on = f"{alias}.k COLLATE utf8mb4_bin = {md5}"
    return f"{join} (SELECT {names} FROM {table} {UNLIMITED}) {alias} ON {on}", [json.dumps(rows)]
