"""TrainingAttempt: every try of a worker at a task."""

from __future__ import annotations

__all__ = ["TrainingAttempt"]


class TrainingAttempt:
    """One try of one worker at one task. A running attempt whose heartbeat is fresh is a claim."""

    definition = """
    # One try of one worker at one task
    -> TrainingTask
    attempt              : int32
    ---
    worker               : char(32)        # an incarnation of a worker, never a host name
    host                 : varchar(255)
    pid                  : int32
    device               : varchar(64)
    state                : enum('running', 'finished', 'released', 'failed', 'lost')
    started_at           : datetime(3)
    heartbeat_at         : datetime(3)
    epoch=null           : int32
    train_loss=null      : float64
    validation_loss=null : float64
    checkpoint_path=null : varchar(256)    # relative to model_save_dir
    error=null           : varchar(2047)
    error_stack=null     : <blob>
    index (state, heartbeat_at)
    """
