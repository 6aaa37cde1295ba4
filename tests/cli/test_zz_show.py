import subprocess, sys
from tests.cli.test_gc import tasks
import pytest
pytestmark = pytest.mark.database
def test_show(pipeline, tasks, capsys):
    for a in (["gc"], ["gc", "--yes"], ["gc"]):
        r = subprocess.run([sys.executable, "-m", "synicix_core.cli", *a], capture_output=True, text=True)
        with capsys.disabled(): print("$", a, r.returncode); print(r.stdout); print("ERR:", r.stderr)
