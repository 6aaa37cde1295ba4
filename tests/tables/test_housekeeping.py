"""What the rows refer to, and the lock between workers who commit and the one who tidies up; with real connections."""

from __future__ import annotations

import threading
import time

import pytest

from synicix_core import Pipeline
from synicix_core.database import execute, transaction
from synicix_core.errors import ConfigurationError, DatabaseUnavailable
from synicix_core.runner import leftover_removal
from synicix_core.runner.leftover_removal import remove_leftovers
from synicix_core.runner.leftovers import find_leftovers
from synicix_core.tables import housekeeping
from synicix_core.tables.housekeeping import (
    TaskRows,
    closed_store,
    committed_since,
    database_time,
    other_tables_in_store,
    result_files,
    rows_of_tasks,
)
from synicix_core.tables.store_lock import hold_store
from tests.rows import insert_tasks
from tests.saved import claim, commit, finish, histories

pytestmark = pytest.mark.database

HISTORY = [0.25, 0.125]


@pytest.fixture
def tasks(pipeline):
    return insert_tasks(pipeline, trainings=[{"seed": seed} for seed in range(6)])


@pytest.fixture
def other(pipeline):
    """A second connection, as a worker or another terminal has it."""
    made = Pipeline()
    yield made
    made.connection.close()


def orphan(pipeline, task: str) -> None:
    """Leave a history in the store that a result had, which was deleted since."""
    finish(pipeline, task, HISTORY)
    (pipeline.TrainingResult & {"training_task_md5_hash": task}).delete(prompt=False)
    pipeline.queue.enqueue()


def stored_history(pipeline, task: str) -> list[float]:
    return list((pipeline.TrainingResult & {"training_task_md5_hash": task}).fetch1("training_epoch_loss_history"))


def tidy_up(pipeline):
    directory = pipeline.settings.model_save_dir
    return remove_leftovers(pipeline.tables, directory, find_leftovers(pipeline.tables, directory))


def test_rows_of_tasks(pipeline, tasks):
    model = finish(pipeline, tasks[0])
    pipeline.queue.release(claim(pipeline, tasks[1]))
    claim(pipeline, tasks[1])
    assert rows_of_tasks(pipeline.tables, [*tasks[:3], "0" * 32]) == {
        tasks[0]: TaskRows({1: "finished"}, model),
        tasks[1]: TaskRows({1: "released", 2: "running"}),
        tasks[2]: TaskRows(),
    }


def test_results_are_read_in_pages(pipeline, tasks, monkeypatch):
    monkeypatch.setattr(housekeeping, "_PAGE", 2)
    models = {task: finish(pipeline, task, [float(index)]) for index, task in enumerate(tasks[:5])}
    found = list(result_files(pipeline.tables))
    assert {row.task: row.model for row in found} == models and len(found) == 5
    assert {path.rpartition("/")[2] for row in found for path in row.histories} == histories(pipeline)


def test_a_reference_in_an_unknown_form_is_an_error(pipeline, tasks):
    finish(pipeline, tasks[0])
    table = pipeline.TrainingResult.full_table_name
    execute(pipeline.connection, f'UPDATE {table} SET training_epoch_loss_history = \'{{"hash": "abc"}}\'')
    with pytest.raises(ConfigurationError, match="in a form that this version does not know"):
        list(result_files(pipeline.tables))


def test_whoever_tidies_up_waits_for_whoever_writes_but_not_for_ever(pipeline, other, tasks):
    with transaction(other.connection):
        hold_store(other.connection, other.tables)
        with (
            pytest.raises(DatabaseUnavailable, match="a worker has been writing a result"),
            closed_store(pipeline.tables, patience=0.2),
        ):
            pytest.fail("the store was held")
    with closed_store(pipeline.tables, patience=0.2):
        pass


def test_a_commit_is_found_by_when_it_took_place_and_not_by_when_it_began(pipeline, tasks):
    with closed_store(pipeline.tables):
        moment = database_time(pipeline.tables)
    finish(pipeline, tasks[0])
    # A worker may have been frozen between reading the time and writing the row.
    pipeline.TrainingResult().update1({"training_task_md5_hash": tasks[0], "utc_insert_time": "2020-01-01 00:00:00"})
    assert [row.task for row in committed_since(pipeline.tables, moment)] == [tasks[0]]


