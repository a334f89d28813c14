"""Segments against each of them judged by itself; sums of hours; which one is called the worst."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from jobs.support.contenders import Contender
from jobs.support.report import Difference, SegmentLine
from jobs.support.segments import (
    DIMENSIONS,
    segment_columns,
    segment_lines,
    segment_sums,
    worst,
)
from models.metrics import benjamini_hochberg, ndcg_at_k, paired_p_value

ROLES = ("candidate", "champion")
GROUP_ROWS = 6


def contender(role: str) -> Contender:
    told = ("click",) if role == "candidate" else ()
    return Contender(role, role, "1", None, lambda *_: {}, (), probabilities=told)


class World:
    """Groups of six rows, of users and places that are told apart."""

    def __init__(self, seed: int, groups: int = 400) -> None:
        rng = np.random.default_rng(seed)
        rows = groups * GROUP_ROWS
        self.groups = np.repeat(np.arange(groups), GROUP_ROWS)
        user = np.repeat(rng.integers(0, 3, groups), GROUP_ROWS)
        self.rows = pa.table({
            "user_lifecycle": pa.array(["new", "mature", None]).take(pa.array(user)),
            "user_impression_15d": (user > 0).astype(np.float32),
            "target_type": np.array(["item", "room"])[rng.integers(0, 2, rows)],
            "item_impression_15d": rng.integers(0, 2, rows).astype(np.float32),
            "room_impression_15d": rng.integers(0, 2, rows).astype(np.float32),
            "hour_of_day": np.repeat(rng.integers(0, 24, groups), GROUP_ROWS).astype(np.float32),
            "scene": pa.array([f"s{n}" for n in range(40)]).take(
                pa.array(np.minimum(rng.geometric(0.1, rows), 40) - 1)),
            "position": np.tile(np.arange(1, GROUP_ROWS + 1), groups).astype(np.int32),
        })  # fmt: skip
        self.scores = {role: rng.random(rows) for role in ROLES}
        self.labels = (rng.random(rows) < 0.5 * self.scores["champion"]).astype(np.float64)

    def sums(self) -> pa.Table:
        return segment_sums(
            self.rows, self.groups, "click", self.labels, [contender(r) for r in ROLES],
            self.scores, "champion",
        )  # fmt: skip

    def part(self, mask: np.ndarray) -> dict[str, np.ndarray]:
        return {
            role: ndcg_at_k(self.labels[mask], s[mask], self.groups[mask], 10).values
            for role, s in self.scores.items()
        }


def line(lines: list[SegmentLine], dimension: str, value: str, role: str) -> SegmentLine:
    key = (dimension, value, role)
    [found] = [one for one in lines if (one.dimension, one.value, one.role) == key]
    return found


def test_every_segment_is_as_if_judged_by_itself() -> None:
    world = World(3)
    lines = segment_lines([world.sums()], "champion")
    of = {dimension.name: dimension.of(world.rows) for dimension in DIMENSIONS}
    values = {name: pc.fill_null(column, "unknown").to_pylist() for name, column in of.items()}
    assert {one.dimension for one in lines} == set(of)
    for one in lines:
        if one.value == "other":
            continue
        mask = np.array(values[one.dimension]) == one.value
        found = world.part(mask)
        mine, theirs = found[one.role], found["champion"]
        assert one.rows == mask.sum()
        assert one.groups == (~np.isnan(mine)).sum()
        assert one.observed == pytest.approx(world.labels[mask].mean())
        if one.groups:
            assert one.ndcg == pytest.approx(np.nanmean(mine), abs=1e-12)
        if one.role == "champion":
            assert one.difference is None
            assert one.predicted is None
        else:
            assert one.predicted == pytest.approx(world.scores["candidate"][mask].mean())
            if one.groups:
                assert one.difference is not None
                assert one.difference.value == pytest.approx(np.nanmean(mine - theirs), abs=1e-12)


def test_hours_add_up_and_the_rarest_values_are_one() -> None:
    worlds = [World(5), World(6)]
    lines = segment_lines([world.sums() for world in worlds], "champion")
    scenes = [one for one in lines if one.dimension == "scene" and one.role == "candidate"]
    assert len(scenes) == 25
    assert scenes[-1].value == "other"
    assert sum(one.rows for one in scenes) == 2 * 400 * GROUP_ROWS
    first = line(lines, "position", "1", "candidate")
    assert first.groups == 0  # of one row no order is better than another
    new = line(lines, "lifecycle", "new", "candidate")
    apart = np.concatenate([
        w.part(np.array(w.rows["user_lifecycle"].to_pylist()) == "new")["candidate"]
        - w.part(np.array(w.rows["user_lifecycle"].to_pylist()) == "new")["champion"]
        for w in worlds
    ])  # fmt: skip
    known = apart[~np.isnan(apart)]
    half = 1.959964 * known.std(ddof=1) / math.sqrt(len(known))
    assert new.difference is not None
    assert new.difference.low == pytest.approx(known.mean() - half, abs=1e-6)
    assert new.difference.p_value is not None
    assert new.difference.p_value >= paired_p_value(apart)


def test_a_dimension_of_one_value_is_left_out() -> None:
    world = World(4, 50)
    place = world.rows.schema.get_field_index("user_lifecycle")
    nobody = pa.nulls(world.rows.num_rows, pa.string())
    world.rows = world.rows.set_column(place, "user_lifecycle", nobody)
    found = {one.dimension for one in segment_lines([world.sums()], "champion")}
    assert found == {dimension.name for dimension in DIMENSIONS} - {"lifecycle"}


def test_p_values_are_adjusted_over_all_segments() -> None:
    world = World(7)
    lines = [one for one in segment_lines([world.sums()], "champion") if one.difference]
    raw = []
    for one in lines:
        of = next(d for d in DIMENSIONS if d.name == one.dimension).of(world.rows)
        assert one.value != "other", "of the rarest no group has both labels in one scene"
        found = world.part(np.array(pc.fill_null(of, "unknown").to_pylist()) == one.value)
        raw.append(paired_p_value(found["candidate"] - found["champion"]))
    known = ~np.isnan(raw)
    told = [one.difference.p_value for one in lines if one.difference]
    assert np.array(told)[known] == pytest.approx(benjamini_hochberg(np.array(raw)[known]))


def segment(value: str, apart: float, groups: int, p_value: float) -> SegmentLine:
    difference = Difference("champion", apart, apart - 0.01, apart + 0.01, p_value)
    return SegmentLine("scene", value, "candidate", "click", 9 * groups, groups, 0.5, 0.4, 0.6,
                       0.1, None, difference)  # fmt: skip


def test_the_worst_segment_has_enough_groups() -> None:
    lines = [segment("a", -0.2, 29, 0.001), segment("b", -0.1, 30, 0.2), segment("c", 0.1, 99, 0.9)]
    told = worst(lines, "candidate", "click")
    assert "scene is b, -0.1000 NDCG@10" in told
    assert "may be chance" in told
    assert "no chance" in worst([segment("b", -0.1, 30, 0.01)], "candidate", "click")
    assert worst(lines[:1], "candidate", "click") == ""
    assert worst(lines, "champion", "click") == ""


def test_every_column_of_a_dimension_is_read() -> None:
    assert set(segment_columns()) == set(World(1, 1).rows.column_names)
