"""The doctor on variables and settings: typos, contradictions, time zones."""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.support.settings import SettingsError, load_settings
from local import variables
from local.machine import FAIL, OK, WARN, Found, Machine
from tests.local.machines import having

ROOT = Path(__file__).resolve().parents[2]


# Variables and settings

BUCKET = {"RANKMILL_WAREHOUSE": "s3://b/t", "RANKMILL_CATALOG_URI": "sqlite://"}


def test_a_typo_names_the_nearest_variable(here: Machine) -> None:
    assert variables.unknown_variables(having(here, RANKMILL_CONFIG="x")).level == OK
    found = variables.unknown_variables(having(here, RANKMILL_WAREHUOSE="x"))
    assert (found.level, found.seen) == (FAIL, "nobody reads RANKMILL_WAREHUOSE")
    assert "RANKMILL_WAREHUOSE: did you mean RANKMILL_WAREHOUSE?" in found.remedy
    for name in ("RANKMIL_CONFIG", "rankmill_config"):
        assert "RANKMILL_CONFIG?" in variables.unknown_variables(having(here, **{name: "x"})).remedy
    assert variables.unknown_variables(having(here, RANKMILL_QQ="x")).level == WARN


def read_in(text: str) -> set[str]:
    """Whole names of variables; a prefix that is completed elsewhere ends in an underscore."""
    return {name for name in re.findall(r"\bRANKMILL_\w*[A-Z]\b", text) if name.isupper()}


def test_the_list_of_variables_is_what_the_code_reads() -> None:
    folders = ("local", "jobs", "dags", "feature_store", "models", "benchmarks", "examples")
    places = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    places += [
        *(ROOT / "tests" / "faults").glob("*.py"),
        *(p for p in (ROOT / "docker").rglob("*") if p.is_file()),
    ]
    places += [ROOT / "Makefile"]
    home = ROOT / "local" / "variables.py"
    read = {name for path in places if path != home for name in read_in(path.read_text())}
    assert read == variables.VARIABLES


def test_readme_lists_every_variable() -> None:
    rows = [line for line in (ROOT / "README.md").read_text().splitlines() if line[:3] == "| `"]
    listed = {name for row in rows for name in read_in(row.split("|")[1])}
    assert listed == variables.VARIABLES


@pytest.mark.parametrize(
    ("environ", "level", "seen"),
    [
        ({"RANKMILL_DATA": "/no/such"}, FAIL, "RANKMILL_DATA=/no/such does not exist"),
        ({"RANKMILL_JOBS_DIR": "/no"}, FAIL, "RANKMILL_JOBS_DIR=/no does not exist"),
        ({"MLFLOW_TRACKING_URI": "file:///runs"}, FAIL, "scheme file, which the registry"),
        ({"MLFLOW_TRACKING_URI": "mlflow:5000"}, FAIL, "no scheme"),
        ({"MLFLOW_TRACKING_URI": "sqlite:///a.db"}, WARN, "a database of scheme sqlite"),
        ({"RANKMILL_WAREHOUSE": "/tables"}, WARN, "RANKMILL_CATALOG_URI is not"),
        ({"RANKMILL_CATALOG_URI": "sqlite://"}, WARN, "RANKMILL_WAREHOUSE is not"),
        (
            {"RANKMILL_WAREHOUSE": "s3a://b/t", "RANKMILL_CATALOG_URI": "sqlite://"},
            FAIL,
            "RANKMILL_WAREHOUSE: tables cannot lie in s3a://b/t",
        ),
        ({**BUCKET, "AWS_ENDPOINT_URL": "store:9000"}, FAIL, "store:9000 is no address"),
        (
            {**BUCKET, "AWS_SECRET_ACCESS_KEY": "secret"},
            FAIL,
            "AWS_SECRET_ACCESS_KEY is set and AWS_ACCESS_KEY_ID is not",
        ),
        (BUCKET, WARN, "checkpoints lie among the temporary files"),
        (
            {"RANKMILL_WAREHOUSE": "here", "RANKMILL_CATALOG_URI": "postgresql://h/catalog"},
            WARN,
            "another folder wherever",
        ),
        (
            {"RANKMILL_WAREHOUSE": "/t", "RANKMILL_CATALOG_URI": "postgres://u:secret@h/c"},
            FAIL,
            "has the scheme 'postgres'",
        ),
        (
            {"RANKMILL_START_HOUR": "2026-11-12T00", "RANKMILL_END_HOUR": "2026-11-11T00"},
            FAIL,
            "RANKMILL_START_HOUR comes after",
        ),
        ({"RANKMILL_SPARK_MASTER": "local[two]"}, FAIL, "'local[two]' is no Spark master"),
        ({"MLFLOW_HOST": "0.0.0.0"}, FAIL, "MLFLOW_HOST: MLflow would listen on 0.0.0.0"),  # noqa: S104
        ({"AIRFLOW__API__HOST": "10.0.0.1"}, FAIL, "Airflow would listen on 10.0.0.1"),
        ({"SPARK_HOME": "/opt/spark"}, WARN, "SPARK_HOME is set"),
    ],
)
def test_settings_that_cannot_work(
    here: Machine, environ: dict[str, str], level: str, seen: str
) -> None:
    found = variables.settings(having(here, **environ))
    assert found.level == level
    assert seen in found.seen
    assert "secret" not in found.sentence


