"""Airflow for these tests: a home and a SQLite database of their own, made before its import."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
HOME = Path(tempfile.mkdtemp(prefix="rankmill-airflow-"))
atexit.register(shutil.rmtree, HOME, ignore_errors=True)

os.environ.update(
    {
        "AIRFLOW_HOME": str(HOME),
        "AIRFLOW__CORE__DAGS_FOLDER": str(REPOSITORY / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(REPOSITORY / "dags" / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__MIN_SERIALIZED_DAG_UPDATE_INTERVAL": "0",
        "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{HOME / 'airflow.db'}",
        "AIRFLOW_CONN_SPARK_DEFAULT": '{"conn_type": "spark", "host": "local[1]"}',
    }
)

# Airflow's own imports warn about its dependencies, once, before any test runs.
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import airflow.api_fastapi.app
    import airflow.providers.apache.spark.operators.spark_submit  # noqa: F401
    from airflow.dag_processing.dagbag import DagBag
    from airflow.sdk import DAG
    from airflow.utils.db import initdb


IGNORED = (
    # Airflow reads .airflowignore with a pathspec class that pathspec is retiring.
    "ignore:GitWildMatchPattern:DeprecationWarning",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let Airflow's own deprecations pass, in these tests only."""
    for item in items:
        if item.path.is_relative_to(REPOSITORY / "tests" / "dags"):
            for rule in IGNORED:
                item.add_marker(pytest.mark.filterwarnings(rule))


def alive(pid: int) -> bool:
    """Whether ``pid`` still runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture(scope="session")
def database() -> Path:
    """Airflow's database, empty; returns the file."""
    initdb()
    return HOME / "airflow.db"


@pytest.fixture(scope="session")
def dag_bag(database: Path) -> DagBag:  # noqa: ARG001
    """Every DAG of the repository."""
    return DagBag(REPOSITORY / "dags")


def without_deadline(dag: DAG) -> DAG:
    """``dag`` for `DAG.test`, which in Airflow 3.3 cannot end a successful run that has a deadline:
    it looks the alert up by an id that only the scheduler's copy of the DAG has."""
    dag.deadline = None
    return dag


@pytest.fixture
def jobs_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder that DAGs take their jobs from."""
    folder = tmp_path / "jobs"
    folder.mkdir()
    monkeypatch.setenv("RANKMILL_JOBS_DIR", str(folder))
    yield folder
