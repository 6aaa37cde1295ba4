"""What the executor says of a training that came to no result. It imports torch."""

from __future__ import annotations

import gc
from typing import Any

from synicix_core.training.failures import describe_failure, forget
from synicix_core.training.spec import TaskState

__all__ = ["failed", "interrupted"]


def interrupted(state: TaskState) -> dict[str, Any]:
    """Return the message of a training that was asked to stop."""
    return {"type": "interrupted", "epoch": state.epochs, "can_checkpoint": state.can_checkpoint}


def failed(error: BaseException, state: TaskState) -> dict[str, Any]:
    """Return the message of a training that raised, and let go of all that the exception holds."""
    failure = describe_failure(error)
    # Before the supervisor hears of it and sends the next task, which wants the memory.
    forget(error)
    gc.collect()
    return {
        "type": "error",
        "error": failure.message,
        "stack": failure.stack,
        "kind": failure.kind,
        "cause": failure.cause,
        "restart": failure.restart_executor,
        "can_split": state.can_split,
    }