def test_settings_that_work(here: Machine) -> None:
    found = having(
        here,
        RANKMILL_CONFIG=str(here.root / "requirements.txt"),
        RANKMILL_DATA=str(here.root),
        RANKMILL_WAREHOUSE="/tables",
        RANKMILL_CATALOG_URI="postgresql+psycopg2://u@h/catalog",
        MLFLOW_TRACKING_URI="http://127.0.0.1:5000",
        RANKMILL_START_HOUR="2026-11-11T00",
        RANKMILL_END_HOUR="2026-11-11T05",
        RANKMILL_SPARK_MASTER="local[2]",
    )
    assert variables.settings(found) == Found(OK, "nothing contradicts")
    bucket = {**BUCKET, "RANKMILL_SCRATCH": "/s", "AWS_ENDPOINT_URL": "http://store:9000"}
    assert variables.settings(having(here, **bucket)).level == OK
    for master in ("local", "local[*]", "local[4,3]", "spark://h:7077", "yarn", "k8s://h:443"):
        assert variables.settings(having(here, RANKMILL_SPARK_MASTER=master)).level == OK, master


def test_refusals_have_the_words_of_who_refuses(
    here: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANKMILL_CONFIG", "/no/such.yaml")
    with pytest.raises(SettingsError) as config:
        load_settings(argparse.Namespace(config=None))
    assert variables.settings(having(here, RANKMILL_CONFIG="/no/such.yaml")).seen == str(
        config.value
    )
    # Airflow must not be imported without a home of its own, so the DAGs' words are read.
    hour = variables.settings(having(here, RANKMILL_END_HOUR="2026-11-11")).seen
    assert hour.startswith("RANKMILL_END_HOUR='2026-11-11' is not an hour")
    assert hour.partition("'2026-11-11'")[2] in (ROOT / "dags" / "tasks.py").read_text()
    zone = variables.zones(having(here, RANKMILL_TIME_ZONE="Mars/Olympus"))
    words = f"{zone.seen}; {zone.remedy}".partition("'Mars/Olympus'")[2]
    assert words == " is no time zone; write it as Asia/Shanghai"
    assert words in (ROOT / "dags" / "business_day.py").read_text()


def test_the_zones_of_sources_load(here: Machine) -> None:
    found = variables.zones(replace(here, root=ROOT))
    assert (found.level, found.seen) == (OK, "Asia/Shanghai, Asia/Tokyo, UTC load")


def test_a_machine_without_zones(here: Machine) -> None:
    (here.root / "conf" / "mine.yaml").write_text("source:\n  options:\n    time_zone: No/Where\n")
    assert variables.zones(here).level == WARN
    (here.venv / "bin").mkdir(parents=True)
    (here.venv / "bin" / "python").symlink_to(sys.executable)
    found = variables.zones(here)
    assert found.level == FAIL
    assert "knows no time zone No/Where" in found.seen
