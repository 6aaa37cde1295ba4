"""Signals act in time, whatever the main thread is doing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from synicix_core.runner.interruption import Interruption

# The main thread sits in C code that no signal handler of Python's gets into.
BUSY = """
import ctypes, os, sys, time
from synicix_core.runner.interruption import Interruption
stop = Interruption({grace}, exits={exits})
with stop.handled(lambda: print("first", flush=True), lambda: print("last", flush=True)):
    print("ready", flush=True)
    libc = ctypes.CDLL(None)
    begun = time.monotonic()
    while time.monotonic() - begun < {seconds}:
        libc.poll(None, 0, 300)
print("after", stop(), flush=True)
"""


def start(grace: float, seconds: float, *, exits: bool = True) -> subprocess.Popen[str]:
    code = BUSY.format(grace=grace, seconds=seconds, exits=exits)
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "ready\n"
    return child


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_is_passed_on_at_once_and_the_process_ends_in_time(number):
    child = start(grace=1.0, seconds=30)
    begun = time.monotonic()
    child.send_signal(number)
    assert child.stdout.readline() == "first\n"
    assert time.monotonic() - begun < 0.5
    assert child.wait(10) == 75
    assert 0.9 < time.monotonic() - begun < 3
    assert child.stdout.read() == "last\n"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_second_signal_ends_the_process_at_once(number, code):
    child = start(grace=30.0, seconds=30)
    child.send_signal(signal.SIGTERM)
    assert child.stdout.readline() == "first\n"
    if number == signal.SIGTERM:
        time.sleep(1.2)
    child.send_signal(number)
    assert child.wait(5) == code


def test_a_scheduler_that_says_it_twice_does_not_cut_the_time_to_stop():
    child = start(grace=30.0, seconds=2)
    for _ in range(3):
        child.send_signal(signal.SIGTERM)
        time.sleep(0.1)
    assert child.stdout.read() == "first\nafter True\n"
    assert child.wait(5) == 0


def test_a_notebook_s_process_is_never_ended():
    child = start(grace=0.3, seconds=1.5, exits=False)
    child.send_signal(signal.SIGINT)
    assert child.stdout.read() == "first\nlast\nafter True\n"
    assert child.wait(5) == 0


def test_handlers_and_descriptors_are_put_back():
    before = (
        signal.getsignal(signal.SIGTERM),
        signal.getsignal(signal.SIGINT),
        len(list(Path("/proc/self/fd").iterdir())),
    )
    stop = Interruption(5.0, exits=False)
    with stop.handled(lambda: None, lambda: None):
        os.kill(os.getpid(), signal.SIGTERM)
        deadline = time.monotonic() + 5
        while not stop() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert stop.signal == signal.SIGTERM
        assert 0 < stop.seconds_left <= 5
    assert before == (
        signal.getsignal(signal.SIGTERM),
        signal.getsignal(signal.SIGINT),
        len(list(Path("/proc/self/fd").iterdir())),
    )
