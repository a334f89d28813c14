"""docs/gates.md does what it says: its configuration, its table of kinds, and its new kind."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from feature_store import gate_kinds
from feature_store.gate_kinds import KINDS
from feature_store.gates import judge_hour, measure_hour, parse_gates
from jobs.support.settings import load_settings

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "gates.md").read_text()
SECTION, NEW_KIND = re.findall(r"^```\w+\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
HOUR = "2026-11-11T05"


def test_the_section_is_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CONFIG", "DATA"):
        monkeypatch.delenv(f"RANKMILL_{name}", raising=False)
    path = tmp_path / "conf.yaml"
    path.write_text(f"source: {{name: parquet, options: {{path: x}}}}\n{SECTION}")
    given = dict.fromkeys(("data", "warehouse", "catalog_uri", "tracking_uri"))
    gates = load_settings(argparse.Namespace(config=str(path), **given)).gates
    rules = {rule.name: rule for rule in gates}
    assert rules["volume"].fail == (0.2, 5)
    assert rules["volume"].warn == (0.4, 2.5), "as in conf/gates.yaml"
    assert rules["query_nulls"].column == "query"
    assert "scene_drift" not in rules
    assert {rule.min_history for rule in gates} == {48}


def test_the_table_lists_the_kinds_and_their_keys() -> None:
    rows = re.findall(r"^\| `(\w+)` \|.*\| ([^|]*) \|$", PAGE, re.MULTILINE)
    assert [kind for kind, _ in rows] == list(KINDS)
    for kind, keys in rows:
        known = {*KINDS[kind].needs, *KINDS[kind].takes} - {"minimum", "above", "maximum"}
        assert set(re.findall(r"`(\w+)`", keys)) == known, kind


def test_the_new_kind_judges(monkeypatch: pytest.MonkeyPatch) -> None:
    namespace: dict[str, Any] = {**vars(gate_kinds), "KINDS": {}}
    exec(NEW_KIND, namespace)  # noqa: S102
    monkeypatch.setitem(KINDS, "blank", namespace["KINDS"]["blank"])
    keys = {"kind": "blank", "column": "query", "description": "blank queries", "expected": 0,
            "min_rows": 4, "warn": 0.1, "fail": 0.4}  # fmt: skip
    rules = parse_gates({"rules": {"blank_queries": keys}})
    batch = {"action": ["impression"] * 5, "query": ["shoes", "", None, "", "hats"]}
    measured = measure_hour([pa.RecordBatch.from_pydict(batch)], rules)
    [result] = judge_hour(HOUR, measured, {}, rules)
    assert (result.value, result.level) == (0.5, "fail")
