"""Fills a schema with as many tasks and results as a lab has after a year, by statements that work on whole sets."""

from __future__ import annotations

import json
from typing import Any

from synicix_core.database import execute

__all__ = ["DATASETS", "MODELS", "TRAININGS", "fill"]

DATASETS, MODELS, TRAININGS = 20, 50, 100
"""How many configs there are; every combination is a task."""

_FILE = "trials_{:02d}.npz"
_MD5 = "training_task_md5_hash"
_PENDING, _ERRORS = 0.01, 0.01
_CAUSES = 25


def fill(pipeline: Any) -> dict[str, int]:
    """Insert 100,000 tasks: of each hundred one is pending, one ended in an error, and the others have a result.

    Parameters
    ----------
    pipeline : Pipeline
        Of an empty schema, with the bench lab's plugin at hand.

    Returns
    -------
    dict of str to int
        How many ``tasks``, ``results`` and ``errors`` there are now.
    """
    _insert_configs(pipeline)
    connection, tables = pipeline.connection, pipeline.tables
    postgres = connection.adapter.backend == "postgresql"
    task, attempt, result = (
        table.full_table_name for table in (tables.TrainingTask, tables.TrainingAttempt, tables.TrainingResult)
    )
    # No md5 of ours, but as long; MySQL 9 has no MD5() any more.
    digest = ("MD5({0})" if postgres else "SUBSTR(SHA2({0}, 256), 1, 32)").format(
        "CONCAT(d.dataset_config_md5_hash, m.model_config_md5_hash, c.training_config_md5_hash)"
    )
    execute(
        connection,
        f"INSERT INTO {task} ({_MD5}, dataset_config_md5_hash, model_config_md5_hash, training_config_md5_hash) "
        f"SELECT {digest}, d.dataset_config_md5_hash, m.model_config_md5_hash, c.training_config_md5_hash "
        f"FROM {tables.DatasetConfig.full_table_name} d CROSS JOIN {tables.ModelConfig.full_table_name} m "
        f"CROSS JOIN {tables.TrainingConfig.full_table_name} c ORDER BY 1",
    )
    # The digests are as good as random numbers: their last three digits decide what became of a task.
    fate = "SUBSTR(t.training_task_md5_hash, 30, 3)"
    with_result = f"{fate} >= '{_digits(_PENDING + _ERRORS)}'"
    with_error = f"{fate} >= '{_digits(_PENDING)}' AND NOT {with_result}"
    hours = "make_interval(hours => {0})" if postgres else "INTERVAL {0} HOUR"
    number = "('x' || {0})::bit(12)::int" if postgres else "CONV({0}, 16, 10)"
    some = number.format("SUBSTR(t.training_task_md5_hash, 1, 3)")
    other = number.format("SUBSTR(t.training_task_md5_hash, 4, 3)")
    now = "(statement_timestamp() AT TIME ZONE 'UTC')" if postgres else "UTC_TIMESTAMP(3)"
    then = f"{now} - {hours.format(some)}"
    for state, which, columns, values in (
        ("finished", with_result, "", ""),
        (
            "failed",
            with_error,
            ", error_kind, error_cause, error",
            f", 'error', LPAD(CAST(MOD({some}, {_CAUSES}) AS CHAR(8)), 8, '0'), "
            f"CONCAT('ValueError: layer ', MOD({some}, {_CAUSES}), ' does not fit')",
        ),
    ):
        execute(
            connection,
            f"INSERT INTO {attempt} ({_MD5}, attempt, worker, host, pid, process, device, state, started_at, "
            f"heartbeat_at, epoch{columns}) SELECT t.{_MD5}, 1, t.{_MD5}, CONCAT('node', MOD({other}, 40)), 17, "
            f"'node/17', 'cpu', '{state}', {then}, {then}, 100{values} FROM {task} t WHERE {which} ORDER BY 1",
        )
    given = "CAST(%s AS json)"
    execute(
        connection,
        f"INSERT INTO {result} ({_MD5}, test_score, status, scores, best_epoch, epochs, training_epoch_loss_history, "
        f"validation_epoch_loss_history, regularization_loss_history, model_class_params_history, model_save_path, "
        f"model_sha256, by_attempt, train_seconds, code_sha256, provenance, utc_insert_time) "
        f"SELECT t.{_MD5}, ({some} * 4096.0 + {other}) / 16777216, 'completed', {given}, MOD({other}, 100), 100, "
        f"{given}, {given}, {given}, {given}, CONCAT(t.{_MD5}, '.1.pt'), CONCAT(t.{_MD5}, t.{_MD5}), 1, {other} / 7.0, "
        f"CONCAT(m.model_config_md5_hash, m.model_config_md5_hash), {given}, {then} "
        f"FROM {task} t JOIN {tables.ModelConfig.full_table_name} m ON m.model_config_md5_hash = t.model_config_md5_hash "
        f"WHERE {with_result} ORDER BY 1",
        (json.dumps(_SCORES), *([json.dumps(_BLOB)] * 4), json.dumps(_PROVENANCE)),
    )
    pipeline.queue.enqueue()
    execute(
        connection,
        f"UPDATE {tables.jobs_name} SET status = 'error', error_message = 'ValueError: a layer does not fit' "
        f"WHERE EXISTS (SELECT 1 FROM {attempt} a WHERE a.{_MD5} = {tables.jobs_name}.{_MD5} AND a.state = 'failed')",
    )
    for table in (task, attempt, result, tables.jobs_name):
        execute(connection, f"VACUUM ANALYZE {table}" if postgres else f"ANALYZE TABLE {table}").close()
    counted = {"tasks": task, "results": result}
    found = {
        name: int(execute(connection, f"SELECT COUNT(*) FROM {table}").fetchone()[0]) for name, table in counted.items()
    }
    failed = execute(connection, f"SELECT COUNT(*) FROM {tables.jobs_name} WHERE status = 'error'").fetchone()[0]
    return found | {"errors": int(failed)}


