"""From Arrow to arrays: codes, sequences, labels, vocabularies."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models import FeatureSpec, SparseColumn, SpecError, TrainingRefused, encode_sparse
from models.base import SPACE_COLUMN, PretrainedColumn, SequenceColumn
from models.encoding import Encoder, Vocabulary

SPEC = FeatureSpec(
    dense=("x",),
    sparse=(SparseColumn("kind", 16), SparseColumn("place", 8, kind="integer")),
    sequences=(
        SequenceColumn("seen", 16, 3, table="kind"),
        SequenceColumn("gap", 6, 3, kind="log"),
    ),
    labels=("label_click",),
    training_only=(SparseColumn("position", 4, kind="integer"),),
)


def table(**columns: pa.Array) -> pa.Table:
    rows = {
        "x": pa.array([1.0, None, -7.0], pa.float32()),
        "kind": pa.array(["a", None, "b"]),
        "place": pa.array([3, None, 99], pa.int32()),
        "seen": pa.array([["a", "b"], None, ["a", "b", "c", "d"]], pa.list_(pa.string())),
        "gap": pa.array([[0, 7], [], [1, 2, 3, 10**6]], pa.list_(pa.int32())),
        "label_click": pa.array([1.0, None, 0.0], pa.float32()),
        "position": pa.array([1, None, 12], pa.int32()),
    }
    return pa.table({**rows, **columns})


def test_every_column_as_declared() -> None:
    rows = Encoder(SPEC).encode(table(), train=True)
    codes = {text: int(encode_sparse(pa.array([text]), 16)[0]) for text in "abcd"}
    assert np.allclose(rows.dense[[0, 2], 0], [np.log(2), -np.log(8)])
    assert np.isnan(rows.dense[1, 0])
    assert rows.sparse.tolist() == [[codes["a"], 3], [0, 0], [codes["b"], 7]]
    seen = [[0, codes["a"], codes["b"]], [0, 0, 0], [codes["b"], codes["c"], codes["d"]]]
    assert rows.sequences[:, :3].tolist() == seen
    assert rows.sequences[:, 3:].tolist() == [[0, 1, 4], [0, 0, 0], [2, 3, 5]]
    assert rows.extra.tolist() == [[1], [0], [3]]
    assert rows.labels[[0, 2], 0].tolist() == [1.0, 0.0]
    assert np.isnan(rows.labels[1, 0])


VECTORS = FeatureSpec(
    dense=("x",), pretrained=(PretrainedColumn("node", 2, "mine"), PretrainedColumn("word", 1))
)


def vectors(node: list[list[float] | None], space: list[str | None]) -> pa.Table:
    word = pa.array([[9.0]] * len(node), pa.list_(pa.float32(), 1))
    columns = {
        "x": pa.array([1.0] * len(node), pa.float32()),
        "node": pa.array(node, pa.list_(pa.float32())),
    }
    return pa.table({**columns, "word": word, SPACE_COLUMN: pa.array(space, pa.string())})


def test_pretrained_numbers_follow_the_dense_ones_as_they_are() -> None:
    node = [[3.0, -4.0], None, [5.0, 6.0], [7.0, 8.0], [1.0, 2.0, 3.0]]
    rows = Encoder(VECTORS).encode(vectors(node, ["mine", "mine", "other", None, "mine"]))
    one = float(np.log(2.0))
    assert rows.dense.shape == (5, VECTORS.numbers) == (5, 4)
    assert np.allclose(rows.dense[0], [one, 3.0, -4.0, 9.0])
    for row in rows.dense[1:]:  # null, two of another space, one of another width
        assert np.array_equal(np.isnan(row), [False, True, True, False])
    empty = Encoder(VECTORS).encode(vectors([], []))
    assert empty.dense.shape == (0, 4)


def test_a_table_without_its_space_or_with_an_infinite_number_is_refused() -> None:
    table = vectors([[1.0, float("inf")]], ["mine"])
    with pytest.raises(TrainingRefused, match="'node' holds 1 infinite"):
        Encoder(VECTORS).encode(table)
    with pytest.raises(SpecError, match=f"missing: {SPACE_COLUMN}"):
        Encoder(VECTORS).encode(table.drop_columns([SPACE_COLUMN]))
    assert VECTORS.columns == ("x", "node", "word", SPACE_COLUMN)


def test_scoring_reads_neither_labels_nor_positions() -> None:
    rows = Encoder(SPEC).encode(table().drop_columns(["label_click", "position"]))
    assert rows.labels.shape == rows.extra.shape == (3, 0)


@given(
    st.lists(
        st.one_of(st.none(), st.lists(st.sampled_from("abcdef"), max_size=7)), max_size=20
    ),
    st.integers(1, 5),
)  # fmt: skip
@settings(max_examples=100, deadline=None)
def test_sequences_keep_their_newest_at_the_right(
    lists: list[list[str] | None], length: int
) -> None:
    spec = FeatureSpec(sequences=(SequenceColumn("seen", 64, length),))
    column = pa.array(lists, pa.list_(pa.string()))
    found = Encoder(spec).encode(pa.table({"seen": column})).sequences
    for row, texts in zip(found, lists, strict=True):
        newest = (texts or [])[-length:]
        codes = [int(encode_sparse(pa.array([text]), 64)[0]) for text in newest]
        assert row.tolist() == [0] * (length - len(newest)) + codes


def test_a_sliced_table_is_read_from_its_own_first_row() -> None:
    whole = Encoder(SPEC).encode(table(), train=True)
    tail = Encoder(SPEC).encode(table().slice(1), train=True)
    for mine, theirs in zip(tail, whole, strict=True):
        assert np.array_equal(mine, theirs[1:], equal_nan=True)


class TestVocabulary:
    SPEC = FeatureSpec(
        sparse=(SparseColumn("item", 5, kind="vocabulary"),),
        sequences=(SequenceColumn("seen", 5, 2, kind="vocabulary", table="item"),),
    )

    def given(self, items: list[str | None], seen: list[list[str]]) -> pa.Table:
        return pa.table(
            {
                "item": pa.array(items, pa.string()),
                "seen": pa.array(seen, pa.list_(pa.string())),
            }
        )

    def test_texts_are_numbered_as_they_are_met(self) -> None:
        encoder = Encoder(self.SPEC)
        rows = encoder.encode(self.given(["b", None, "a"], [["a"], ["c"], []]), grow=True)
        assert rows.sparse[:, 0].tolist() == [2, 0, 3]
        assert rows.sequences.tolist() == [[0, 3], [0, 4], [0, 0]]

    def test_beyond_its_capacity_texts_are_unknown(self) -> None:
        encoder = Encoder(self.SPEC)
        encoder.encode(self.given(["a", "b"], [["c", "d"], []]), grow=True)
        rows = encoder.encode(self.given(["d", "a"], [["e", "c"], []]), grow=True)
        assert rows.sparse[:, 0].tolist() == [1, 2]
        assert rows.sequences.tolist() == [[1, 4], [0, 0]]

    def test_it_grows_only_when_told(self) -> None:
        encoder = Encoder(self.SPEC)
        assert encoder.encode(self.given(["a"], [[]])).sparse[0, 0] == 1
        assert len(encoder.vocabularies["item"].texts) == 0

    def test_another_encoder_goes_on_with_it(self) -> None:
        first = Encoder(self.SPEC)
        first.encode(self.given(["a"], [[]]), grow=True)
        second = Encoder(self.SPEC, first.vocabularies)
        second.encode(self.given(["b"], [[]]), grow=True)
        assert second.vocabularies["item"].texts.to_pylist() == ["a", "b"]
        assert first.vocabularies["item"].texts.to_pylist() == ["a"]

    def test_it_says_how_many_it_took(self) -> None:
        vocabulary = Vocabulary(5)
        assert vocabulary.grow(pa.array(["a", "a", None, "b", "c", "d"])) == 3


class TestRefusals:
    @pytest.mark.parametrize(
        ("column", "values", "named"),
        [
            ("x", pa.array([1.0, np.inf, 0.0]), "column 'x' holds 1 infinite"),
            ("label_click", pa.array([1.0, -1.0, 0.0]), "label 'label_click' holds -1"),
            ("label_click", pa.array([1.0, np.inf, 0.0]), "label 'label_click' holds inf"),
        ],
    )
    def test_what_cannot_be_learned_from_is_named(
        self, column: str, values: pa.Array, named: str
    ) -> None:
        given = table()
        given = given.set_column(given.column_names.index(column), column, values)
        with pytest.raises(TrainingRefused, match=named):
            Encoder(SPEC).encode(given, train=True)

    def test_a_missing_label_is_named(self) -> None:
        with pytest.raises(SpecError, match="lacks label_click"):
            Encoder(SPEC).encode(table().drop_columns(["label_click"]), train=True)

    def test_a_list_of_the_wrong_kind_is_named(self) -> None:
        numbers = pa.array([[1], [2], [3]], pa.list_(pa.int32()))
        given = table()
        given = given.set_column(given.column_names.index("seen"), "seen", numbers)
        with pytest.raises(SpecError, match=r"seen is list<.*>, not a list of identifiers"):
            Encoder(SPEC).encode(given)


class TestSpec:
    def test_columns_that_share_a_table_agree(self) -> None:
        with pytest.raises(SpecError, match="share table 'kind', but have 16 buckets"):
            FeatureSpec(
                sparse=(SparseColumn("kind", 16),),
                sequences=(SequenceColumn("seen", 32, 3, table="kind"),),
            )

    def test_it_travels_as_json(self) -> None:
        assert FeatureSpec.from_json(SPEC.to_json()) == SPEC

    def test_hashed_columns_say_no_more_than_they_ever_did(self) -> None:
        plain = FeatureSpec(dense=("x",), sparse=(SparseColumn("kind", 16),))
        assert '"sparse":[{"buckets":16,"name":"kind"}]' in plain.to_json()
        assert "training_only" not in plain.to_json()

    def test_another_spec_is_refused_by_the_columns_that_differ(self) -> None:
        other = FeatureSpec(
            dense=("x", "y"),
            sparse=(SparseColumn("kind", 32), SparseColumn("place", 8, kind="integer")),
            sequences=(SequenceColumn("gap", 6, 3, kind="log"),),
            labels=SPEC.labels,
            training_only=SPEC.training_only,
        )
        with pytest.raises(SpecError, match="only here: seen; only there: y; different: kind"):
            SPEC.require(other)
        SPEC.require(FeatureSpec.from_json(SPEC.to_json()))

    def test_a_kind_that_is_not_known_is_refused(self) -> None:
        with pytest.raises(SpecError, match="kind 'log'; known are hash, vocabulary, integer"):
            SparseColumn("kind", 16, kind="log")
