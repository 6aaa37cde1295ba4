"""Claims per second, and wasted ones, beside DataJoint's own loop of reservations. Aim: none wasted, at any queue length."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from queueing import MD5, Place, empty, fill_tasks, on_each_engine
from report import Spread, table

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

__all__ = ["run"]

SHORT, LONG = 2_000, 100_000
PROCESSES = (1, 8, 32)
ROUNDS, SECONDS = 3, 0.7
LOOKS, LOOK_SECONDS = 9, 2.0
SLOW = 5.0
"""Claims per second of one process below which more of them are not measured: they would keep the machine for minutes."""
AIM = 1.5
"""How much longer a claim may take of a queue fifty times as long, noise included."""

CONDITION = "seed < 50"
"""Under which half of the tasks are claimed in a storm."""

CASES = ("any task", "half of the tasks", "1 % of the tasks", "none there", "half excluded")
ORDERS = ("original", "random")
STORMS = (*ORDERS, "condition")
LABELS = {
    "original": "claim, original order",
    "random": "claim, random order",
    "condition": "claim, half of the tasks",
    "datajoint": "DataJoint: reserve each key",
}


def run() -> str:
    """Measure, and return what to print."""
    return on_each_engine(_measure)


@dataclass(frozen=True)
class Storm:
    """What some processes did that claimed at once.

    Attributes
    ----------
    rate : float
        Tasks that were claimed and ended per second, of all processes together.
    won, vain, conflicts : int
        Claims; tries that won nothing although tasks were pending; transactions that the server gave up in favour of
        others, also those that `Queue` then began again by itself.
    """

    rate: float
    won: int
    vain: int
    conflicts: int


@dataclass(frozen=True)
class _Answer:
    tasks: list[str]
    vain: int
    conflicts: int
    seconds: float


def _measure(engine: str, place: Place) -> str:
    pipeline = place.pipeline()
    storms: dict[tuple[str, int, int], list[Storm]] = {}
    looks: dict[tuple[str, str, int], Spread] = {}
    try:
        with _claimers(place) as claimers:
            for length in (SHORT, LONG):
                empty(pipeline, "TrainingAttempt", "jobs", "TrainingTask")
                fill_tasks(pipeline, length)
                pipeline.queue.enqueue()
                # At once after the bulk insert: no server has counted the rows yet.
                for case in CASES:
                    for order in ORDERS:
                        looks[case, order, length] = _look(pipeline, case, order)
                restriction = pipeline.restriction([CONDITION])
                kinds = (*STORMS, "datajoint") if length == SHORT else STORMS
                for _ in range(ROUNDS):
                    for kind in kinds:
                        for processes in PROCESSES if kind != "condition" else PROCESSES[1:]:
                            storm = _storm(pipeline, claimers[:processes], kind, restriction)
                            storms.setdefault((kind, processes, length), []).append(storm)
                            if storm.rate < SLOW:
                                break
            fetch = _fetch_seconds(pipeline)
    finally:
        pipeline.connection.close()
    return _tables(engine, storms, looks, fetch)


def _look(pipeline: Any, case: str, order: str) -> Spread:
    """Time claims of one process, each of which is given back; in milliseconds."""
    from synicix_core.tables.queue import Exclusions

    conditions = {"half of the tasks": CONDITION, "1 % of the tasks": "seed = 99", "none there": "seed < 0"}
    restriction = pipeline.restriction([conditions[case]]) if case in conditions else ""
    exclusions = Exclusions({("ModelConfig", "model_provider"): ["absent-lab/Net"]} if case == "half excluded" else {})
    took: list[float] = []
    begun = time.monotonic()
    while len(took) < LOOKS and (not took or time.monotonic() - begun < LOOK_SECONDS):
        started = time.monotonic()
        claim = pipeline.queue.claim(
            "0" * 32, "host", 1, "cpu", restriction=restriction, exclusions=exclusions, order=order
        )
        took.append(1000 * (time.monotonic() - started))
        if (claim is None) != (case == "none there"):
            raise RuntimeError(f"{case}, {order} order: {claim} was claimed")
        if claim is not None:
            pipeline.queue.release(claim)
    return Spread(tuple(took))


def _storm(pipeline: Any, claimers: Sequence[Connection], kind: str, restriction: str) -> Storm:
    """Have processes claim at once; `restriction` is for the storm under a condition."""
    restriction = restriction if kind == "condition" else ""
    for claimer in claimers:
        claimer.send((kind, restriction))
    for claimer in claimers:
        claimer.recv()
    begin = time.monotonic() + 0.05
    for claimer in claimers:
        claimer.send(begin)
    answers = [claimer.recv() for claimer in claimers]
    tasks = [task for answer in answers for task in answer.tasks]
    if len(set(tasks)) != len(tasks):
        raise RuntimeError(f"{len(tasks) - len(set(tasks))} tasks were claimed twice")
    if not pipeline.queue.waiting(restriction, limit=1):
        raise RuntimeError("the queue ran dry, so that tries in vain tell nothing")
    pipeline.queue.enqueue()
    seconds = max(answer.seconds for answer in answers)
    vain, conflicts = (sum(getattr(answer, name) for answer in answers) for name in ("vain", "conflicts"))
    return Storm(len(tasks) / seconds, len(tasks), vain, conflicts)


def _fetch_seconds(pipeline: Any) -> float:
    """Time what each of DataJoint's workers does before its first reservation."""
    started = time.monotonic()
    _pending_keys(pipeline.TrainingResult.jobs)
    return time.monotonic() - started


