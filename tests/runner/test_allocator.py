"""An executor on the CPU keeps the memory that it frees, unless its user has said how memory is to be handled."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

# Page faults of forty times 4 MB, made, written to and freed, before and after.
COUNT = """
import resource
from synicix_core.runner.allocator import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(40):
        bytes(bytearray(b"x") * 4_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

before = faults()
done = keep_freed_memory()
faults()
print(done, before, faults())
"""

with_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the parameters are those of glibc")


def count(**variables: str) -> tuple[bool, int, int]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    output = subprocess.run(
        [sys.executable, "-c", COUNT], env=environment | variables, capture_output=True, text=True, check=True
    ).stdout.split()
    return output[0] == "True", int(output[1]), int(output[2])


@with_glibc
def test_what_was_freed_is_used_again_without_page_faults():
    done, before, after = count()
    assert done
    assert before > 20_000
    assert after < before / 100


@pytest.mark.parametrize(
    "variables", [{"MALLOC_TRIM_THRESHOLD_": "131072"}, {"GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=131072"}]
)
def test_what_the_user_set_stays(variables):
    done, before, after = count(**variables)
    assert not done
    assert after > before / 2


def test_a_worker_on_the_cpu_does_it():
    code = (
        "import synicix_core.runner.device as device\n"
        "device.keep_freed_memory = lambda: print('kept')\n"
        "print(device.use_device('cpu', 1))"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output == "kept\n('cpu', 'CPU')\n"
