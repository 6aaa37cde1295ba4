"""`synicix-run show`: everything about one task."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from synicix_core.cli.json_output import print_json
from synicix_core.cli.project import Command, Place, json_option, pass_place
from synicix_core.cli.wording import duration, number, value_text

if TYPE_CHECKING:
    from synicix_core.pipeline import Pipeline

__all__ = ["show"]

_TIERS = ("train", "validation", "test")
_CURVES = {"train": "training_epoch", "validation": "validation_epoch", "penalty": "regularization"}
_HEADINGS = {"fused": "trained as one"}
"""Names in the provenance that people read otherwise."""


@click.command(cls=Command)
@click.argument("task")
@click.option("--timing", "only_timing", is_flag=True, help="Show where the time of its training went.")
@json_option
@pass_place
def show(place: Place, task: str, only_timing: bool, as_json: bool) -> None:
    """Show everything about one task.

    That is its configs, scores, learning curves, attempts with their errors, files and provenance.

    TASK is the md5 of a task or the first digits of it, four or more.
    """
    pipeline = place.pipeline()
    if only_timing:
        _show_timing(pipeline, pipeline.task(task), as_json=as_json)
        return
    facts = _gather(pipeline, pipeline.task(task))
    if as_json:
        print_json(facts)
    else:
        click.echo("\n".join(_lines(facts)))


def _show_timing(pipeline: Pipeline, task: str, *, as_json: bool) -> None:
    from synicix_core.cli.show_timing import timing_facts, timing_lines
    from synicix_core.tables.overview import result_of, state_of

    facts = timing_facts(task, state_of(pipeline.tables, task)[0], result_of(pipeline.tables, task))
    if as_json:
        print_json(facts)
    else:
        click.echo("\n".join(timing_lines(facts)))


def _gather(pipeline: Pipeline, task: str) -> dict[str, Any]:
    from synicix_core.tables.overview import attempts_of, result_of, state_of
    from synicix_core.tables.overview_configs import CONFIG_KINDS
    from synicix_core.tables.result_histories import histories_of, store_text
    from synicix_core.training.staleness import why_stale
    from synicix_core.training.task_specs import fetch_configs, latest_checkpoint

    row = fetch_configs(pipeline.tables, task)
    state, due = state_of(pipeline.tables, task)
    configs = {
        kind: {name: row[name] for name in getattr(pipeline, table).heading.names}
        for kind, table in CONFIG_KINDS.items()
    }
    ceilings = row["additional_model_params"].get("noise_ceiling")
    result = result_of(pipeline.tables, task)
    attempts = attempts_of(pipeline.tables, task)
    histories, missing = histories_of(pipeline.tables, task) if result else ({}, {})
    changes, unknown = why_stale(result["provenance"], pipeline.registry) if result else ((), ())
    return {
        "task": task,
        "state": state,
        "due_in_seconds": due,
        **configs,
        "noise_ceiling": ceilings if isinstance(ceilings, Mapping) else {},
        "attempts": attempts,
        "result": result and {name: {**result, **histories}[name] for name in pipeline.TrainingResult.heading.names},
        "missing_histories": missing,
        "store": store_text(pipeline.connection._config),
        "model_file": pipeline.settings.model_save_dir / result["model_save_path"] if result else None,
        "dataset_file": pipeline.settings.dataset_dir / row["dataset_file_name"],
        # A task with a result needs its checkpoint no longer.
        "checkpoint_file": None if result else latest_checkpoint(pipeline.settings, task, len(attempts)),
        "stale": [str(change) for change in changes],
        "not_compared": unknown,
    }


def _lines(facts: Mapping[str, Any]) -> Iterator[str]:
    due = f", due in {duration(facts['due_in_seconds'])}" if facts["due_in_seconds"] is not None else ""
    yield f"task {facts['task']}: {facts['state']}{due}{', stale' if facts['stale'] else ''}"
    yield from (f"          {reason}" for reason in facts["stale"])
    yield from _config_lines(facts)
    if facts["result"] is not None:
        yield from _result_lines(facts)
    if facts["attempts"]:
        yield ""
        yield "attempts"
        for attempt in facts["attempts"]:
            yield from _attempt_lines(attempt, unfinished=facts["result"] is None)
    if facts["checkpoint_file"] is not None:
        yield f"checkpoint {facts['checkpoint_file']}: the next attempt goes on from it"
    if facts["result"] is not None:
        yield ""
        yield "provenance"
        yield from _provenance_lines(facts["result"]["provenance"])
        if facts["not_compared"]:
            yield f"  These cannot be compared with the code installed here: {', '.join(facts['not_compared'])}."


def _config_lines(facts: Mapping[str, Any]) -> Iterator[str]:
    dataset, model, training = facts["dataset"], facts["model"], facts["training"]
    yield ""
    yield f"dataset   {dataset['dataset_file_name']} ({dataset['dataset_type']})"
    yield f"          {_component(dataset['dataset_provider'], dataset['dataset_class_params'])}"
    shapes = f"input {json.dumps(dataset['input_shape'])}, output {json.dumps(dataset['output_shape'])}"
    yield f"          {shapes}, sha256 {dataset['dataset_file_sha256'][:12]}…"
    for tier in _TIERS:
        if dataset[f"{tier}_sampler_provider"]:
            sampler = _component(dataset[f"{tier}_sampler_provider"], dataset[f"{tier}_sampler_class_params"])
            yield f"          {tier} sampler {sampler}"
    yield f"model     {_component(model['model_provider'], model['model_class_params'])}"
    for part in ("trainer", "optimizer", "criterion"):
        yield f"{part:<9} {_component(training[f'{part}_provider'], training[f'{part}_class_params'])}"
    metrics = ", ".join(_component(metric["provider"], metric["params"]) for metric in training["metrics"])
    yield f"metrics   {metrics}"
    numbers = (f"batch size {training['batch_size']}", f"epoch limit {training['epoch_limit']}")
    yield f"          {', '.join(numbers)}, seed {training['seed']}"


def _result_lines(facts: Mapping[str, Any]) -> Iterator[str]:
    result = facts["result"]
    best = f", best epoch {result['best_epoch']}" if result["best_epoch"] is not None else ""
    seconds = duration(float(result["train_seconds"]))
    yield ""
    yield f"result    {result['status']} after {result['epochs']} epochs{best}, trained for {seconds}"
    scores = result["scores"]
    tiers = [tier for tier in _TIERS if tier in scores]
    # In the order of the config; the databases keep none within JSON.
    names = [_metric_name(metric["provider"]) for metric in facts["training"]["metrics"]]
    width = max([len(name) for name in names] + [9])
    yield f"          {'':<{width}}" + "".join(f"  {tier:>10}" for tier in tiers)
    for index, name in enumerate(names):
        cells = "".join(f"  {number(scores[tier].get(name)):>10}" for tier in tiers)
        yield f"          {name:<{width}}{cells}{_ceiling(facts, name, scores)}{'  <- score' if index == 0 else ''}"
    yield from _curves(result)
    yield from _missing_lines(facts["missing_histories"], facts["store"])
    yield f"file      {facts['model_file']}"
    yield f"          sha256 {result['model_sha256']}"


def _metric_name(provider: str) -> str:
    return provider.rpartition("/")[2].partition("@")[0]


def _ceiling(facts: Mapping[str, Any], name: str, scores: Mapping[str, Mapping[str, float | None]]) -> str:
    ceiling, score = facts["noise_ceiling"].get(name), scores.get("test", {}).get(name)
    return f"  {100 * score / ceiling:.1f}% of the ceiling {number(ceiling)}" if ceiling and score is not None else ""


def _curves(result: Mapping[str, Any]) -> Iterator[str]:
    from synicix_core.cli.sparkline import sparkline

    curves = {
        label: [] if result[f"{name}_loss_history"] is None else list(map(float, result[f"{name}_loss_history"]))
        for label, name in _CURVES.items()
    }
    if any(curves["penalty"]):
        losses = {name: values for name, values in curves.items() if values}
    else:
        losses = {name: values for name, values in curves.items() if values and name != "penalty"}
    for index, (name, values) in enumerate(losses.items()):
        encoding = getattr(sys.stdout, "encoding", None) or "ascii"
        label = "loss" if index == 0 else ""
        drawn = sparkline(values, width=40, encoding=encoding)
        yield f"{label:<9} {name:<10} {drawn}  {number(values[0])} -> {number(values[-1])}, least {number(min(values))}"


def _missing_lines(missing: Mapping[str, str], store: str) -> Iterator[str]:
    if not missing:
        return
    yield f"learning curves: missing, {', '.join(missing)}"
    # Equal histories are one file.
    yield from (f"          {why}" for why in dict.fromkeys(missing.values()))
    yield f"          The store external_training_result is {store}. Copy the files there, or set it to where they are."
    yield "          If they are lost for good, synicix-run gc offers to delete the result and to queue its task again."


def _attempt_lines(attempt: Mapping[str, Any], *, unfinished: bool) -> Iterator[str]:
    start = attempt["started_at"].strftime("%Y-%m-%d %H:%M:%S")
    seconds = duration((attempt["heartbeat_at"] - attempt["started_at"]).total_seconds())
    epoch = f", epoch {attempt['epoch']}" if attempt["epoch"] is not None else ""
    where = f"{attempt['host']}:{attempt['pid']}, {attempt['device']}"
    yield f"  {attempt['attempt']}  {attempt['state']} on {where}{epoch}, {start} UTC, held for {seconds}"
    if attempt["error"]:
        yield f"     {attempt['error']}"
    if attempt["error_stack"] and unfinished:
        yield from (f"     {line}" for line in str(attempt["error_stack"]).rstrip().splitlines())


def _provenance_lines(provenance: Mapping[str, Any]) -> Iterator[str]:
    for name, value in sorted(provenance.items()):
        if name == "providers":
            yield "  providers"
            yield from (f"    {_provider(item)}" for item in value)
        elif name == "timing":
            yield "  timing  shown by --timing"
        elif isinstance(value, Mapping) and value:
            yield f"  {_HEADINGS.get(name, name)}"
            yield from (f"    {key} {_short(item)}" for key, item in value.items())
        elif isinstance(value, Sequence) and not isinstance(value, str) and value:
            yield f"  {name}"
            yield from (f"    {_short(item)}" for item in value)
        elif value not in (None, "", [], {}):
            yield f"  {name} {_short(value)}"


def _provider(item: Mapping[str, Any]) -> str:
    known = [str(item.get(name) or "") for name in ("kind", "provider", "version")]
    return " ".join([*known, _short(item.get("sha256") or "no source file")])


def _short(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_short(item)}" for key, item in value.items() if item not in (None, ""))
    text = value_text(value)
    is_digest = len(text) == 64 and all(digit in "0123456789abcdef" for digit in text)
    return f"{text[:12]}…" if is_digest else text


def _component(provider: str, params: Mapping[str, Any]) -> str:
    return provider + (
        f" ({', '.join(f'{name} = {value_text(value)}' for name, value in params.items())})" if params else ""
    )
