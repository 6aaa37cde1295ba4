"""Batches are copied to a GPU by a stream of their own, at most two ahead; the streams are fakes."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from synicix_core.training import prefetch
from synicix_core.training.prefetch import Copies

CUDA = torch.device("cuda")


class Streams:
    """What is asked of torch's streams, in order."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.inside: str = "compute"

    def stream(self, name: str) -> Any:
        log = self.log

        class Stream:
            def __repr__(self) -> str:
                return name

            def wait_stream(self, other: Any) -> None:
                log.append(f"{name} waits for {other}")

            def record_event(self) -> Any:
                number = sum(line.startswith("event") for line in log) + 1
                log.append(f"event {number}")

                class Event:
                    def synchronize(self) -> None:
                        log.append(f"host waits for {number}")

                return Event()

        return Stream()

    def within(self, stream: Any) -> Any:
        streams = self

        class Within:
            def __enter__(self) -> None:
                streams.inside = str(stream)

            def __exit__(self, *_: object) -> None:
                streams.inside = "compute"

        return Within()


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> Streams:
    made = Streams()
    compute, copy = made.stream("compute"), made.stream("copy")
    monkeypatch.setattr(torch.cuda, "Stream", lambda _: copy)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: compute)
    monkeypatch.setattr(torch.cuda, "stream", made.within)

    def move(value: Any, _device: torch.device) -> Any:
        made.log.append(f"moved in {made.inside}")
        return value

    monkeypatch.setattr(prefetch, "move", move)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda _, stream: made.log.append(f"kept for {stream}"))
    return made


def test_a_batch_is_copied_beside_the_computations_which_wait_for_it(streams: Streams) -> None:
    batch = [torch.zeros(2), {"left": torch.zeros(2)}]
    assert Copies(CUDA)(batch) is batch
    assert streams.log == [
        "event 1",
        "moved in copy",
        "compute waits for copy",
        "kept for compute",
        "kept for compute",
    ]


def test_the_host_is_two_batches_ahead_at_most(streams: Streams) -> None:
    copies = Copies(CUDA)
    for _ in range(5):
        copies(torch.zeros(2))
    assert [line for line in streams.log if line.startswith(("event", "host"))] == [
        "event 1",
        "event 2",
        "event 3",
        "host waits for 1",
        "event 4",
        "host waits for 2",
        "event 5",
        "host waits for 3",
    ]


def test_what_is_there_is_not_copied(streams: Streams, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefetch, "_is_there", lambda *_: True)
    batch = [torch.zeros(2), torch.zeros(2)]
    assert Copies(CUDA)(batch) is batch
    assert streams.log == ["moved in compute"]


def test_a_batch_counts_as_there_when_all_of_it_is() -> None:
    cpu, meta = torch.zeros(2), torch.zeros(2, device="meta")
    assert prefetch._is_there([cpu, {"left": cpu}], torch.device("cpu"))
    assert not prefetch._is_there([cpu, meta], torch.device("cpu"))


def test_elsewhere_there_are_no_streams() -> None:
    batch = {"left": torch.zeros(2), "name": "a"}
    copied = Copies(torch.device("meta"))(batch)
    assert copied["left"].device.type == "meta" and copied["name"] == "a"
