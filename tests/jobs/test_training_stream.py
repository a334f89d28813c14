"""A training set as a stream: the same rows as at once, and a digest that batches do not change."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from feature_store import hours as hr
from feature_store import training_set
from feature_store.digests import StreamDigest
from feature_store.sequence_sets import with_sequences
from feature_store.services import SERVICES, FeatureService, ServiceError
from feature_store.sources.base import DEFAULT_WINDOWS
from feature_store.tables import StoreError
from feature_store.training_set import Recipe, build, lineage, training_batches
from tests.jobs.conftest import Project
from tests.jobs.deep_days import (
    BEFORE,
    DAY,
    EMPTY,
    FIRST,
    ROWS,
    fill,
    fill_days,
    outcomes,
    samples,
)

SERVICE = SERVICES["deep_ranking"]
LABELS = ("click", "stay", "interaction", "conversion")
CUT = hr.add(FIRST, 24)


@pytest.fixture(scope="module")
def days(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = Project(tmp_path_factory.mktemp("days"))
    fill_days(project)
    return project


def recipe(project: Project, first: str = BEFORE[0], last: str = DAY[-1]) -> Recipe:
    origin = lineage(project.store(), first, last, CUT, SERVICE)
    return Recipe(CUT, SERVICE.name, SERVICE.columns(), dict(DEFAULT_WINDOWS), origin, LABELS,
                  SERVICE.sequences)  # fmt: skip


def test_a_stream_has_the_rows_of_the_set(days: Project) -> None:
    store, made = days.store(), recipe(days)
    whole = with_sequences(store, build(store, made), SERVICE.sequence_views(),
                           made.lineage.hours, made.lineage.snapshots)  # fmt: skip
    batches = list(training_batches(store, made, rows=7))
    assert max(batch.num_rows for batch in batches) == 7
    assert all(len(pc.unique(batch["hour"])) == 1 for batch in batches)
    assert pa.Table.from_batches(batches).equals(whole.combine_chunks())
    assert whole.num_rows == (len(BEFORE) + len(DAY) - len(EMPTY)) * ROWS
    for name, positive in (("click", 4), ("interaction", 8)):
        assert pc.mean(whole[f"label_{name}"]).as_py() == pytest.approx(1 / positive, abs=0.04)
    assert pc.max(pc.list_value_length(whole["user_items_item_id"])).as_py() == 9
    assert pc.min(pc.list_value_length(whole["user_items_item_id"])).as_py() == 0


@pytest.mark.parametrize(("held", "rows"), [(8, 7), (10, 5), (3, 7), (2**18, 7)])
def test_without_sequences_an_hour_is_read_in_pieces(
    days: Project, monkeypatch: pytest.MonkeyPatch, held: int, rows: int
) -> None:
    monkeypatch.setattr(training_set, "PIECE_ROWS", held)
    labelled, asked = training_set.labelled, []

    def watched(samples: pa.Table, *given: Any) -> pa.Table:
        asked.append(samples.num_rows)
        return labelled(samples, *given)

    store, made = days.store(), dataclasses.replace(recipe(days), sequences=())
    whole = build(store, made).combine_chunks()
    monkeypatch.setattr(training_set, "labelled", watched)
    batches = list(training_batches(store, made, rows))
    assert pa.Table.from_batches(batches).equals(whole)
    assert max(asked) == min(max(held // rows, 1) * rows, ROWS)
    assert max(batch.num_rows for batch in batches) == rows


def test_an_outcome_is_the_first_samples_of_its_name(tmp_path: Path) -> None:
    """One impression that two hours report: as in the set, its outcome is the earlier hour's."""
    project, hours = Project(tmp_path), DAY[:2]

    def twins(hour: str) -> pa.Table:
        rows = samples(hour)
        names = pa.array(["twin", *rows["sample_id"].to_pylist()[1:]])
        return rows.set_column(rows.schema.get_field_index("sample_id"), "sample_id", names)

    def clicked(hour: str) -> pa.Table:
        rows = outcomes(hour, lambda n: n == 0)
        named = pc.if_else(pc.ends_with(rows["sample_id"], "-0"), "twin", rows["sample_id"])
        return rows.set_column(rows.schema.get_field_index("sample_id"), "sample_id", named)

    fill(project, "samples", twins, hours)
    fill(project, "outcomes", clicked, hours)
    store = project.store()
    made = dataclasses.replace(recipe(project, *hours), sequences=())
    streamed = pa.Table.from_batches(training_batches(store, made))
    assert streamed.equals(build(store, made).combine_chunks())
    twin = streamed.filter(pc.equal(streamed["sample_id"], "twin"))
    assert twin["label_click"].to_pylist() == [1.0, 0.0]


def test_the_digest_is_the_same_however_a_stream_is_batched(days: Project) -> None:
    store, made = days.store(), recipe(days, DAY[0], DAY[5])

    def digest(rows: int) -> str:
        found = StreamDigest()
        for batch in training_batches(store, made, rows):
            found.update(batch)
        assert found.rows == 5 * ROWS
        return found.hexdigest()

    assert digest(7) == digest(8192)
    [batch, *_] = training_batches(store, made)
    for name in ("label_click", "item_ctr_24h", "user_items_gap", "user_items_category", "room_id"):
        place = batch.schema.get_field_index(name)
        turned = batch.column(place).take(pa.array(range(batch.num_rows)[::-1]))
        columns = [turned if i == place else c for i, c in enumerate(batch.columns)]
        other = pa.RecordBatch.from_arrays(columns, schema=batch.schema)
        digests = []
        for rows in (batch, other):
            found = StreamDigest()
            found.update(rows)
            digests.append(found.hexdigest())
        assert digests[0] != digests[1], name


def test_a_digest_of_other_columns_is_refused() -> None:
    digest = StreamDigest()
    digest.update(pa.record_batch({"a": [1]}))
    with pytest.raises(TypeError, match="follows batches of"):
        digest.update(pa.record_batch({"b": [1]}))


def test_sequences_change_the_lineage_of_those_who_read_them(days: Project) -> None:
    store = days.store()
    plain = lineage(store, BEFORE[0], BEFORE[-1], FIRST)
    ranking = lineage(store, BEFORE[0], BEFORE[-1], FIRST, SERVICES["ranking"])
    deep = lineage(store, BEFORE[0], BEFORE[-1], FIRST, SERVICE)
    assert plain == ranking
    assert deep.content_sha != plain.content_sha
    tables = {view.table for view in SERVICE.sequence_views()}
    assert set(deep.snapshots) == {"samples", "outcomes"} | tables
    assert set(plain.snapshots) == {"samples", "outcomes"}


def test_what_is_not_declared_is_named(days: Project) -> None:
    made = recipe(days)
    for change, said in (
        ({"labels": ("bounce",)}, r"no labels \['bounce'\]"),
        ({"sequences": ("user_dreams",)}, r"no sequence views \['user_dreams'\]"),
        ({"columns": ("dream",)}, r"no columns \['dream'\]"),
    ):
        with pytest.raises(StoreError, match=said):
            next(training_batches(days.store(), dataclasses.replace(made, **change)))
    with pytest.raises(ServiceError, match="sequence views"):
        FeatureService("mine", "", "me", sequences=("user_dreams",))


def test_the_deep_service_serves_what_ranking_does() -> None:
    assert SERVICE.columns() == SERVICES["ranking"].columns()
    assert SERVICES["ranking"].sequence_views() == ()
