"""Settings: one place, everything on loopback and inside the state folder."""

from __future__ import annotations

import json
import os
import socket
import stat
from pathlib import Path

import pytest

from local.machine import available_memory
from local.record import Record, data_fingerprint, holder, only_one, watched_hours
from local.settings import environment, write_spark_settings
from local.stack import LocalError, Ports, Stack, choose_ports, open_stack

PORTS = Ports(mlflow=5001, airflow=8081)


def test_source_chooses_the_configuration(project: Path) -> None:
    simulator = open_stack("simulator", None, root=project)
    assert simulator.config.name == "demo.yaml"
    assert simulator.data_folder == simulator.state / "data"
    kuairand = open_stack("kuairand", str(project), root=project)
    assert kuairand.config.name == "kuairand.yaml"
    assert kuairand.data_folder == project
    assert kuairand.state != simulator.state


def test_an_unknown_source_names_those_that_exist(project: Path) -> None:
    with pytest.raises(LocalError, match=r"conf/nope\.yaml does not exist.*simulator, kuairand"):
        open_stack("nope", None, root=project)
    with pytest.raises(LocalError, match="DATA=/no/such/folder does not exist"):
        open_stack("kuairand", "/no/such/folder", root=project)


def test_a_taken_port_is_passed_over() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        if port > 65000:
            pytest.skip("the system gave one of the last ports")
        ports = choose_ports({"mlflow": port, "airflow": port})
    assert port < ports.mlflow < ports.airflow


def test_everything_listens_on_loopback_and_agrees(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "CeleryExecutor")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://somewhere.else")
    monkeypatch.setenv("SPARK_HOME", "/opt/another-spark")
    monkeypatch.setenv("RANKMILL_TIME_ZONE", "Europe/Paris")
    assert "RANKMILL_TIME_ZONE" not in environment(stack, PORTS)
    env = environment(stack, PORTS, ("2026-11-11T03", "2026-11-11T05"), "Asia/Shanghai")
    assert env["RANKMILL_TIME_ZONE"] == "Asia/Shanghai"
    assert env["AIRFLOW__CORE__PLUGINS_FOLDER"] == f"{stack.root}/dags/plugins"
    assert env["AIRFLOW__CORE__EXECUTOR"] == "LocalExecutor"
    assert env["MLFLOW_TRACKING_URI"] == "http://127.0.0.1:5001"
    assert "SPARK_HOME" not in env
    assert env["AIRFLOW__API__HOST"] == "127.0.0.1"
    assert env["AIRFLOW__API__BASE_URL"] == "http://127.0.0.1:8081"
    assert env["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] == "http://127.0.0.1:8081/execution/"
    assert (env["RANKMILL_START_HOUR"], env["RANKMILL_END_HOUR"]) == (
        "2026-11-11T03",
        "2026-11-11T05",
    )
    assert json.loads(env["AIRFLOW_CONN_SPARK_DEFAULT"])["conn_type"] == "spark"
    assert all(isinstance(value, str) for value in env.values())
    for key in ("AIRFLOW_HOME", "RANKMILL_WAREHOUSE", "MPLCONFIGDIR", "SPARK_CONF_DIR", "TMPDIR"):
        assert Path(env[key]).is_relative_to(stack.state), key


def test_the_folder_of_metrics_is_handed_on_whole(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("RANKMILL_METRICS", raising=False)
    assert "RANKMILL_METRICS" not in environment(stack, PORTS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RANKMILL_METRICS", "metrics")
    assert environment(stack, PORTS)["RANKMILL_METRICS"] == str(tmp_path / "metrics")


def test_a_long_path_gets_a_short_socket_folder(stack: Stack) -> None:
    assert stack.short_folder.is_relative_to(stack.state)
    deep = Stack(stack.root, "simulator", stack.config, None, stack.state / ("long" * 20))
    assert len(str(deep.short_folder / ".s.PGSQL.5432.lock")) < 107
    assert (
        deep.short_folder
        != Stack(
            stack.root, "simulator", stack.config, None, stack.state / ("more" * 20)
        ).short_folder
    )


def test_secrets_are_random_lasting_and_private(stack: Stack, project: Path) -> None:
    first = environment(stack, PORTS)["AIRFLOW__API_AUTH__JWT_SECRET"]
    assert len(first) >= 64
    assert environment(stack, PORTS)["AIRFLOW__API_AUTH__JWT_SECRET"] == first
    other = open_stack("kuairand", None, root=project)
    assert environment(other, PORTS)["AIRFLOW__API_AUTH__JWT_SECRET"] != first
    assert stat.S_IMODE((stack.state / "secrets.json").stat().st_mode) == 0o600


def test_spark_gets_its_settings_from_the_state_folder(stack: Stack) -> None:
    folder = write_spark_settings(stack)
    lines = (folder / "spark-defaults.conf").read_text().splitlines()
    settings = dict(line.split(" ", 1) for line in lines)
    assert settings["spark.sql.session.timeZone"] == "UTC"
    assert settings["spark.driver.bindAddress"] == "127.0.0.1"
    assert "-XX:+UseSerialGC" in settings["spark.driver.defaultJavaOptions"]
    assert 1024 <= int(settings["spark.driver.memory"].removesuffix("m")) <= 4096
    assert "rootLogger.level = warn" in (folder / "log4j2.properties").read_text()


def test_the_last_three_hours_are_airflows() -> None:
    before, hours = watched_hours("2026-11-04T00", "2026-11-11T01")
    assert before == "2026-11-10T22"
    assert hours == ["2026-11-10T23", "2026-11-11T00", "2026-11-11T01"]
    with pytest.raises(LocalError, match="at least 4 hours"):
        watched_hours("2026-11-11T00", "2026-11-11T02")


def test_other_data_in_the_same_place_is_noticed(project: Path) -> None:
    log = project / "events.csv"
    log.write_text("a\n")
    stack = open_stack("kuairand", str(project), root=project)
    stack = Stack(stack.root, stack.source, stack.config, log, stack.state)
    before = data_fingerprint(stack)
    assert data_fingerprint(stack) == before
    log.write_text("a\nb\n")
    assert data_fingerprint(stack) != before


def test_a_record_lasts_and_a_broken_one_says_what_to_do(stack: Stack) -> None:
    record = Record(stack)
    assert record.get("bootstrap") is None
    record.put("bootstrap", ["a", "b"])
    assert Record(stack).get("bootstrap") == ["a", "b"]
    record.path.write_text("{")
    with pytest.raises(LocalError, match="make clean STATE=yes"):
        Record(stack)


def test_a_second_run_is_turned_away(stack: Stack) -> None:
    second = pytest.raises(LocalError, match="Another make run")
    with only_one(stack), second, only_one(stack):
        raise AssertionError("both runs hold the folder")
    assert holder(stack) is None
    with only_one(stack):
        assert holder(stack) == os.getpid()
    assert available_memory() > 0
