"""The embedded PostgreSQL, for real: up, three databases, recovery, down."""

from __future__ import annotations

import os
import signal
import stat
from pathlib import Path

import pytest

from local.database import DATABASES, Database, closed_paths
from local.processes import ProcessFile, marked, stop_everything
from local.stack import LocalError, Stack


def test_starts_keeps_data_recovers_and_stops(stack: Stack, base_env: dict[str, str]) -> None:
    file = ProcessFile(stack.state / "processes.json", stack.mark)
    database = Database(stack.state / "postgres", stack.short_folder, stack.logs / "postgres.log")
    try:
        server = database.start(file, base_env)
        there = database.query("postgres", "select datname from pg_database", base_env).split()
        assert set(DATABASES) <= set(there)
        assert database.query("postgres", "show listen_addresses", base_env).strip() == ""
        database.query("catalog", "create table kept as select 42 as answer", base_env)

        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
        server = database.start(file, base_env)
        assert database.query("catalog", "select answer from kept", base_env).strip() == "42"

        assert stop_everything(file) == 1
        assert server.wait() == 0, "a fast shutdown ends with status 0"
        assert marked(stack.mark) == []
        assert not (stack.short_folder / ".s.PGSQL.5432").exists()
        assert stat.S_IMODE(stack.short_folder.stat().st_mode) == 0o700
    finally:
        stop_everything(file)


def test_a_server_that_cannot_start_shows_its_words(stack: Stack, base_env: dict[str, str]) -> None:
    file = ProcessFile(stack.state / "processes.json", stack.mark)
    database = Database(stack.state / "postgres", stack.short_folder, stack.logs / "postgres.log")
    try:
        server = database.start(file, base_env)
        stop_everything(file)
        assert server.wait() == 0
        with (database.folder / "postgresql.conf").open("a") as handle:
            handle.write("no_such_setting = 1\n")
        with pytest.raises(LocalError, match=r"(?s)does not start.*no_such_setting"):
            database.start(file, base_env)
    finally:
        stop_everything(file)


def test_folders_closed_to_the_servers_user_are_found(project: Path) -> None:
    nobody = (65534, 65534)
    inner = project / "closed" / "open" / "inner"
    inner.mkdir(parents=True)
    for path in (project / "closed" / "open", inner):
        path.chmod(0o755)
    (project / "closed").chmod(0o755)
    assert closed_paths(inner, nobody) == []
    (project / "closed").chmod(0o700)
    inner.chmod(0o700)
    assert closed_paths(inner, nobody) == [project / "closed", inner]
