"""The skew check on a real store: what was logged as it is, and with skew put in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from feature_store.services import feature_service
from models.registry import Registry
from tests.jobs.conftest import HOUR, Project, Result
from tests.jobs.gbdt_day import HOURS, ROWS, fill, samples

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning")

TWO = HOURS[-2:]
COLUMNS = list(feature_service("ranking").columns())


@pytest.fixture
def served(project: Project) -> Project:
    """A store with the samples of two hours."""
    fill(project, "samples", samples, TWO)
    return project


def log(project: Project, *, keys: tuple[str, ...] = ("sample_id",), **replaced: pa.Array) -> Path:
    """What a ranker logged of both hours: the samples' features, some of them replaced."""
    rows = pa.concat_tables([samples(hour) for hour in TWO])
    for name, column in replaced.items():
        rows = rows.set_column(rows.schema.get_field_index(name), name, column)
    folder = project.folder / "served"
    folder.mkdir(exist_ok=True)
    pq.write_table(rows.select([*keys, *COLUMNS]), folder / "log.parquet")
    return folder


def check(project: Project, path: Path, *given: str) -> Result:
    # No MLflow: what it is given below is a test of its own.
    given = ("--from-hour", TWO[0], "--to-hour", TWO[1], "--logged", str(path), *given)
    return project.run("check_skew", *given, "--tracking-uri", "")


def test_what_was_served_is_what_is_recomputed(served: Project) -> None:
    result = check(served, log(served), "--fail-above", "0")
    assert (result.code, result.summary["status"]) == (0, "done"), result.err
    assert f"0 of {len(COLUMNS)} features differ" in result.out
    details = result.summary["details"]
    assert (details["pairs"], details["without_sample"], details["not_logged"]) == (2 * ROWS, 0, 0)
    assert (details["worst"], details["not_in_log"]) == ([], [])


def skewed() -> dict[str, pa.Array]:
    """Every tenth value of one feature is off by a half; another was not there for one row."""
    values = np.tile(np.arange(ROWS, dtype=np.float32) % 4, 2)
    values[::10] += 0.5
    scene = pa.array(["home"] + [None] * (2 * ROWS - 1), pa.string())
    return {"item_ctr_24h": pa.array(values), "scene": scene}


def test_skew_put_in_is_found_and_refused(served: Project) -> None:
    page = served.folder / "skew.html"
    path = log(served, **skewed())
    result = check(served, path, "--fail-above", "0.05", "--page", str(page))
    assert (result.code, result.summary["status"]) == (3, "refused")
    assert "1 of" in result.summary["message"]
    assert "item_ctr_24h 10.00%" in result.summary["message"]
    worst = result.summary["details"]["worst"]
    assert [(w["feature"], w["share"]) for w in worst] == [
        ("item_ctr_24h", 0.1), ("scene", 1 / (2 * ROWS)),
    ]  # fmt: skip
    assert (worst[0]["mean"], worst[0]["largest"]) == (pytest.approx(0.05), 0.5)
    assert worst[1]["only_logged"] == 1
    lines = [line for line in result.out.splitlines() if "item_ctr_24h" in line]
    assert "10.00%" in lines[0]
    text = page.read_text()
    assert "<svg" in text
    assert text.index("item_ctr_24h</td>") < text.index("scene</td>")
    mild = check(served, path, "--fail-above", "0.1")
    assert (mild.code, mild.summary["status"]) == (0, "done"), "not above the limit"


def test_impressions_are_paired_by_request_too(served: Project) -> None:
    """The samples have no request ids here, so nothing is comparable, and that is no success."""
    result = check(served, log(served, keys=("request_id", "target_id", "user_id")))
    assert (result.code, result.summary["status"]) == (3, "refused")
    assert "none of the 80 logged rows is an impression" in result.summary["message"]


def test_other_hours_of_the_log_are_left_out(served: Project) -> None:
    path = log(served)
    result = served.run("check_skew", "--hour", TWO[0], "--logged", str(path), "--tracking-uri", "")
    assert result.code == 0, result.err
    details = result.summary["details"]
    assert (details["pairs"], details["without_sample"]) == (ROWS, ROWS)


def test_bad_logs_are_named(served: Project, tmp_path: Path) -> None:
    path = log(served)
    rows = pq.read_table(path / "log.parquet")
    cases = {
        "no Parquet file": None,
        "needs sample_id or request_id, target_id, user_id": rows.drop_columns(["sample_id"]),
        "holds no feature of service 'ranking'": rows.select(["sample_id"]),
        "'item_ctr_24h' is string in the log": rows.set_column(
            rows.schema.get_field_index("item_ctr_24h"), "item_ctr_24h",
            pc.cast(rows["item_ctr_24h"], pa.string()),
        ),
    }  # fmt: skip
    for said, table in cases.items():
        file = tmp_path / "bad.parquet"
        if table is not None:
            pq.write_table(table, file)
        result = check(served, file)
        assert (result.code, result.summary["status"]) == (2, "bad arguments"), said
        assert said in result.summary["message"]
    assert check(served, path, "--feature-service", "rank").code == 2
    missing = served.run("check_skew", "--hour", HOUR, "--logged", str(path))
    assert (missing.code, missing.summary["status"]) == (3, "refused")
    assert f"samples of {HOUR} is not there" in missing.summary["message"]


def test_the_page_is_in_mlflow(served: Project, migrated: Path) -> None:
    (served.folder / "mlflow.db").write_bytes(migrated.read_bytes())
    path = log(served, **skewed())
    for _ in range(2):  # again: the run is replaced
        result = served.run("check_skew", "--hour", TWO[0], "--logged", str(path))
        assert result.code == 0, result.err
    registry = Registry(served.tracking_uri)
    found = registry._runs(
        registry._open_experiment("serving_skew"), f"serving_skew:{TWO[0]}:{TWO[0]}:ranking"
    )
    assert len(found) == 1
    [page] = (served.folder / "artifacts").rglob(f"{found[0]}/**/skew.html")
    assert "item_ctr_24h" in page.read_text()
