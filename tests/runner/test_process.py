"""The name of a process: what proves that it is gone, and what proves nothing."""

from __future__ import annotations

import os
import subprocess
import sys

from synicix_core.runner.process import is_gone, name_of, namespace


def test_this_process_is_not_gone():
    assert name_of()
    assert name_of().startswith(namespace() + "/")
    assert not is_gone(name_of())


def test_a_process_that_ended_is_gone_and_so_is_one_that_nobody_has_looked_at_since():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    name = name_of(child.pid)
    assert not is_gone(name)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert is_gone(name), "it is a zombie, which cannot act any more"
    child.wait()
    assert is_gone(name)


def test_a_number_that_was_given_out_again_is_another_process():
    place, pid, began = name_of().rsplit("/", 2)
    assert is_gone(f"{place}/{pid}/{int(began) - 1}")


def test_nothing_is_known_of_other_machines_and_containers():
    _, pid, began = name_of().rsplit("/", 2)
    assert not is_gone(f"another-boot:4026531836/{pid}/{int(began) - 1}")
    assert not is_gone("")
    assert not is_gone("nonsense")
    assert not is_gone(f"{namespace()}/x/1")
