"""Rows to fit on that lie on disk make the trees that a table of them makes."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import IO

import numpy as np
import pyarrow as pa
import pytest

from models import ModelError
from models.gbdt import GBDTConfig, GBDTRanker
from models.gbdt_config import RELEVANCE
from models.sample_weights import LabelWeight
from models.spilled_rows import SpilledRows
from tests.models.conftest import CONFIG, SPEC, make_table

CHUNKS = (0, 1, 1, 700, 9_000, 30_000)


@pytest.fixture
def file() -> Iterator[IO[bytes]]:
    with tempfile.TemporaryFile() as opened:
        yield opened


def spill(ranker: GBDTRanker, table: pa.Table, file: IO[bytes]) -> SpilledRows:
    rows = SpilledRows(ranker.matrix, file)
    for start, end in pairwise((*CHUNKS, table.num_rows)):
        rows.append(table.slice(start, end - start))
    return rows


def named(table: pa.Table) -> pa.Table:
    return table.append_column("sample_id", pa.array([f"s{n}" for n in range(table.num_rows)]))


@pytest.mark.parametrize(
    "config",
    [
        CONFIG,
        replace(CONFIG, negative_share=0.3),
        replace(CONFIG, sample_weights={"click": {"follow": LabelWeight(3.0)}}),
    ],
    ids=["two tasks", "negatives drawn", "rows weighed"],
)
def test_the_trees_are_those_of_a_table(
    config: GBDTConfig, valid: pa.Table, file: IO[bytes]
) -> None:
    # More rows than LightGBM looks at to choose the bins.
    train = named(make_table(240_000, seed=3))
    config = replace(config, rounds=4)
    table, disk = GBDTRanker(config, SPEC), GBDTRanker(config, SPEC)
    told = table.fit(train, valid)
    rows = spill(disk, train, file)
    found = disk.prepared(rows, valid)()
    assert rows.num_rows == train.num_rows
    for task in config.tasks:
        assert disk.booster_text(task) == table.booster_text(task)
    assert found.curves == told.curves
    assert found.immature == told.immature
    other = GBDTRanker(config, SPEC)
    other.fit(train.slice(1), valid)
    assert other.tree_version != table.tree_version, "the control: a row less makes other trees"


def test_rows_come_in_any_order_as_they_are(file: IO[bytes]) -> None:
    train, ranker = make_table(40_000, seed=4), GBDTRanker(CONFIG, SPEC)
    rows = spill(ranker, train, file)
    matrix = ranker.matrix(train)
    wanted = np.column_stack([c.to_numpy().astype(np.float64) for c in matrix.columns])
    assert np.isnan(wanted).any()
    assert len(rows) == len(wanted)
    for index in (0, 39_999, 5, 12_345, 12_345, 700):
        np.testing.assert_array_equal(rows[index], wanted[index])
        assert rows[index].base is None, "a view would keep the batch in memory"
    for part in (slice(0, 8192), slice(690, 9_300), slice(39_990, 50_000), slice(3, 4)):
        np.testing.assert_array_equal(rows[part], wanted[part])
    for index in (-1, 40_000):
        with pytest.raises(IndexError, match=f"row {index} of 40000"):
            rows[index]
    with pytest.raises(ModelError, match="add all of them before"):
        rows.append(train)


def test_labels_stay_in_memory_and_features_do_not(train: pa.Table, file: IO[bytes]) -> None:
    rows = SpilledRows(GBDTRanker(CONFIG, SPEC).matrix, file)
    rows.append(named(train))
    assert rows.beside.column_names == ["label_click", "label_follow", "sample_id"]
    assert rows.beside["label_follow"].equals(train["label_follow"])


def test_who_needs_a_table_says_so(fitted: GBDTRanker, valid: pa.Table, file: IO[bytes]) -> None:
    ranks = GBDTRanker(GBDTConfig(tasks=("click",), objective="lambdarank"), SPEC)
    assert ranks.tasks == (RELEVANCE,)
    goes_on = GBDTRanker(replace(CONFIG, way="continue"), SPEC)
    rows = spill(ranks, make_table(2_000, seed=5), file)
    for ranker, champion in ((ranks, None), (goes_on, fitted)):
        assert not ranker.reads_spilled(champion)
        with pytest.raises(ModelError, match="give a table to a ranking objective"):
            ranker.prepared(rows, valid, champion=champion)
    assert goes_on.reads_spilled(None)