@contextmanager
def _claimers(place: Place) -> Iterator[list[Connection]]:
    """Start as many processes as are needed at most, each connected; forked from one that has imported everything."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["datajoint", "synicix_core.tables.queue", "synicix_core.database"])
    ends, processes = [], []
    try:
        for _ in range(max(PROCESSES)):
            ours, theirs = context.Pipe()
            process = context.Process(target=_claimer, args=(theirs, place), daemon=True)
            process.start()
            theirs.close()
            ends.append(ours)
            processes.append(process)
        for end in ends:
            end.recv()
        yield ends
    finally:
        for end in ends:
            end.close()
        for process in processes:
            process.join(10)


def _claimer(pipe: Connection, place: Place) -> None:
    """Answer commands until the pipe is closed."""
    from synicix_core.database import connect
    from synicix_core.settings import load_settings
    from synicix_core.tables.queue import Queue
    from synicix_core.tables.schema import bind

    place.enter()
    settings = load_settings(place.project)
    connection = connect(settings)
    tables = bind(connection, settings.schema_name, services=None)
    queue, jobs = Queue(tables), tables.TrainingResult().jobs
    _pending_keys(jobs, limit=1)  # reads the headings
    pipe.send("ready")
    try:
        while True:
            kind, restriction = pipe.recv()
            keys = _pending_keys(jobs) if kind == "datajoint" else []
            pipe.send("ready")
            begin: float = pipe.recv()
            time.sleep(max(begin - time.monotonic(), 0.0))
            order = "random" if kind == "random" else "original"
            pipe.send(_reserve(jobs, keys, begin) if kind == "datajoint" else _claim(queue, order, restriction, begin))
    except EOFError:
        connection.close()


def _claim(queue: Any, order: str, restriction: str, begin: float) -> _Answer:
    """Claim tasks and end each at once: the job is deleted and the attempt finished, as at a commit."""
    from synicix_core.database import reconnect, transaction

    attempts, jobs = queue.tables.TrainingAttempt.full_table_name, queue.tables.jobs_name
    tasks: list[str] = []
    vain = 0
    with _counted_conflicts() as conflicts:
        while time.monotonic() < begin + SECONDS:
            try:
                claim = queue.claim("0" * 32, "host", 1, "cpu", restriction=restriction, order=order)
                if claim is None:
                    vain += 1
                    continue
                tasks.append(claim.task)
                with transaction(queue.connection):
                    sql = f"UPDATE {attempts} SET state = 'finished' WHERE {MD5} = %s AND attempt = %s"
                    reconnect.execute(queue.connection, sql, (claim.task, claim.attempt))
                    reconnect.execute(queue.connection, f"DELETE FROM {jobs} WHERE {MD5} = %s", (claim.task,))
            except Exception as error:
                if not reconnect.is_conflict(error):
                    raise
        seconds = time.monotonic() - begin
    return _Answer(tasks, vain, len(conflicts), seconds)


@contextmanager
def _counted_conflicts() -> Iterator[list[Exception]]:
    """Collect what the server gives up of the statements in the block, whoever handles it.

    `Queue` begins a claim again by itself that the server gave up, and waits before it does.
    """
    from synicix_core.database import reconnect
    from synicix_core.tables import queue

    conflicts: list[Exception] = []
    original = reconnect.execute

    def execute(connection: Any, sql: str, params: Sequence[Any] = ()) -> Any:
        try:
            return original(connection, sql, params)
        except Exception as error:
            if reconnect.is_conflict(error):
                conflicts.append(error)
            raise

    # `transaction` and the queue know it by these names.
    reconnect.execute = queue.execute = execute
    try:
        yield conflicts
    finally:
        reconnect.execute = queue.execute = original


def _reserve(jobs: Any, keys: list[dict[str, Any]], begin: float) -> _Answer:
    """Do what ``populate(reserve_jobs=True)`` does around `make`: walk the list of pending keys, try to reserve each."""
    tasks: list[str] = []
    vain = 0
    for key in keys:
        if time.monotonic() >= begin + SECONDS:
            break
        if jobs.reserve(key):
            tasks.append(key[MD5])
            jobs.complete(key)
        else:
            vain += 1
    return _Answer(tasks, vain, 0, time.monotonic() - begin)


def _pending_keys(jobs: Any, limit: int | None = None) -> list[dict[str, Any]]:
    pending = jobs.pending & "scheduled_time <= CURRENT_TIMESTAMP(3)"
    keys: list[dict[str, Any]] = pending.keys(order_by="priority ASC, scheduled_time ASC", limit=limit)
    return keys


def _wasted(storms: dict[tuple[str, int, int], list[Storm]], kinds: Sequence[str]) -> tuple[int, int]:
    """Return how many tries of these kinds of storm were wasted, and of how many."""
    found = [storm for (kind, _, _), some in storms.items() if kind in kinds for storm in some]
    wasted = sum(storm.vain + storm.conflicts for storm in found)
    return wasted, wasted + sum(storm.won for storm in found)


def _tables(
    engine: str,
    storms: dict[tuple[str, int, int], list[Storm]],
    looks: dict[tuple[str, str, int], Spread],
    fetch: float,
) -> str:
    rows = []
    for kind, length in (
        *((kind, SHORT) for kind in STORMS),
        ("datajoint", SHORT),
        *((kind, LONG) for kind in STORMS),
    ):
        for processes in PROCESSES if kind != "condition" else PROCESSES[1:]:
            found = storms.get((kind, processes, length))
            if not found:
                rows.append([LABELS[kind], f"{length:,}", str(processes), "not measured", "", "", ""])
                continue
            rates = Spread(tuple(storm.rate for storm in found))
            rival = Spread(tuple(storm.rate for storm in storms.get(("datajoint", processes, SHORT), ())))
            won, vain = (sum(getattr(storm, name) for storm in found) for name in ("won", "vain"))
            known = kind != "datajoint" and rival.values and rival.median
            times = f"{rates.median / rival.median:.1f}" if known else ""
            conflicts = sum(storm.conflicts for storm in found)
            rows.append(
                [LABELS[kind], f"{length:,}", str(processes), rates.text(0), times, f"{vain} / {won}", str(conflicts)]
            )
    text = table(
        [engine, "queue", "processes", "tasks/s", "times DataJoint's", "tries in vain / won", "given up"], rows
    )
    wasted, tried = _wasted(storms, STORMS)
    free, condition = (_wasted(storms, kinds) for kinds in (ORDERS, ("condition",)))
    text += (
        f"\nclaims: aim none wasted: {'met' if not wasted else 'MISSED'} ({wasted:,} of {tried:,}: without a condition"
        f" {free[0]:,} of {free[1]:,}, under one {condition[0]:,} of {condition[1]:,}). Wasted is a try in vain, and a"
        " transaction that the server gave up in favour of another, though the queue begins it again by itself."
        f" Median (min..max) of {ROUNDS} rounds of {SECONDS} s."
        f" DataJoint's loop is measured on the short queue, from the first reservation on; before it, each"
        f" worker fetches the pending keys, which takes {fetch:.1f} s for {LONG:,}."
        " A claim writes an attempt, too, which DataJoint has none of.\n\n"
    )
    columns = []
    slower = []
    for case in CASES:
        for order in ORDERS:
            short, long = looks[case, order, SHORT], looks[case, order, LONG]
            slower.append((long.median / short.median, case, order))
            columns.append([case, order, short.text(), long.text(), f"{slower[-1][0]:.1f}"])
    text += table([engine, "order", f"ms, {SHORT:,} queued", f"ms, {LONG:,} queued", "ratio"], columns)
    worst, case, order = max(slower)
    met = "met" if worst <= AIM else "MISSED"
    return text + (
        f"\nclaims: aim at most {AIM}x slower with fifty times the queue: {met} ({worst:.1f}x: {case}, {order} order)."
        f" One process, median (min..max) of up to {LOOKS} claims, right after the bulk insert."
    )
