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
    process              : varchar(160)    # names the supervisor's process on its machine for ever
    device               : varchar(64)
    state                : enum('running', 'finished', 'released', 'failed', 'lost')
    started_at           : datetime(3)
    heartbeat_at         : datetime(3)
    epoch=null           : int32
    train_loss=null      : float64
    validation_loss=null : float64
    checkpoint_path=null : varchar(256)    # relative to model_save_dir
    error_kind=null      : varchar(32)     # what kind of thing went wrong
    error_cause=null     : varchar(16)     # the same for errors of the same cause
    error=null           : varchar(2047)
    error_stack=null     : <blob>
    index (state, heartbeat_at)
    """
