"""Airflow as in tests/dags, over the real jobs and one real stack."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.dags.conftest import HOME, IGNORED, REPOSITORY, initdb
from tests.e2e.stack import FIRST, Running, running

_KEPT_OUT = ("AIRFLOW", "PATH", "PYTEST")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let Airflow's own deprecations pass, in these tests only."""
    for item in items:
        if item.path.is_relative_to(REPOSITORY / "tests" / "e2e"):
            for rule in IGNORED:
                item.add_marker(pytest.mark.filterwarnings(rule))


@pytest.fixture(scope="session")
def run(pytestconfig: pytest.Config) -> Running:
    """The stack, bootstrapped; stopped when the session ends."""
    made = running()
    if not getattr(pytestconfig, "_rankmill_stack", False):
        pytestconfig._rankmill_stack = True
        pytestconfig.add_cleanup(made.close)
    return made


@pytest.fixture(scope="module")
def airflow(run: Running) -> Iterator[Path]:
    """Airflow's own database, and this process's environment as the scheduler's would be."""
    database = HOME / "airflow.db"
    if not database.exists():
        initdb()
    with pytest.MonkeyPatch.context() as patch:
        for key, value in run.env.items():
            if not key.startswith(_KEPT_OUT):
                patch.setenv(key, value)
        patch.setenv("RANKMILL_START_HOUR", FIRST)
        spark = json.dumps({"conn_type": "spark", "host": "local[2]"})
        patch.setenv("AIRFLOW_CONN_SPARK_DEFAULT", spark)
        yield database
