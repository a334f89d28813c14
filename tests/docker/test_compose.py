"""The container files, as far as they can be checked without an engine."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
DOCKER = REPOSITORY / "docker"
COMPOSE: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
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
        "migrate",
        "airflow-api",
        "airflow-scheduler",
        "airflow-dag-processor",
        "mlflow",
        "spark-master",
        "spark-worker",
    }
    for name, service in SERVICES.items():
        assert re.fullmatch(r"[a-z]+:\d+(\.\d+)+(-\w+)?", service["image"]), name
        assert service.get("user") != "root" and not service.get("privileged"), name
        assert name == "migrate" or "healthcheck" in service, name
        for port in service.get("ports", []):
            assert port.startswith("${PUBLISH_ADDRESS:-127.0.0.1}:"), name
        for needed, how in service.get("depends_on", {}).items():
            assert needed in SERVICES
            assert how["condition"] in ("service_healthy", "service_completed_successfully")
    assert SERVICES["postgres"]["user"] == "postgres"


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
    programs = {service["command"][0] for service in SERVICES.values() if "command" in service}
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


def entrypoint(folder: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", DOCKER / "entrypoint.sh", "env", "-0"],  # noqa: S607
        env={"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        | {"RANKMILL_SECRETS_DIR": str(folder), **settings},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_entrypoint_builds_addresses_from_secret_files(tmp_path: Path) -> None:
    for name in COMPOSE["secrets"]:
        (tmp_path / name).write_text(f"{name}/@:\n")
    passwords = tmp_path / "passwords.json"
    result = entrypoint(
        tmp_path,
        POSTGRES_HOST="postgres",
        POSTGRES_USER="rankmill",
        AIRFLOW_HOME=str(tmp_path),
        AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE=str(passwords),
    )
    assert result.returncode == 0, result.stderr
    values = dict(item.split("=", 1) for item in result.stdout.split("\0") if item)
    server = "postgresql+psycopg://rankmill:postgres_password%2F%40%3A@postgres:5432"
    assert values["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] == f"{server}/airflow"
    assert values["MLFLOW_BACKEND_STORE_URI"] == f"{server}/mlflow"
    assert values["RANKMILL_CATALOG_URI"] == f"{server}/catalog"
    assert values["AIRFLOW__API_AUTH__JWT_SECRET"] == "airflow_jwt_secret/@:"  # noqa: S105
    assert json.loads(passwords.read_text()) == {"admin": "airflow_admin_password/@:"}
    assert passwords.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("content", [None, ""])
def test_a_missing_secret_ends_the_container_with_its_name(
    tmp_path: Path, content: str | None
) -> None:
    if content is not None:
        (tmp_path / "postgres_password").write_text(content)
    result = entrypoint(tmp_path, POSTGRES_HOST="postgres", POSTGRES_USER="rankmill")
    assert result.returncode == 2
    assert "docker/secrets/postgres_password" in result.stderr
