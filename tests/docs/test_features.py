"""docs/features.md does what it says: its code, its configuration, its command lines."""

from __future__ import annotations

import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from feature_store import hours as hr
from feature_store.services import SERVICES
from feature_store.training_set import FEATURE_COLUMNS
from jobs.support.settings import TrainSettings
from tests.feature_store.published import START, publish, world
from tests.jobs.conftest import Project
from tests.jobs.gbdt_day import HOURS, clicks, fill, samples

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "features.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def blocks(language: str) -> list[str]:
    return [text for kind, text in BLOCKS if kind == language]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """What the page's code leaves behind, run from top to bottom on a store."""
    folder = tmp_path_factory.mktemp("features")
    store, _ = world(folder, 21, seed=3, names=("ann", "shoes", "p1", "p2"), change=0.5)
    publish(store, "items", [START], [])
    store.close()
    fill(Project(folder), "samples", samples, HOURS)
    fill(Project(folder), "outcomes", lambda hour: clicks(hour, lambda n: n % 4 == 0), HOURS)
    found = {
        "warehouse": str(folder / "warehouse"), "catalog_uri": f"sqlite:///{folder}/catalog.db"
    }  # fmt: skip
    for text in blocks("python"):
        exec(text, found)  # noqa: S102
    yield found
    found["store"].close()


def test_the_training_set(page: dict[str, Any]) -> None:
    table = page["table"]
    assert set(FEATURE_COLUMNS) < set(table.column_names)
    assert {"label_click", "label_conversion"} < set(table.column_names)
    assert (table["hour"][0].as_py(), table["hour"][-1].as_py()) == ("2026-11-10T06", HOURS[-1])
    assert sum(table["label_click"].to_pylist()) > 0
    assert set(table["label_conversion"].to_pylist()) == {None}


def test_the_history(page: dict[str, Any]) -> None:
    history, taste = page["history"], page["taste"]
    assert history["order_id"].to_pylist() == [1, 2, 3]
    assert history.column_names == [*page["asked"].column_names, *taste.columns()]
    counts = [c for c in taste.columns() if "impression_" in c]
    known, *unknown = history.select(counts).to_pylist()
    assert any(known.values())
    assert not any(value for row in unknown for value in row.values()), "null keys: defaults"


def test_the_newest(page: dict[str, Any]) -> None:
    newest = page["newest"]
    assert newest["as_of"][0].as_py() == hr.start_of(hr.add(START, 21))
    seen, also, never = newest["item_ctr_24h"].to_pylist()
    assert never == pytest.approx(0.1)
    assert {seen, also} != {never}


def test_the_configuration_is_the_default() -> None:
    [text] = blocks("yaml")
    settings = TrainSettings(**yaml.safe_load(text)["train"])
    assert settings == TrainSettings()
    assert settings.feature_service in SERVICES


@pytest.mark.parametrize("line", [x for text in blocks("bash") for x in text.splitlines()])
def test_a_command_line_is_taken(line: str) -> None:
    python, path, *given = shlex.split(line)
    assert (python, (ROOT / path).is_file()) == ("python", True)
    importlib.import_module(f"jobs.{Path(path).stem}").build_parser().parse_args(given)
