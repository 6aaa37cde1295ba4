"""Draw the picture of the tables, ``docs/images/tables.svg``, from their definitions (``make docs``).

No database is needed: names, types and foreign keys are read from the definitions in `synicix_core.tables`. The SVG is
written by hand because a drawing library would write other bytes with each of its versions, and `tests/docs` compares them.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

from synicix_core.database.connection import STORE
from synicix_core.tables import schema

PICTURE = Path(__file__).parent / "images" / "tables.svg"

NAME_SIZE, TYPE_SIZE, TITLE_SIZE, NOTE_SIZE = 12.5, 11, 15, 11.5
ROW, HEADER, PADDING, INDENT = 19, 50, 12, 20
GAP, BETWEEN, MARGIN = 46, 18, 8
MONO = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"
SANS = "system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, 'DejaVu Sans', sans-serif"
# Cards bring their own background and the lines between them are grey, so the picture is readable on white and on black.
SHADES = ("#2f6f9f", "#3d7d5a", "#a4552b")
PAPER, INK, FAINT, RULE, LINE = "#ffffff", "#1f2630", "#667080", "#dfe3e8", "#8590a0"


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes
    ----------
    name, type : str
        As declared; the type shortened, with ``?`` where the column may be null.
    primary : bool
        Whether it is part of the primary key.
    parent : str
        The table that a foreign key refers to; empty for other columns.
    """

    name: str
    type: str
    primary: bool
    parent: str = ""


@dataclass(frozen=True)
class Table:
    """One table: its name, what it says of itself, and its columns."""

    name: str
    comment: str
    columns: tuple[Column, ...]

    @property
    def parents(self) -> set[str]:
        """Names of the tables that it refers to."""
        return {column.parent for column in self.columns if column.parent}

    @property
    def height(self) -> float:
        """Height of its card in pixels."""
        return HEADER + ROW * len(self.columns) + PADDING

    @property
    def width(self) -> float:
        """Width of its card in pixels, by the advance of a monospaced font."""
        columns = max(
            INDENT + 0.6 * NAME_SIZE * len(column.name) + 12 + 0.6 * TYPE_SIZE * len(column.type)
            for column in self.columns
        )
        return round(2 * PADDING + max(columns, 0.56 * NOTE_SIZE * len(self.comment)))


@dataclass(frozen=True)
class Card:
    """A table in its place."""

    table: Table
    left: float
    top: float
    width: float
    shade: str

    def row(self, name: str) -> float:
        """Return the height at which the middle of a column's row lies."""
        index = [column.name for column in self.table.columns].index(name)
        return self.top + HEADER + ROW * (index + 0.5) + PADDING / 2


def main() -> None:
    """Write the picture."""
    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.write_text(draw(read_tables()), encoding="utf-8")


def read_tables() -> list[Table]:
    """Read the definitions of all tables of a pipeline, parents first."""
    tables: dict[str, Table] = {}
    for field in dataclasses.fields(schema.Tables):
        definition = getattr(getattr(schema, field.name, None), "definition", None)
        if isinstance(definition, str):
            tables[field.name] = parse(field.name, definition, tables)
    return list(tables.values())


def parse(name: str, definition: str, parents: Mapping[str, Table]) -> Table:
    """Read one definition in DataJoint's language.

    Parameters
    ----------
    name : str
        Name of the table.
    definition : str
        As DataJoint takes it.
    parents : mapping
        The tables that it may refer to; a foreign key has the columns of their primary keys.

    Raises
    ------
    ValueError
        If a line is neither a column, a foreign key, an index nor a comment.
    """
    comment, primary, columns = "", True, list[Column]()
    for line in filter(None, map(str.strip, definition.splitlines())):
        if line.startswith("#"):
            comment = line.lstrip("# ")
        elif line.startswith("---"):
            primary = False
        elif line.startswith("->"):
            parent = parents[line[2:].strip()]
            columns += [Column(c.name, c.type, primary, parent.name) for c in parent.columns if c.primary]
        elif not re.match(r"(unique )?index\b", line):
            found = re.fullmatch(r"(\w+)\s*(=\s*null)?\s*:\s*(.+?)\s*(#.*)?", line)
            if found is None:
                raise ValueError(f"{name}: this line of the definition is not understood: {line}")
            columns.append(Column(found[1], short_type(found[3]) + ("?" if found[2] else ""), primary))
    return Table(name, comment, tuple(columns))


def short_type(declared: str) -> str:
    """Shorten a type so that it fits: ``<blob@some_store>`` to ``blob@store``, the choices of an enum to nothing."""
    return (
        re.sub(r"\(.*\)", "", declared)
        if declared.startswith("enum")
        else re.sub(r"@\w+", "@store", declared).strip("<>")
    )


