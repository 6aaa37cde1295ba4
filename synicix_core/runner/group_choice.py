"""Which pending tasks a worker trains together with one that it claimed, and how many of them."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from synicix_core.runner.display import WorkerDisplay
from synicix_core.tables.config_rows import ConfigRows
from synicix_core.tables.queue import Claim, Queue
from synicix_core.tables.queue_groups import Candidate, GroupQueue, Likeness
from synicix_core.training.grouping import Grouping

__all__ = ["GroupChoice", "Siblings"]

_MD5 = "training_task_md5_hash"
_A_FEW, _MOST = 50, 500
"""Candidates looked at: to see whether there are siblings at all, and at most."""
_CRUMBS = 8
"""No share is smaller than this part of a whole group: the last tasks of a sweep would go in ever smaller ones."""
_WORTH_A_TRIAL = 2
"""Siblings."""
_LONELY_SECONDS = 10.0
"""So long nobody looks again for the siblings of tasks that had none."""
_MOST_KEYS, _MOST_LONELY = 20_000, 1000
"""Keys of tasks that are kept, and keys without siblings above which those that are over are forgotten."""


@dataclass(frozen=True)
class Siblings:
    """Pending tasks that are like a claimed one.

    Attributes
    ----------
    key : str
        What they have in common.
    rows : dict of str to dict
        By task, the columns of its configs.
    total : int
        How many there are, perhaps estimated, counted as far as it matters.
    workers : int
        Workers that may want some of them.
    """

    key: str
    rows: Mapping[str, Mapping[str, Any]]
    total: int
    workers: int


class GroupChoice:
    """What one worker knows about groups.

    Parameters
    ----------
    queue : Queue
        The queue.
    fixed_size : int or None
        How many tasks somebody asked to train together; None leaves it to what was measured, 1 trains each by itself.
    lease_seconds : float
        A claim with an older heartbeat is nobody's.
    display : WorkerDisplay
        Who is told why tasks are trained one by one.
    workers : int
        Workers that were started together, whether they hold claims already or not.
    """

    def __init__(
        self, queue: Queue, fixed_size: int | None, lease_seconds: float, display: WorkerDisplay, workers: int = 1
    ) -> None:
        self.fixed_size = fixed_size
        self._queue = GroupQueue(queue)
        self._configs = ConfigRows(queue.tables)
        self._lease_seconds = lease_seconds
        self._workers = workers
        self._display = display
        self._grouping = Grouping()
        self._sizes: dict[str, int] = {}
        self._least: dict[str, int] = {}
        self._news: dict[str, str] = {}
        self._is_met = self._told_of_few = self._told_of_alone = False
        self._alone: set[str] = set()
        self._learned: dict[str, list[str]] = {}
        self._keys: dict[tuple[str, str, str], str | None] = {}
        self._keys_version = self._grouping.version
        self._lonely: dict[tuple[str, str], float] = {}
        self._alike_models: dict[str, tuple[tuple[int, int, str] | None, list[str]]] = {}

    def find(self, claim: Claim, row: Mapping[str, Any], restriction: str) -> Siblings | None:
        """Return the siblings of a claimed task; None where it is to be trained by itself.

        Parameters
        ----------
        claim : Claim
            The claim.
        row : mapping
            The columns of its configs.
        restriction : str
            SQL of a query that yields the md5s of the tasks to choose from.
        """
        if self.fixed_size == 1 or claim.task in self._alone:
            return None
        model = str(row["model_provider"])
        listed = self._configs.models_of(model, str(row["model_config_md5_hash"])) if self._may_have_any(row) else []
        self._learn(model, listed)
        self._grouping.learn(model, [row["model_class_params"]])
        key = self._key(row)
        if key is None:
            self._tell_of_few(claim.task, "only tasks of NNTrainer are trained as one")
            return None
        if self._sizes.get(key) == 1:
            return None
        if self._queue.is_alone(claim):
            self._tell_of_alone(claim.task)
            return None
        now = time.monotonic()
        if self._lonely.get((key, restriction), now) > now:
            return None
        siblings = self._look(key, row, self._likeness(claim, row, listed), restriction)
        if siblings is None:
            self._tell_of_few(claim.task, "no other pending task is like it")
            if len(self._lonely) >= _MOST_LONELY:
                self._lonely = {about: until for about, until in self._lonely.items() if until > now}
            self._lonely[key, restriction] = time.monotonic() + _LONELY_SECONDS
        return siblings

    def size(self, key: str) -> int | None:
        """Return how many tasks of this key are trained together; None if nobody looked yet."""
        return self._sizes.get(key)

    def is_worth_a_trial(self, siblings: Siblings) -> bool:
        """Tell whether to find out how many tasks go together: for two of them that takes longer than is gained."""
        return self.fixed_size is not None or siblings.total >= _WORTH_A_TRIAL

    def planned(self, key: str, task: str, size: int, reason: str, least: int = 2) -> None:
        """Take note of what was found out about a key; people are told once.

        Parameters
        ----------
        key, task : str
            Of which tasks, and one of them.
        size : int
            How many at a time; 1 is one by one.
        reason : str
            Why one by one, or why no more than that, or what is gained, if there is something to say.
        least : int
            Fewer tasks than that are faster one by one.
        """
        self._least[key] = least
        why = reason.rstrip(".")
        if size == 1 and why:
            how = f"Tasks like {task[:8]} are trained one by one"
            self._display.message(f"{how}{self._although()}: {why}.")
        elif self.fixed_size is not None and not why:
            size = self.fixed_size
        elif self.fixed_size is not None and size < self.fixed_size:
            self._display.message(f"Tasks like {task[:8]} are trained {size} at a time{self._although()}: {why}.")
        if size > 1:
            self._news[key] = f"are trained as one: {why}" if why and self.fixed_size is None else "are trained as one"
        self._sizes[key] = size

    def take_news(self, key: str) -> str:
        """Return what is to be said of the first group of a key: that it is one, and what is gained; then empty."""
        return self._news.pop(key, "")

    def note_size(self, key: str, task: str, size: int) -> None:
        """Tell people, once, that fewer tasks than they asked for are like one; what is left over in the end may be fewer."""
        if size >= self._sizes.get(key, self.fixed_size or 1):
            self._is_met = True
        else:
            self._tell_of_few(task, f"only {size - 1} other pending {'tasks are' if size > 2 else 'task is'} like it")

    def _tell_of_few(self, task: str, why: str) -> None:
        if self.fixed_size is not None and not (self._is_met or self._told_of_few):
            self._told_of_few = True
            self._display.message(f"{task[:8]}: {why}{self._although()}.")

    def _tell_of_alone(self, task: str) -> None:
        if not self._told_of_alone:
            self._told_of_alone = True
            self._display.message(
                f"{task[:8]}, and others like it, are trained one by one: an attempt ended with its worker or executor, "
                "and one of those that were trained together may be to blame."
            )

    def _although(self) -> str:
        return "" if self.fixed_size is None else f", although --fuse {self.fixed_size} was asked for"

    def shrink(self, key: str, task: str, number: int, why: str) -> None:
        """Halve the groups of a key, of which one of so many tasks came to a bad end."""
        size = max(min(self._sizes.get(key) or number, number) // 2, 1)
        self._sizes[key] = size
        how = "one by one" if size == 1 else f"{size} at a time"
        self._display.message(f"Tasks like {task[:8]} are trained {how} from now on: {why.rstrip('.')}.")

    def separate(self, task: str, row: Mapping[str, Any], first: Mapping[str, Any]) -> None:
        """Do not train a task together with those like `first` again."""
        self._grouping.separate(first, row)
        if self._grouping.key(first) == self._grouping.key(row):
            self._alone.add(task)

    def number(self, siblings: Siblings) -> int:
        """Return how many siblings to claim: none where the tasks are trained one by one, and a fair share at most."""
        size = self._sizes.get(siblings.key, 1)
        if self.fixed_size is not None:
            return size - 1
        share = math.ceil((siblings.total + 1) / max(siblings.workers, 1))
        least = self._least.get(siblings.key, 2)
        number = min(size, max(share, size // _CRUMBS, least), siblings.total + 1)
        return number - 1 if number >= least else 0

    def _may_have_any(self, row: Mapping[str, Any]) -> bool:
        key = self._key(row)
        return key is not None and self._sizes.get(key) != 1

    def _key(self, row: Mapping[str, Any]) -> str | None:
        """Return the key of a task; it is made of its configs alone, which never change, and of what was learned so far."""
        if self._keys_version != self._grouping.version or len(self._keys) >= _MOST_KEYS:
            self._keys = {}
            self._keys_version = self._grouping.version
        configs = (
            str(row["dataset_config_md5_hash"]),
            str(row["model_config_md5_hash"]),
            str(row["training_config_md5_hash"]),
        )
        if configs not in self._keys:
            self._keys[configs] = self._grouping.key(row)
        return self._keys[configs]

    def _learn(self, model: str, listed: list[str]) -> None:
        if self._learned.get(model) is not listed:
            self._learned[model] = listed
            configs = self._configs.models(listed).values()
            self._grouping.learn(model, (config["model_class_params"] for config in configs))

    def _likeness(self, claim: Claim, row: Mapping[str, Any], listed: list[str]) -> Likeness:
        model = str(row["model_provider"])
        part = self._grouping.part(model, row["model_class_params"])
        about = (self._grouping.version, id(listed), part)
        if self._alike_models.get(model, (None, []))[0] != about:
            configs = self._configs.models(listed).items()
            found = [md5 for md5, one in configs if self._grouping.part(model, one["model_class_params"]) == part]
            self._alike_models[model] = (about, found)
        return Likeness(
            task=claim.task,
            dataset_config=str(row["dataset_config_md5_hash"]),
            model_provider=model,
            model_configs=self._alike_models[model][1],
            providers=(row["trainer_provider"], row["optimizer_provider"], row["criterion_provider"]),
            batch_size=int(row["batch_size"]),
        )

    def _look(self, key: str, row: Mapping[str, Any], like: Likeness, restriction: str) -> Siblings | None:
        alive = self._queue.workers_alive(self._lease_seconds) if self.fixed_size is None else 1
        workers = max(alive, self._workers)
        size = self._sizes.get(key)
        # What matters of their number is whether each worker finds a whole group.
        enough = _A_FEW if size is None else size * workers
        limit = max(min(2 * enough, _MOST), _A_FEW)
        found = self._queue.candidates(like, restriction, limit)
        rows = self._alike(key, row, found)
        total = len(rows)
        if total < enough and self._queue.is_longer_than_a_look():
            found = self._queue.candidates(like, restriction, limit, whole_queue=True)
            rows = {**rows, **self._alike(key, row, found)}
            total = len(rows)
            if total < enough and len(found) == limit and rows:
                share = len(rows) / len(found)
                total = max(total, round(share * self._queue.count(like, restriction, math.ceil(enough / share))))
        return Siblings(key, rows, total, workers) if rows else None

    def _alike(self, key: str, row: Mapping[str, Any], candidates: list[Candidate]) -> dict[str, Mapping[str, Any]]:
        models = self._configs.models(candidate.model_config for candidate in candidates)
        trainings = self._configs.trainings(candidate.training_config for candidate in candidates)
        rows: dict[str, Mapping[str, Any]] = {}
        for candidate in candidates:
            model, training = models.get(candidate.model_config), trainings.get(candidate.training_config)
            if model is None or training is None or candidate.task in self._alone or candidate.task == row[_MD5]:
                continue
            theirs = {**row, **model, **training, _MD5: candidate.task}
            if self._key(theirs) == key:
                rows[candidate.task] = theirs
        return rows
