"""Which epoch was the best, and whether to go on."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["EarlyStopping"]


@dataclass
class EarlyStopping:
    """Follow one number over the epochs.

    Parameters
    ----------
    patience : int or None
        Stop after so many epochs in a row without an improvement; None never stops.
    min_delta : float
        What counts as an improvement for the patience: more than so much. The best epoch is the best one in any case.
    higher_is_better : bool
        Direction of the number.

    Attributes
    ----------
    best, best_epoch : float and int, or None
        The best value and its epoch; None as long as no value was finite.
    waited : int
        Epochs since the last improvement.
    """

    patience: int | None
    min_delta: float
    higher_is_better: bool
    best: float | None = None
    best_epoch: int | None = None
    reference: float | None = None
    waited: int = 0

    def update(self, value: float, epoch: int) -> bool:
        """Take the value of an epoch and tell whether it is the best so far. A value that is not finite never is."""
        finite = math.isfinite(value)
        if finite and self._gain(value, self.reference) > self.min_delta:
            self.reference = value
            self.waited = 0
        else:
            self.waited += 1
        if not finite or self._gain(value, self.best) <= 0:
            return False
        self.best, self.best_epoch = value, epoch
        return True

    @property
    def exhausted(self) -> bool:
        """Whether the patience is used up."""
        return self.patience is not None and self.waited >= self.patience

    def state_dict(self) -> dict[str, Any]:
        """Return everything that changes."""
        return {key: value for key, value in asdict(self).items() if key in _CHANGING}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` returned."""
        for key in _CHANGING:
            setattr(self, key, state[key])

    def _gain(self, value: float, other: float | None) -> float:
        if other is None:
            return math.inf
        return value - other if self.higher_is_better else other - value


_CHANGING = ("best", "best_epoch", "reference", "waited")