def _insert_configs(pipeline: Any) -> None:
    from bench_lab.parts import write_trials

    for index in range(DATASETS):
        # Files of equal content would be one dataset.
        sizes = {"train": 16 + index, "validation": 4, "test": 4}
        write_trials(pipeline.settings.dataset_dir / _FILE.format(index), inputs=8, outputs=2, sizes=sizes)
    pipeline.DatasetConfig.insert_tuples(
        [{"dataset_file_name": _FILE.format(index), "dataset_provider": "Trials"} for index in range(DATASETS)]
    )
    pipeline.ModelConfig.insert_tuples(
        [{"model_provider": "TwoLayers", "model_class_params": {"hidden_size": 8 + index}} for index in range(MODELS)]
    )
    pipeline.TrainingConfig.insert_tuples(
        [
            {
                "criterion_provider": "MSELoss",
                "optimizer_class_params": {"lr": 10.0 ** -(2 + index // 10 / 4)},
                "metrics": ["correlation", "loss"],
                "seed": index % 10,
            }
            for index in range(TRAININGS)
        ]
    )


def _digits(share: float) -> str:
    """Return the three hexadecimal digits below which this share of all md5s lies."""
    return f"{round(share * 4096):03x}"


_SCORES = {tier: {"correlation": 0.4375, "loss": 1.25} for tier in ("train", "validation", "test")}
_BLOB = {"path": "0/" * 20, "store": "external_training_result", "hash": "0" * 40, "size": 1234}
_PROVENANCE = {
    "providers": [
        {"kind": kind, "provider": provider, "distribution": provider.partition("/")[0], "version": "1.0", "sha256": "0" * 64}
        for kind, provider in (
            ("dataset", "bench-lab/Trials"),
            ("model", "bench-lab/TwoLayers"),
            ("trainer", "synicix-core/NNTrainer"),
            ("optimizer", "synicix-core/Adam"),
            ("criterion", "synicix-core/MSELoss"),
            ("metric", "synicix-core/correlation"),
            ("metric", "synicix-core/loss"),
        )
    ],
    "python": "3.11.7", "torch": "2.13.0", "numpy": "2.3.4", "device": "cpu", "gpu": None, "host": "node7",
    "platform": "Linux-6.1.0-x86_64-with-glibc2.36", "threads": 1, "precision": "fp32", "num_workers": 0,
    "project_commit": "0" * 40,
}  # fmt: skip