def test_a_commit_that_uses_a_history_again_while_we_tidy_up_keeps_it(pipeline, other, tasks, monkeypatch):
    """The worker holds the store first: its row is not committed yet when the files are looked at."""
    finish(pipeline, tasks[0])
    orphan(pipeline, tasks[1])
    inserted, go_on = threading.Event(), threading.Event()
    end = other.queue._end

    def wait_and_end(*arguments, **options):
        inserted.set()
        assert go_on.wait(30)
        end(*arguments, **options)

    monkeypatch.setattr(other.queue, "_end", wait_and_end)
    worker = threading.Thread(target=lambda: commit(other, claim(other, tasks[2]), HISTORY))
    worker.start()
    assert inserted.wait(30)
    tidied: list = []
    collector = threading.Thread(target=lambda: tidied.append(tidy_up(pipeline)))
    collector.start()
    time.sleep(0.5)
    # Nothing in the database shows yet that the history is needed.
    assert not tidied and collector.is_alive()
    go_on.set()
    worker.join(30)
    collector.join(30)
    assert tidied[0].kept == 1
    assert stored_history(pipeline, tasks[2]) == HISTORY


def test_a_commit_that_comes_while_we_tidy_up_waits_and_writes_its_history_anew(pipeline, other, tasks, monkeypatch):
    """The store is closed first: the worker must not take the file that is about to go for one that stays."""
    finish(pipeline, tasks[0])
    orphan(pipeline, tasks[1])
    directory = pipeline.settings.model_save_dir
    findings = find_leftovers(pipeline.tables, directory)
    assert findings.store is not None
    closed, go_on = threading.Event(), threading.Event()
    remove = findings.store.remove

    def wait_and_remove(path):
        closed.set()
        assert go_on.wait(30)
        remove(path)

    monkeypatch.setattr(findings.store, "remove", wait_and_remove)
    removed: list = []
    collector = threading.Thread(target=lambda: removed.append(remove_leftovers(pipeline.tables, directory, findings)))
    collector.start()
    assert closed.wait(30)
    worker = threading.Thread(target=lambda: commit(other, claim(other, tasks[2]), HISTORY))
    worker.start()
    worker.join(0.5)
    assert worker.is_alive()
    go_on.set()
    collector.join(30)
    worker.join(30)
    assert len(removed) == 1 and not removed[0].errors
    assert stored_history(pipeline, tasks[2]) == HISTORY


def test_a_commit_between_two_looks_at_the_rows_is_seen(pipeline, other, tasks, monkeypatch):
    finish(pipeline, tasks[0])
    orphan(pipeline, tasks[1])

    def results_and_then_a_commit(tables):
        yield from result_files(tables)
        commit(other, claim(other, tasks[2]), HISTORY)

    directory = pipeline.settings.model_save_dir
    findings = find_leftovers(pipeline.tables, directory)
    monkeypatch.setattr(leftover_removal, "result_files", results_and_then_a_commit)
    assert remove_leftovers(pipeline.tables, directory, findings).kept == 1
    assert stored_history(pipeline, tasks[2]) == HISTORY


def test_whatever_the_order_no_history_of_a_result_is_ever_lost(pipeline, other, tasks):
    finish(pipeline, tasks[0])
    over, rounds, failures = threading.Event(), 0, []
    removals = []

    def tidy_up_all_the_time():
        try:
            while not over.is_set():
                removals.append(tidy_up(other).files)
        except BaseException as error:
            failures.append(error)

    collector = threading.Thread(target=tidy_up_all_the_time)
    collector.start()
    try:
        until = time.monotonic() + 4
        while time.monotonic() < until:
            task = tasks[1 + rounds % 5]
            finish(pipeline, task, HISTORY)
            assert stored_history(pipeline, task) == HISTORY
            (pipeline.TrainingResult & {"training_task_md5_hash": task}).delete(prompt=False)
            pipeline.queue.enqueue()
            rounds += 1
    finally:
        over.set()
        collector.join(60)
    assert not failures and rounds > 5 and sum(removals) > 0


def test_two_at_once_do_not_get_into_each_others_way(pipeline, other, tasks):
    finish(pipeline, tasks[0])
    for task in tasks[1:]:
        orphan(pipeline, task)
    removals = []
    directory = pipeline.settings.model_save_dir
    findings = [find_leftovers(each.tables, directory) for each in (pipeline, other)]
    threads = [
        threading.Thread(target=lambda e=each, f=found: removals.append(remove_leftovers(e.tables, directory, f)))
        for each, found in zip((pipeline, other), findings, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [removal.errors for removal in removals] == [[], []]
    assert len(histories(pipeline)) == 1


def test_other_tables_that_keep_files_in_the_store_are_found(pipeline, tasks):
    import datajoint as dj

    assert other_tables_in_store(pipeline.tables) == []

    class Note(dj.Manual):
        definition = """
        note : int32
        ---
        content : <blob@external_training_result>
        """

    pipeline.schema.create_tables = True
    pipeline.schema(Note, context={})
    assert other_tables_in_store(pipeline.tables) == ["note"]
