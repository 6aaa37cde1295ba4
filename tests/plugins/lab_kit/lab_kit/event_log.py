"""Write each event as one line of JSON to the file that LAB_KIT_EVENTS names."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import Any

__all__ = ["write"]


def write(event: Any) -> None:
    """Append `event`; do nothing where no file is named."""
    file = os.environ.get("LAB_KIT_EVENTS")
    if not file:
        return
    # Observers are promised to run in the supervisor, which never imports torch.
    line = {"event": type(event).__name__, "pid": os.getpid(), "torch": "torch" in sys.modules}
    with Path(file).open("a") as log:
        log.write(json.dumps(line | dataclasses.asdict(event), default=str) + "\n")
