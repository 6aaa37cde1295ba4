"""Claims on tasks that are trained together: which are alike, who may have how many, and how they end."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from synicix_core import Pipeline
from synicix_core.database import execute
from synicix_core.errors import ClaimLost
from synicix_core.runner.display import Silent
from synicix_core.runner.group_choice import GroupChoice
from synicix_core.tables.queue import Claim, Problem
from synicix_core.tables.queue_ends import Committed, Given, GroupEnds
from synicix_core.tables.queue_groups import GroupQueue, Likeness
from synicix_core.tables.tries import Tries
from synicix_core.training.grouping import Grouping, group_key
from synicix_core.training.task_specs import fetch_configs
from tests import saved
from tests.rows import insert_tasks

MD5 = "training_task_md5_hash"
ME = {"worker": "a" * 32, "host": "host", "pid": 1, "device": "cpu"}
ROW: dict[str, Any] = {
    "dataset_config_md5_hash": "d" * 32,
    "model_provider": "toy-lab/Line",
    "model_class_params": {"penalty": 0.5, "bias": True, "width": 3, "kind": "flat", "none": None, "rates": [0.1, 2]},
    "trainer_provider": "synicix-core/NNTrainer",
    "trainer_class_params": {"precision": "fp32", "early_stopping_patience": 3, "early_stopping_metric": "loss"},
    "optimizer_provider": "synicix-core/Adam",
    "optimizer_class_params": {"lr": 0.1, "weight_decay": 0.0, "betas": [0.9, 0.99], "amsgrad": False},
    "criterion_provider": "synicix-core/MSELoss",
    "criterion_class_params": {"reduction": "mean"},
    "metrics": [{"provider": "synicix-core/loss", "params": {}}],
    "batch_size": 8,
    "epoch_limit": 2,
    "seed": 0,
}


def changed(column: str, **values: Any) -> dict[str, Any]:
    return {**ROW, column: {**ROW[column], **values}}


@pytest.mark.parametrize(
    "other",
    [
        {**ROW, "seed": 7, "epoch_limit": 50},
        changed("model_class_params", penalty=0.25, rates=[0.2, 2]),
        changed("optimizer_class_params", lr=1, weight_decay=0.1, betas=[0.5, 0.5]),
        {**ROW, "optimizer_class_params": {"amsgrad": False}},
        changed("trainer_class_params", early_stopping_patience=9, early_stopping_min_delta=0.1),
    ],
)
def test_tasks_that_differ_in_these_are_alike(other: dict[str, Any]) -> None:
    assert group_key(other) == group_key(ROW) is not None


@pytest.mark.parametrize(
    "other",
    [
        {**ROW, "dataset_config_md5_hash": "e" * 32},
        {**ROW, "batch_size": 16},
        {**ROW, "model_provider": "toy-lab/Slow"},
        {**ROW, "optimizer_provider": "synicix-core/SGD"},
        {**ROW, "criterion_provider": "synicix-core/L1Loss"},
        {**ROW, "metrics": [{"provider": "synicix-core/r2", "params": {}}]},
        {**ROW, "trainer_provider": "synicix-core/NNTrainer@2"},
        changed("model_class_params", width=4),
        changed("model_class_params", bias=False),
        changed("model_class_params", kind="round"),
        changed("model_class_params", none=1),
        changed("model_class_params", rates=[0.1, 3]),
        changed("model_class_params", rates=[0.1, 2, 0.1]),
        changed("optimizer_class_params", amsgrad=True),
        changed("criterion_class_params", reduction="sum"),
        changed("trainer_class_params", precision="bf16"),
        changed("trainer_class_params", early_stopping_metric="r2"),
        changed("trainer_class_params", early_stopping_patience=None),
    ],
)
def test_tasks_that_differ_in_these_are_not(other: dict[str, Any]) -> None:
    assert group_key(other) not in (None, group_key(ROW))


def test_a_task_of_another_trainer_is_trained_by_itself() -> None:
    assert group_key({**ROW, "trainer_provider": "my-lab/NNTrainer"}) is None


def test_an_integer_counts_as_a_number_where_other_tasks_have_a_float() -> None:
    two, half = changed("model_class_params", penalty=2), changed("model_class_params", penalty=0.5)
    grouping = Grouping()
    assert grouping.key(two) != grouping.key(half)
    grouping.learn("toy-lab/Line", [half["model_class_params"]])
    assert grouping.key(two) == grouping.key(half)
    assert grouping.part("toy-lab/Line", two["model_class_params"]) == grouping.part(
        "toy-lab/Line", half["model_class_params"]
    )


def test_nothing_and_something_of_a_number_are_apart() -> None:
    grouping = Grouping()
    grouping.learn("toy-lab/Line", [ROW["model_class_params"]])
    for nothing in (0, 0.0):
        assert grouping.key(changed("model_class_params", penalty=nothing)) != grouping.key(ROW)
    keys = {grouping.key(changed("model_class_params", penalty=nothing)) for nothing in (0, 0.0, -0.0)}
    assert len(keys) == 1


def test_what_did_not_go_together_is_kept_apart_by_what_differs() -> None:
    one, other = changed("model_class_params", penalty=2), changed("model_class_params", penalty=0.5, rates=[0.2, 2])
    grouping = Grouping()
    grouping.learn("toy-lab/Line", [other["model_class_params"]])
    assert grouping.separate(one, other) == ["penalty", "rates.0"]
    assert grouping.key(one) != grouping.key(other)
    same = {**other, "seed": 5}
    assert grouping.key(other) == grouping.key(same)
    assert grouping.separate(other, same) == []
    assert grouping.key(changed("model_class_params", penalty=2.0)) == grouping.key(one)
    elsewhere = [
        {**row, "model_provider": "toy-lab/Other"} for row in (ROW, changed("model_class_params", penalty=1.5))
    ]
    assert grouping.key(elsewhere[0]) == grouping.key(elsewhere[1])


database = pytest.mark.database


def like(pipeline: Any, held: Claim, *, models: bool = True) -> Likeness:
    row = fetch_configs(pipeline.tables, held.task)
    return Likeness(
        task=held.task,
        dataset_config=row["dataset_config_md5_hash"],
        model_provider=row["model_provider"],
        model_configs=[row["model_config_md5_hash"]] if models else [],
        providers=(row["trainer_provider"], row["optimizer_provider"], row["criterion_provider"]),
        batch_size=row["batch_size"],
    )


def found(pipeline: Any, held: Claim, restriction: str = "", **options: Any) -> set[str]:
    models = options.pop("models", True)
    both = [
        {each.task for each in GroupQueue(pipeline.queue).candidates(
            like(pipeline, held, models=models), restriction, 500, whole_queue=whole)}
        for whole in (False, True)
    ]  # fmt: skip
    assert both[0] == both[1]
    return both[0]


@pytest.fixture
def tasks(pipeline: Any) -> list[str]:
    return insert_tasks(pipeline, trainings=[{"seed": seed} for seed in range(6)])


@database
def test_candidates_share_dataset_model_providers_and_batch_size(pipeline: Any, tasks: list[str]) -> None:
    insert_tasks(
        pipeline,
        datasets=[{}, {"dataset_class_params": {"n": 8}}],
        models=[{}, {"model_class_params": {"penalty": 0.5}}, {"model_provider": "Slow"}],
        trainings=[{}, {"batch_size": 4}, {"optimizer_provider": "SGD"}, {"criterion_provider": "L1Loss"}],
    )
    held = saved.claim(pipeline, tasks[0])
    assert found(pipeline, held) == set(tasks[1:])
    other_penalties = found(pipeline, held, models=False) - set(tasks[1:])
    assert {fetch_configs(pipeline.tables, task)["model_class_params"]["penalty"] for task in other_penalties} == {0.5}
    assert GroupQueue(pipeline.queue).count(like(pipeline, held), "", 100) == 5
    assert GroupQueue(pipeline.queue).count(like(pipeline, held), "", 3) == 3


@database
def test_candidates_are_due_as_urgent_and_meet_the_condition(pipeline: Any, tasks: list[str]) -> None:
    held = saved.claim(pipeline, tasks[0])
    pipeline.TrainingResult.jobs.update1({MD5: tasks[1], "priority": 1})
    later = saved.claim(pipeline, tasks[2])
    pipeline.queue.retry_later(later, Problem("full", kind="transient"), 100)
    pipeline.queue.fail(saved.claim(pipeline, tasks[3]), Problem("bad"))
    assert found(pipeline, held) == set(tasks[4:])
    seed = fetch_configs(pipeline.tables, tasks[4])["seed"]
    assert found(pipeline, held, pipeline.restriction([f"seed = {seed}", "model_provider LIKE '%%Line'"])) == {tasks[4]}


@database
@pytest.mark.parametrize("kind", ["group", "out_of_memory", "died", "hung", "lost"])
def test_what_may_have_killed_a_worker_is_trained_by_itself_until_somebody_retries_it(
    pipeline: Any, tasks: list[str], kind: str
) -> None:
    held, bad = saved.claim(pipeline, tasks[0]), saved.claim(pipeline, tasks[1])
    GroupEnds(pipeline.queue).release([Given(bad)], Problem("bad luck", kind=kind))
    assert found(pipeline, held) == set(tasks[2:])
    again = saved.claim(pipeline, tasks[1])
    groups = GroupQueue(pipeline.queue)
    assert groups.is_alone(again)
    assert not groups.is_alone(held)
    chosen, told = choice(pipeline)
    for _ in range(2):
        assert siblings(pipeline, chosen, again) is None
    (said,) = told.said  # once
    assert said.startswith(f"{again.task[:8]}, and others like it, are trained one by one: ")
    pipeline.queue.fail(again, Problem("bad"))
    pipeline.queue.retry([tasks[1]])
    assert found(pipeline, held) == set(tasks[1:])
    assert not groups.is_alone(saved.claim(pipeline, tasks[1]))


@database
def test_siblings_are_claimed_at_once_and_no_more_than_asked_for(pipeline: Any, tasks: list[str]) -> None:
    pipeline.queue.release(saved.claim(pipeline, tasks[1]))
    saved.claim(pipeline, tasks[0])
    claims = GroupQueue(pipeline.queue).claim([tasks[0], *tasks[1:5]], 3, process="boot/1/2", **ME)
    assert len(claims) == 3 and tasks[0] not in {held.task for held in claims}
    for held in claims:
        row = (pipeline.TrainingAttempt & held.key & f"attempt = {held.attempt}").fetch1()
        assert (row["state"], row["worker"], row["process"]) == ("running", "a" * 32, "boot/1/2")
        assert held.attempt == (2 if held.task == tasks[1] else 1)
        assert (pipeline.TrainingResult.jobs & held.key).fetch1("status", "host") == ("reserved", "host")
    rest = GroupQueue(pipeline.queue).claim(tasks, 10, **ME)
    assert {held.task for held in rest} == set(tasks[1:]) - {held.task for held in claims}
    assert GroupQueue(pipeline.queue).claim(tasks, 10, **ME) == []


@database
def test_a_task_that_was_deleted_meanwhile_is_not_claimed(pipeline: Any, tasks: list[str]) -> None:
    (pipeline.TrainingTask & {MD5: tasks[0]}).delete(prompt=False)
    claims = GroupQueue(pipeline.queue).claim(tasks, 10, **ME)
    assert {held.task for held in claims} == set(tasks[1:])


@database
def test_a_task_that_is_deleted_at_that_instant_costs_no_other_one(
    pipeline: Any, tasks: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from synicix_core.tables import queue_groups

    other = Pipeline()

    def late(connection: Any, sql: str, params: Any = ()) -> Any:
        if sql.startswith("INSERT INTO"):
            (other.TrainingTask & {MD5: tasks[2]}).delete(prompt=False)
        return execute(connection, sql, params)

    with monkeypatch.context() as patch:
        patch.setattr(queue_groups, "execute", late)
        assert GroupQueue(pipeline.queue).claim(tasks, 10, **ME) == []
    other.connection.close()
    assert len(pipeline.TrainingAttempt()) == 0
    claims = GroupQueue(pipeline.queue).claim(tasks, 10, **ME)
    assert {held.task for held in claims} == set(tasks) - {tasks[2]}


@database
def test_no_result_is_no_statement(pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with counted(pipeline, monkeypatch) as sent:
        assert GroupEnds(pipeline.queue).commit([]) == Committed()
    assert sent == []


@database
def test_tasks_without_siblings_are_not_looked_for_at_once_again(
    pipeline: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from synicix_core.runner import group_choice

    tasks = insert_tasks(pipeline, trainings=[{"seed": 1}, {"optimizer_class_params": {"lr": 0.1, "amsgrad": True}}])
    held, row = saved.claim(pipeline, tasks[0]), fetch_configs(pipeline.tables, tasks[0])
    chosen, _ = choice(pipeline)
    made: list[str] = []
    key = Grouping.key
    monkeypatch.setattr(Grouping, "key", lambda self, row: made.append(row[MD5]) or key(self, row))
    monkeypatch.setattr(group_choice, "_LONELY_SECONDS", 0.0)
    assert chosen.find(held, row, "") is None
    assert set(made) == set(tasks)
    made.clear()
    with counted(pipeline, monkeypatch) as looked:
        assert chosen.find(held, row, "") is None
    assert made == [], "keys are kept"
    monkeypatch.setattr(group_choice, "_LONELY_SECONDS", 10.0)
    assert chosen.find(held, row, "") is None
    with counted(pipeline, monkeypatch) as sent:
        assert chosen.find(held, row, "") is None
    assert len(sent) < len(looked) and not [sql for sql in sent if pipeline.tables.jobs_name in sql]


@database
def test_workers_at_once_never_claim_the_same_sibling(pipeline: Any) -> None:
    tasks = insert_tasks(pipeline, trainings=[{"seed": seed} for seed in range(60)])
    taken: list[str] = []

    def work(worker: str) -> None:
        own = Pipeline()
        groups = GroupQueue(own.queue)
        while claims := groups.claim(tasks, 4, **{**ME, "worker": worker}):
            taken.extend(held.task for held in claims)
        own.connection.close()

    threads = [threading.Thread(target=work, args=(f"{number}" * 32,)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == sorted(tasks)


@database
def test_one_beat_keeps_all_claims_alive_and_tells_which_are_lost(pipeline: Any, tasks: list[str]) -> None:
    groups = GroupQueue(pipeline.queue)
    claims = {held.task: held for held in groups.claim(tasks[:4], 4, **ME)}
    attempts = pipeline.TrainingAttempt.full_table_name
    execute(pipeline.connection, f"UPDATE {attempts} SET heartbeat_at = '2020-01-01'")
    progress = {
        tasks[0]: {"epoch": 3, "train_loss": 0.5, "validation_loss": None},
        tasks[1]: {"epoch": 4, "train_loss": 1, "validation_loss": 0.25},
    }
    for _ in range(3):
        assert groups.heartbeat(list(claims.values()), progress) == []
    rows = {row[MD5]: row for row in pipeline.TrainingAttempt().to_dicts()}
    shown = [[rows[task][name] for name in ("epoch", "train_loss", "validation_loss")] for task in tasks[:3]]
    assert shown == [[3, 0.5, None], [4, 1.0, 0.25], [None, None, None]]
    assert all(row["heartbeat_at"].year > 2020 for row in rows.values())
    assert groups.heartbeat(list(claims.values()), {}) == []
    assert (pipeline.TrainingAttempt & {MD5: tasks[0]}).fetch1("epoch") == 3
    pipeline.queue.release(claims[tasks[1]])
    (pipeline.TrainingTask & {MD5: tasks[2]}).delete(prompt=False)
    lost = groups.heartbeat(list(claims.values()), {})
    assert {held.task for held in lost} == {tasks[1], tasks[2]}
    assert groups.heartbeat([], {}) == []


def result(task: str, **changes: Any) -> dict[str, Any]:
    return {**saved.RESULT, "model_save_path": f"{task}.1.pt", **changes}


@database
def test_results_of_a_group_are_written_together(pipeline: Any, tasks: list[str]) -> None:
    claims = GroupQueue(pipeline.queue).claim(tasks[:4], 4, **ME)
    given = [(held, result(held.task, epochs=number + 1)) for number, held in enumerate(claims)]
    committed = GroupEnds(pipeline.queue).commit(given)
    assert not committed.lost and not committed.failed
    assert len(pipeline.TrainingResult()) == 4
    for number, held in enumerate(claims):
        row = (pipeline.TrainingResult & held.key).fetch1()
        assert (row["by_attempt"], row["epochs"]) == (1, number + 1)
        assert row["training_epoch_loss_history"] == [1.0, 0.5]
        assert (pipeline.TrainingAttempt & held.key).fetch1("state", "epoch") == ("finished", number + 1)
    assert len(pipeline.TrainingResult.jobs) == 2
    # As after a commit that took effect without an answer.
    again = GroupEnds(pipeline.queue).commit(given)
    assert not again.lost and not again.failed


@database
def test_what_cannot_be_written_leaves_the_others_alone(pipeline: Any, tasks: list[str]) -> None:
    claims = {held.task: held for held in GroupQueue(pipeline.queue).claim(tasks[:4], 4, **ME)}
    pipeline.queue.release(claims[tasks[1]])
    (pipeline.TrainingTask & {MD5: tasks[2]}).delete(prompt=False)
    rows = {task: result(task) for task in tasks[:4]}
    rows[tasks[3]]["status"] = "splendid"
    committed = GroupEnds(pipeline.queue).commit([(claims[task], rows[task]) for task in tasks[:4]])
    assert {task: error.why for task, error in committed.lost.items()} == {
        tasks[1]: "the task was paused",
        tasks[2]: "the task was deleted",
    }
    assert all(isinstance(error, ClaimLost) for error in committed.lost.values())
    assert list(committed.failed) == [tasks[3]]
    assert list(pipeline.TrainingResult.to_arrays(MD5)) == [tasks[0]]
    assert (pipeline.TrainingAttempt & {MD5: tasks[3]}).fetch1("state") == "running"
    assert (pipeline.TrainingResult.jobs & {MD5: tasks[3]}).fetch1("status") == "reserved"


@database
def test_a_group_that_is_given_back_is_pending_with_its_checkpoints(pipeline: Any, tasks: list[str]) -> None:
    claims = {held.task: held for held in GroupQueue(pipeline.queue).claim(tasks[:3], 3, **ME)}
    pipeline.queue.fail(claims[tasks[2]], Problem("bad"))
    given = [
        Given(claims[tasks[0]], "x.1.checkpoint", 5),
        Given(claims[tasks[1]]),
        Given(claims[tasks[2]], "z.1.checkpoint"),
    ]
    lost = GroupEnds(pipeline.queue).release(given, Problem("it died \0", kind="group", cause="SIGKILL"))
    assert list(lost) == [tasks[2]]
    rows = [(pipeline.TrainingAttempt & {MD5: task}).fetch1() for task in tasks[:3]]
    assert [row["state"] for row in rows] == ["released", "released", "failed"]
    assert [(row["checkpoint_path"], row["epoch"]) for row in rows[:2]] == [("x.1.checkpoint", 5), (None, None)]
    assert [(row["error"], row["error_kind"]) for row in rows[:2]] == [("it died \\0", "group")] * 2
    assert len(pipeline.TrainingResult.jobs.pending) == 5
    assert pipeline.queue.tries(tasks[0]) == Tries()


@contextmanager
def counted(pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    sent: list[str] = []
    original = type(pipeline.connection).query

    def query(self: Any, sql: str, *args: Any, **options: Any) -> Any:
        sent.append(sql)
        return original(self, sql, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(type(pipeline.connection), "query", query)
        yield sent


@database
def test_a_large_group_takes_no_more_statements_than_a_small_one(
    pipeline: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = insert_tasks(pipeline, trainings=[{"seed": seed} for seed in range(45)])
    groups, ends = GroupQueue(pipeline.queue), GroupEnds(pipeline.queue)
    numbers = []
    for chosen in (tasks[:2], tasks[2:5], tasks[5:45]):  # the first reads the headings
        with counted(pipeline, monkeypatch) as sent:
            claims = groups.claim(chosen, len(chosen), **ME)
            groups.heartbeat(claims, {task: {"epoch": 1} for task in chosen})
            ends.commit([(held, result(held.task)) for held in claims])
        numbers.append(len(sent))
        assert len(claims) == len(chosen)
    assert numbers[1] == numbers[2] < 25, sent


class Told(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []

    def message(self, text: str) -> None:
        self.said.append(text)


def choice(pipeline: Any, size: int | None = None) -> tuple[GroupChoice, Told]:
    told = Told()
    return GroupChoice(pipeline.queue, size, 300.0, told), told


def siblings(pipeline: Any, chosen: GroupChoice, held: Claim, restriction: str = "") -> Any:
    return chosen.find(held, fetch_configs(pipeline.tables, held.task), restriction)


@database
def test_a_worker_takes_no_more_than_its_share(pipeline: Any) -> None:
    tasks = insert_tasks(pipeline, trainings=[{"seed": seed} for seed in range(20)])
    held = saved.claim(pipeline, tasks[0])
    chosen, _ = choice(pipeline)
    alike = siblings(pipeline, chosen, held)
    assert (set(alike.rows), alike.total, alike.workers) == (set(tasks[1:]), 19, 1)
    assert chosen.number(alike) == 0
    chosen.planned(alike.key, held.task, 16, "")
    assert chosen.number(siblings(pipeline, chosen, held)) == 15
    for number, worker in enumerate("bcd"):
        GroupQueue(pipeline.queue).claim(tasks[1 + number : 2 + number], 1, **{**ME, "worker": worker * 32})
    # 16 are pending, besides the claimed one, and 4 workers alive.
    assert chosen.number(siblings(pipeline, chosen, held)) == 4
    chosen.planned(alike.key, held.task, 16, "", 9)  # a share of five would gain nothing
    assert chosen.number(siblings(pipeline, chosen, held)) == 8
    chosen.planned(alike.key, held.task, 16, "", 18)
    assert chosen.number(siblings(pipeline, chosen, held)) == 0
    chosen.planned(alike.key, held.task, 16, "")
    stale = "UPDATE {} SET heartbeat_at = '2020-01-01' WHERE worker = %s"
    execute(pipeline.connection, stale.format(pipeline.TrainingAttempt.full_table_name), ("d" * 32,))
    assert chosen.number(siblings(pipeline, chosen, held)) == 5
    fixed, _ = choice(pipeline, 12)
    alike = siblings(pipeline, fixed, held)
    fixed.planned(alike.key, held.task, 3, "")
    assert fixed.number(alike) == 11


@database
def test_a_row_of_a_sibling_is_that_of_the_tables(pipeline: Any) -> None:
    tasks = insert_tasks(
        pipeline,
        models=[{"model_class_params": {"penalty": penalty}} for penalty in (0.5, 0.25, 1.0)],
        trainings=[{"seed": seed, "trainer_class_params": {"gradient_clip_norm": 1.5}} for seed in range(2)],
    )
    held = saved.claim(pipeline, tasks[0])
    alike = siblings(pipeline, choice(pipeline)[0], held)
    assert set(alike.rows) == set(tasks[1:])
    for task, row in alike.rows.items():
        assert dict(row) == fetch_configs(pipeline.tables, task)


@database
def test_the_siblings_behind_a_long_queue_are_found(pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from synicix_core.tables import queue_groups

    tasks = insert_tasks(pipeline, trainings=[{"seed": seed} for seed in range(3)])
    execute(pipeline.connection, f"UPDATE {pipeline.tables.jobs_name} SET scheduled_time = scheduled_time")
    insert_tasks(pipeline, trainings=[{"seed": seed, "batch_size": 4} for seed in range(12)])
    first = "UPDATE {} SET scheduled_time = '2020-01-01' WHERE {} NOT IN ({})"
    marks = ", ".join(["%s"] * len(tasks))
    execute(pipeline.connection, first.format(pipeline.tables.jobs_name, MD5, marks), tasks)
    monkeypatch.setattr(queue_groups, "_SOME", 10)
    held = saved.claim(pipeline, tasks[0])
    groups = GroupQueue(pipeline.queue)
    assert groups.candidates(like(pipeline, held), "", 10) == []
    assert groups.is_longer_than_a_look()
    alike = siblings(pipeline, choice(pipeline)[0], held)
    assert set(alike.rows) == set(tasks[1:])


@database
def test_what_was_learned_about_a_key_is_told_once_and_kept(pipeline: Any, tasks: list[str]) -> None:
    held = saved.claim(pipeline, tasks[0])
    chosen, told = choice(pipeline)
    key = siblings(pipeline, chosen, held).key
    chosen.planned(key, held.task, 1, "it branches on its data")
    assert told.said == [f"Tasks like {held.task[:8]} are trained one by one: it branches on its data."]
    assert siblings(pipeline, chosen, held) is None
    chosen, told = choice(pipeline)
    chosen.planned(key, held.task, 8, "")
    sizes = []
    for number in (8, 3, 3, 2):  # never more at a time than half of those that it happened to
        chosen.shrink(key, held.task, number, "it died")
        sizes.append(chosen.size(key))
    assert sizes == [4, 1, 1, 1]
    assert "4 at a time" in told.said[0] and "one by one" in told.said[1]
    off, _ = choice(pipeline, 1)
    assert siblings(pipeline, off, held) is None


@database
def test_a_task_that_differs_in_no_free_number_is_kept_alone(pipeline: Any, tasks: list[str]) -> None:
    held = saved.claim(pipeline, tasks[0])
    chosen, _ = choice(pipeline)
    rows = {task: fetch_configs(pipeline.tables, task) for task in tasks}
    chosen.separate(tasks[1], rows[tasks[1]], rows[tasks[0]])
    assert set(siblings(pipeline, chosen, held).rows) == set(tasks[2:])
    assert siblings(pipeline, chosen, saved.claim(pipeline, tasks[1])) is None


@database
def test_a_result_is_stored_as_datajoint_stores_it(pipeline: Any, tasks: list[str]) -> None:
    first, second = GroupQueue(pipeline.queue).claim(tasks[:2], 2, **ME)
    history = {
        "training_epoch_loss_history": [1.5, float("inf"), float("nan")],
        "model_class_params_history": [{"w": [1, 2.5, None, "x"]}],
    }
    row = result(first.task, test_score=None, best_epoch=None, **history)
    GroupEnds(pipeline.queue).commit([(first, row)])
    now = (pipeline.TrainingResult & first.key).fetch1("utc_insert_time")
    theirs = {**row, **second.key, "by_attempt": 1, "utc_insert_time": now}
    pipeline.TrainingResult().insert1(theirs, allow_direct_insert=True)
    raw = execute(pipeline.connection, f"SELECT * FROM {pipeline.TrainingResult.full_table_name}").fetchall()
    names = pipeline.TrainingResult.heading.names
    mine, other = ({n: v for n, v in zip(names, values, strict=True) if n != MD5} for values in raw)
    assert mine == other
    assert mine["test_score"] is None and mine["best_epoch"] is None
    stored = (pipeline.TrainingResult & first.key).fetch1()
    assert stored["training_epoch_loss_history"][:2] == [1.5, float("inf")]
    assert stored["model_class_params_history"] == history["model_class_params_history"]
