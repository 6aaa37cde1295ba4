"""`synicix-run gc`: find and remove files that no row refers to, and results whose files are gone."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from synicix_core.cli.json_output import print_json
from synicix_core.cli.project import Command, Place, json_option, pass_place
from synicix_core.cli.text_table import fit_width, format_table
from synicix_core.cli.wording import count

if TYPE_CHECKING:
    from synicix_core.pipeline import Pipeline
    from synicix_core.runner.leftover_removal import Removal
    from synicix_core.runner.leftovers import Findings, Leftover

__all__ = ["gc"]

_SHOWN = 20
_NAMES = {
    "checkpoint": "checkpoint",
    "model": "model",
    "temporary": "unfinished file",
    "history": "history",
    "result": "result without its files",
}
_PLURALS = {"history": "histories", "result": "results without their files"}


@click.command(cls=Command)
@click.option("--yes", is_flag=True, help="Remove them without asking.")
@click.option("--unknown", is_flag=True, help="Also those of which this schema knows nothing.")
@json_option
@pass_place
def gc(place: Place, yes: bool, unknown: bool, as_json: bool) -> None:
    """Find and remove files that no row refers to.

    Lists checkpoints, models and histories that no row refers to, and results whose files are gone; on a terminal it
    asks whether to remove them. The tasks of those results are queued again. Workers may run meanwhile.
    """
    from synicix_core.runner.leftovers import find_leftovers

    pipeline = place.pipeline()
    findings = find_leftovers(pipeline.tables, pipeline.settings.model_save_dir)
    if not as_json:
        _list(findings, unknown)
    if findings.refusal is not None:
        if as_json:
            print_json(_document(pipeline, findings, unknown, None))
        raise findings.refusal
    chosen = [item for item in findings.leftovers if unknown or not item.unknown]
    removal = _remove(pipeline, findings, unknown, len(chosen)) if chosen and (yes or _asked(chosen, as_json)) else None
    if as_json:
        print_json(_document(pipeline, findings, unknown, removal))
    elif removal is not None:
        _tell(removal)
    if removal is not None and removal.errors:
        click.get_current_context().exit(1)


def _list(findings: Findings, unknown: bool) -> None:
    for note in findings.notes:
        click.echo(f"Note: {note}", err=True)
    if not findings.leftovers and findings.refusal is None:
        click.echo("Every file belongs to a row, and every result has its files.")
        return
    known = [item for item in findings.leftovers if not item.unknown]
    strange = [item for item in findings.leftovers if item.unknown]
    for title, items in (("Nobody needs these:", known), ("This schema knows nothing of these:", strange)):
        if items:
            click.echo(f"{title}\n")
            click.echo(_table(items))
            click.echo(f"\n{_total(items)}\n")
    if strange and not unknown:
        click.echo(
            "What this schema knows nothing of may be left of deleted tasks, or belong to another schema or database that "
            "uses the same directory. It is removed only with --unknown.\n"
        )


def _table(items: Sequence[Leftover]) -> str:
    """Return the first few of each kind as a table; a line says how many more there are."""
    rows: list[tuple[str, str, str, str]] = []
    for kind, noun in _NAMES.items():
        of_kind = [item for item in items if item.kind == kind]
        rows += [
            (noun, item.name, _bytes(item.size) if kind != "result" else "", item.why) for item in of_kind[:_SHOWN]
        ]
        if more := of_kind[_SHOWN:]:
            rows.append((noun, f"... and {len(more):,} more", _bytes(sum(item.size for item in more)), ""))
    widest = max(len(size) for _, _, size, _ in rows)
    aligned = [(noun, name, size.rjust(widest), why) for noun, name, size, why in rows]
    return format_table(("what", "name", "size", "why"), aligned, left=("name", "size", "why"), width=fit_width())


def _total(items: Sequence[Leftover]) -> str:
    """Return ``2 checkpoints, 1 model: 3.4 MB``."""
    parts = []
    for kind, noun in _NAMES.items():
        if amount := sum(item.kind == kind for item in items):
            parts.append(count(amount, noun, _PLURALS.get(kind, "")))
    return f"{', '.join(parts)}: {_bytes(sum(item.size for item in items))}"


def _asked(chosen: Sequence[Leftover], as_json: bool) -> bool:
    if as_json:
        return False
    if not sys.stdin.isatty():
        click.echo("Nothing was removed. To remove them, run: synicix-run gc --yes", err=True)
        return False
    results = sum(item.kind == "result" for item in chosen)
    files = count(len(chosen) - results, "file")
    what = f"{files} and {count(results, 'result')}, whose tasks are then trained again" if results else files
    if click.confirm(f"Remove {what}?", err=True):
        return True
    click.echo("Nothing was removed.", err=True)
    return False


def _remove(pipeline: Pipeline, findings: Findings, unknown: bool, amount: int) -> Removal:
    from synicix_core.runner.leftover_removal import remove_leftovers

    tables, directory = pipeline.tables, pipeline.settings.model_save_dir
    if not sys.stderr.isatty():
        return remove_leftovers(tables, directory, findings, unknown=unknown)
    steps = max(amount // 200, 1)
    with click.progressbar(length=amount, label="Removing", file=sys.stderr, update_min_steps=steps) as bar:
        return remove_leftovers(tables, directory, findings, unknown=unknown, progress=bar.update)


def _tell(removal: Removal) -> None:
    click.echo(f"Removed {count(removal.files, 'file')}, {_bytes(removal.size)}.")
    if removal.results:
        click.echo(
            f"Deleted {count(removal.results, 'result')} whose files are gone; {count(removal.queued, 'task')} queued again."
        )
    if removal.kept:
        click.echo(f"Left alone, because it changed meanwhile: {removal.kept:,}.")
    for name, why in removal.errors[:_SHOWN]:
        click.echo(f"{name} could not be removed: {why}", err=True)
    if len(removal.errors) > _SHOWN:
        click.echo(f"... and {len(removal.errors) - _SHOWN:,} more could not be removed.", err=True)


def _document(pipeline: Pipeline, findings: Findings, unknown: bool, removal: Removal | None) -> dict[str, Any]:
    chosen = [item for item in findings.leftovers if unknown or not item.unknown]
    return {
        "model_save_dir": pipeline.settings.model_save_dir,
        "leftovers": [
            {"kind": item.kind, "name": item.name, "size": item.size, "why": item.why, "unknown": item.unknown}
            for item in findings.leftovers
        ],
        "count": len(chosen),
        "size": sum(item.size for item in chosen),
        "notes": list(findings.notes),
        "refused": str(findings.refusal) if findings.refusal is not None else None,
        "removed": None
        if removal is None
        else {
            "files": removal.files,
            "size": removal.size,
            "results": removal.results,
            "queued": removal.queued,
            "kept": removal.kept,
            "errors": [{"name": name, "why": why} for name, why in removal.errors],
        },
    }


def _bytes(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