def draw(tables: Sequence[Table]) -> str:
    """Return the SVG: one rank of cards for each step away from the tables without parents."""
    cards = place(tables)
    width = max(card.left + card.width for card in cards.values()) + MARGIN
    height = max(card.top + card.table.height for card in cards.values()) + MARGIN
    names = ", ".join(cards)
    legend = f"primary key  ·  ? may be null  ·  blob@store: kept outside the database, in the store {STORE}"
    body = [line for card in cards.values() for line in [*_links(card, cards), *_card(card)]]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height + 26:g}" '
            f'width="{width:g}" height="{height + 26:g}" role="img" aria-label="The tables {names} and their foreign keys">',
            f"<style>text {{ font-family: {MONO}; font-size: {NAME_SIZE}px; fill: {INK}; }} .type {{ font-size: {TYPE_SIZE}px; "
            f"fill: {FAINT}; text-anchor: end; }} .title {{ font: 600 {TITLE_SIZE}px {SANS}; fill: {PAPER}; }} .note {{ font: "
            f"{NOTE_SIZE}px {SANS}; fill: {PAPER}; }} .legend {{ font: {NOTE_SIZE}px {SANS}; fill: {LINE}; }} "
            f".primary {{ font-weight: 700; }}</style>",
            *body,
            _key(MARGIN + PADDING, height + 8, LINE),
            f'<text class="legend" x="{MARGIN + PADDING + INDENT:g}" y="{height + 12:g}">{legend}</text>',
            "</svg>\n",
        ]
    )


def place(tables: Sequence[Table]) -> dict[str, Card]:
    """Put the tables into ranks from left to right, children right of their parents, each rank centred."""
    ranks: dict[str, int] = {}
    for table in tables:
        ranks[table.name] = 1 + max((ranks[parent] for parent in table.parents), default=-1)
    members = [[table for table in tables if ranks[table.name] == rank] for rank in range(max(ranks.values()) + 1)]
    heights = [sum(table.height for table in rank) + BETWEEN * (len(rank) - 1) for rank in members]
    cards, left = dict[str, Card](), float(MARGIN)
    for rank, (group, height) in enumerate(zip(members, heights, strict=True)):
        width, top = max(table.width for table in group), MARGIN + (max(heights) - height) / 2
        for table in group:
            cards[table.name] = Card(table, left, top, width, SHADES[rank % len(SHADES)])
            top += table.height + BETWEEN
        left += width + GAP
    return cards


def _links(child: Card, cards: Mapping[str, Card]) -> Iterator[str]:
    """Draw a line from the primary key of each parent to the foreign key of the child."""
    for column in child.table.columns:
        if column.parent:
            parent = cards[column.parent]
            x1, y1, x2, y2 = parent.left + parent.width, parent.row(column.name), child.left - 6, child.row(column.name)
            bend = (x2 - x1) * 0.6
            yield (
                f'<path d="M{x1:g} {y1:g} C{x1 + bend:g} {y1:g} {x2 - bend:g} {y2:g} {x2:g} {y2:g}" '
                f'fill="none" stroke="{LINE}" stroke-width="1.8"/>'
            )
            yield f'<path d="M{child.left:g} {y2:g} l-9 -4.5 v9 z" fill="{LINE}"/>'


def _card(card: Card) -> Iterator[str]:
    table, left, top, width = card.table, card.left, card.top, card.width
    x, right = left + PADDING, left + width - PADDING
    yield f'<rect x="{left:g}" y="{top:g}" width="{width:g}" height="{table.height:g}" rx="7" fill="{PAPER}" stroke="{card.shade}"/>'
    yield (
        f'<path d="M{left:g} {top + HEADER - 4:g} v{11 - HEADER:g} a7 7 0 0 1 7 -7 h{width - 14:g} a7 7 0 0 1 7 7 '
        f'v{HEADER - 11:g} z" fill="{card.shade}"/>'
    )
    yield f'<text class="title" x="{x:g}" y="{top + 20:g}">{escape(table.name)}</text>'
    yield f'<text class="note" x="{x:g}" y="{top + 37:g}">{escape(table.comment)}</text>'
    for column in table.columns:
        middle = card.row(column.name)
        marked = ' class="primary"' if column.primary else ""
        if column.primary:
            yield _key(x, middle, card.shade)
        yield f'<text{marked} x="{x + INDENT:g}" y="{middle + 4:g}">{escape(column.name)}</text>'
        yield f'<text class="type" x="{right:g}" y="{middle + 4:g}">{escape(column.type)}</text>'
    last = max(card.row(column.name) for column in table.columns if column.primary) + ROW / 2
    yield f'<path d="M{left + 1:g} {last:g} h{width - 2:g}" stroke="{RULE}"/>'


def _key(x: float, y: float, shade: str) -> str:
    """Draw a key, the mark of the primary key."""
    return (
        f'<g fill="none" stroke="{shade}" stroke-width="1.8"><circle cx="{x + 3.5:g}" cy="{y:g}" r="3"/>'
        f'<path d="M{x + 6.5:g} {y:g} h7 v3 m-3 -3 v2.2"/></g>'
    )


if __name__ == "__main__":
    main()
