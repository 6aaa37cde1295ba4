"""What docs/slurm.md says is what the scripts do; its steps are typed as they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap

from tests.deploy.slurm_cluster import SCRIPTS

WORKER = SCRIPTS / "worker.sbatch"
PAGE = (SCRIPTS.parents[1] / "docs" / "slurm.md").read_text()


def steps_of_the_page(language: str) -> list[str]:
    """Return the blocks of this language among the steps to the first array."""
    steps = PAGE.partition("## The first array")[2].partition("\n## ")[0]
    return [textwrap.dedent(block) for block in re.findall(rf"^ *```{language}\n(.*?)^ *```$", steps, re.M | re.S)]


def test_with_the_steps_of_the_page_a_worker_finds_server_store_and_password(tmp_path):
    (configuration,) = steps_of_the_page("json")
    (credentials,) = [block for block in steps_of_the_page("sh") if "database.password" in block]
    (tmp_path / "datajoint.json").write_text(configuration)
    typed = f"umask 022\n{credentials}"
    subprocess.run(["bash", "-e", "-c", typed], cwd=tmp_path, input="very hidden\n", text=True, check=True)
    secrets = tmp_path / ".secrets"
    modes = {path.name: path.stat().st_mode & 0o777 for path in (secrets, *secrets.iterdir())}
    assert modes == {".secrets": 0o700, "database.user": 0o600, "database.password": 0o600}
    ask = """
from synicix_core.database import STORE
from synicix_core.database.server import configured_server, datajoint_config

print(configured_server(), datajoint_config().get_store_spec(STORE)["location"])
assert datajoint_config().database.password.get_secret_value() == "very hidden"
"""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DJ_")}
    asked = subprocess.run(
        [sys.executable, "-c", ask], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
    )
    assert asked.returncode == 0, asked.stderr
    assert asked.stdout.strip() == "PostgreSQL at db.example.org:5432 as user ann /shared/lab/histories"


def test_the_page_names_every_variable_and_no_other():
    variables = dict(re.findall(r"^: \"\$\{(\w+):=(.*)\}\"$", WORKER.read_text(), re.M))
    table = PAGE.partition("| variable |")[2].partition("\n\n")[0]
    assert set(re.findall(r"`(SYNICIX_\w+)`", table)) == set(variables)
    numbers = {name: value for name, value in variables.items() if value.isdigit()}
    assert set(numbers) == {"SYNICIX_RESTARTS", "SYNICIX_REQUEUES", "SYNICIX_PAUSE"}
    assert {name: table.partition(f"| `{name}` | ")[2].partition(" |")[0] for name in numbers} == numbers
    (signal,) = re.findall(r"--signal=TERM@(\d+)`", PAGE.partition("## What happens when")[2].partition("- **")[0])
    assert f"--signal=TERM@{signal}\n" in WORKER.read_text()
