"""A server that others can reach starts only where it asks who they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from local.exposure import exposed, is_loopback

EVERY = "0.0.0.0"  # noqa: S104
API, SERVER = ("airflow", "api-server"), ("mlflow", "server")
MASTER = ("spark-class", "org.apache.spark.deploy.master.Master")
PASSWORDS = "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"
ADMINS = "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS"


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("127.3.2.1", True), ("localhost", True), ("::1", True), ("[::1]", True),
     (EVERY, False), ("::", False), ("10.0.0.1", False), ("localhost.example.org", False),
     ("spark-master", False)],
)  # fmt: skip
def test_what_only_this_machine_reaches(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


@pytest.mark.parametrize(
    ("environ", "command", "reason"),
    [
        ({}, API, "without passwords of yours"),
        ({"AIRFLOW__API__HOST": EVERY}, API, "without passwords of yours"),
        ({PASSWORDS: "p", ADMINS: "True"}, API, "everybody"),
        ({PASSWORDS: "p"}, API, ""),
        ({"AIRFLOW__CORE__AUTH_MANAGER": "theirs"}, API, ""),
        ({"AIRFLOW__API__HOST": "127.0.0.1"}, API, ""),
        ({}, (*API, "--host", "::1"), ""),
        ({}, SERVER, ""),
        ({"MLFLOW_HOST": EVERY}, SERVER, "let everybody move aliases"),
        ({"MLFLOW_HOST": "127.0.0.1"}, (*SERVER, "--host", EVERY), "let everybody move aliases"),
        ({"MLFLOW_HOST": EVERY}, (*SERVER, "--app-name=basic-auth"), ""),
        ({"MLFLOW_HOST": EVERY}, ("/opt/bin/mlflow", "server"), "let everybody move aliases"),
        ({}, MASTER, "run what anybody submits"),
        ({"SPARK_LOCAL_IP": "127.0.0.1"}, (*MASTER, "--host", "spark-master"), "run what anybody"),
        ({"SPARK_LOCAL_IP": "127.0.0.1"}, MASTER, ""),
        ({}, ("bash", "-c", "true"), ""),
        ({}, (), ""),
    ],
)  # fmt: skip
def test_who_may_start(environ: dict[str, str], command: tuple[str, ...], reason: str) -> None:
    found = exposed(environ, command)
    assert reason in found
    assert bool(found) == bool(reason)


@pytest.mark.parametrize(("said", "may"), [("true", True), ("false", False)])
def test_spark_with_a_secret_may_start(tmp_path: Path, said: str, may: bool) -> None:
    (tmp_path / "spark-defaults.conf").write_text(f"spark.authenticate {said}\n")
    assert (exposed({"SPARK_CONF_DIR": str(tmp_path)}, MASTER) == "") is may
