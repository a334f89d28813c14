"""One contract for every deep ranker, on a market whose truth is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from models import MODELS, ConfigError, ModelError, SpecError, TooFewPositives, TrainingRefused
from models.deep import DeepRanker
from models.metrics import auc
from tests.models.deep_market import FAMILIES, SPEC, batches, config, held, market

TRAIN, TEST = market(12_000, seed=1), market(4_000, seed=2)


def build(family: str, **more: Any) -> DeepRanker:
    model = MODELS[family].build(config(family, **more), SPEC)  # type: ignore[attr-defined]
    assert isinstance(model, DeepRanker)
    return model


def fit(model: DeepRanker, table: pa.Table = TRAIN, **more: Any) -> Any:
    return model.fit_batches(lambda: batches(table), held, **more)


@pytest.fixture(scope="module", params=sorted(FAMILIES))
def fitted(request: pytest.FixtureRequest) -> DeepRanker:
    model = build(request.param)
    model.report = fit(model)  # type: ignore[attr-defined]
    return model


def click_auc(model: DeepRanker, table: pa.Table = TEST) -> float:
    """AUC of the predicted click against one drawn from the truth at the first position."""
    drawn = np.random.default_rng(5).random(table.num_rows) < table["truth"].to_numpy()
    return auc(drawn.astype(float), model.predict(table)["click"])


class TestContract:
    def test_it_learns_the_truth(self, fitted: DeepRanker) -> None:
        drawn = np.random.default_rng(5).random(TEST.num_rows) < TEST["truth"].to_numpy()
        best = auc(drawn.astype(float), TEST["truth"].to_numpy())
        assert click_auc(fitted) > best - 0.035
        corr = np.corrcoef(fitted.predict(TEST)["click"], TEST["truth"].to_numpy())[0, 1]
        assert corr > 0.85

    def test_it_predicts_the_stay_in_seconds(self, fitted: DeepRanker) -> None:
        known = TEST.filter(pa.compute.is_valid(TEST["label_stay"]))
        found, label = fitted.predict(known)["stay"], known["label_stay"].to_numpy()
        assert np.corrcoef(np.log1p(found), np.log1p(label))[0, 1] > 0.5
        assert np.log1p(found).mean() == pytest.approx(np.log1p(label).mean(), rel=0.25)

    def test_the_score_is_the_weighted_sum(self, fitted: DeepRanker) -> None:
        values = fitted.predict(TEST)
        wanted = values["click"] + 0.2 * np.log1p(values["stay"])
        assert np.allclose(fitted.score(TEST), wanted, rtol=1e-6)

    def test_saved_and_loaded_it_gives_the_same_bits(
        self, fitted: DeepRanker, tmp_path: Path
    ) -> None:
        fitted.save(tmp_path)
        loaded = type(fitted).load(tmp_path)
        assert np.array_equal(loaded.outputs(TEST), fitted.outputs(TEST))
        assert loaded.steps == fitted.steps > 0
        assert loaded.accumulators.keys() == fitted.accumulators.keys()
        for name, moment in fitted.accumulators.items():
            assert torch.equal(loaded.accumulators[name], moment), name
        assert loaded.config_dict() == fitted.config_dict()
        assert loaded.spec == fitted.spec

    def test_a_second_fit_gives_the_same_bits(self, fitted: DeepRanker) -> None:
        again = build(fitted.family)
        fit(again)
        assert np.array_equal(again.outputs(TEST), fitted.outputs(TEST))

    def test_scores_do_not_depend_on_the_batch(self, fitted: DeepRanker) -> None:
        whole = fitted.outputs(TEST.slice(0, 300))
        parts = [fitted.outputs(TEST.slice(start, 50)) for start in range(0, 300, 50)]
        assert np.allclose(np.concatenate(parts), whole, atol=1e-5)

    def test_a_row_without_any_known_value_is_scored(self, fitted: DeepRanker) -> None:
        nulls = {
            field.name: pa.nulls(3, field.type)
            for field in TEST.schema
            if field.name in fitted.spec.columns
        }
        assert np.isfinite(fitted.score(pa.table(nulls))).all()

    def test_no_row_gives_no_score(self, fitted: DeepRanker) -> None:
        assert fitted.score(TEST.slice(0, 0)).shape == (0,)

    def test_a_missing_column_is_named(self, fitted: DeepRanker) -> None:
        with pytest.raises(SpecError, match="missing: kind"):
            fitted.score(TEST.drop_columns(["kind"]))

    def test_labels_and_positions_are_not_read_to_score(self, fitted: DeepRanker) -> None:
        bare = TEST.drop_columns(["label_click", "label_stay", "position"])
        assert np.array_equal(fitted.score(bare), fitted.score(TEST))

    def test_keys_that_training_had_not_read_one_defined_vector(self, fitted: DeepRanker) -> None:
        rows = TEST.slice(0, 50)
        place = rows.column_names.index("item_id")
        one, two = (
            rows.set_column(place, "item_id", pa.array([f"new-{word}-{i}" for i in range(50)]))
            for word in ("a", "b")
        )
        assert np.array_equal(fitted.outputs(one), fitted.outputs(two))

    def test_the_report_counts_rows(self, fitted: DeepRanker) -> None:
        report = fitted.report  # type: ignore[attr-defined]
        kept = np.concatenate([~held(batch) for batch in batches(TRAIN)])
        mature = pa.compute.is_valid(TRAIN["label_click"]).to_numpy()
        assert report.rows["click"] == (kept & mature).sum()
        assert report.immature["click"] == (kept & ~mature).sum()
        assert len(report.curves["click"]["valid"]) == 4
        assert report.metrics()["fit_parameters"] == fitted.parameters

    def test_warm_from_itself_it_starts_where_it_stopped(self, fitted: DeepRanker) -> None:
        # One step at next to no learning rate: what is left is where it started.
        warm = build(fitted.family, learning_rate=1e-12, epochs=1)
        report = fit(warm, warm=fitted)
        assert np.allclose(warm.outputs(TEST), fitted.outputs(TEST), atol=1e-5)
        assert warm.steps > fitted.steps
        last = fitted.report.curves["click"]["valid"]  # type: ignore[attr-defined]
        assert report.curves["click"]["valid"][0] == pytest.approx(min(last), rel=0.01)

    def test_a_warm_start_beats_a_cold_one_on_little(self, fitted: DeepRanker) -> None:
        little = market(800, seed=9)
        cold, warm = (build(fitted.family, epochs=1) for _ in range(2))
        fit(cold, little)
        fit(warm, little, warm=fitted)
        assert click_auc(warm) > click_auc(cold) + 0.02


class TestRefusals:
    def test_an_unknown_key_of_the_configuration_is_named(self) -> None:
        with pytest.raises(ConfigError, match="unknown keys expert_count"):
            build("mmoe", expert_count=3)

    @pytest.mark.parametrize(
        ("more", "message"),
        [
            ({"epochs": 0}, "epochs is 0"),
            ({"learning_rate": -1.0}, "learning_rate is -1.0"),
            ({"debias": "magic"}, "debias is 'magic'"),
            ({"tasks": {}}, "no task"),
            ({"tasks": {"click": {"kind": "ordinal"}}}, "kind 'ordinal'"),
            ({"tasks": {"click": {"wieght": 2}}}, "wieght"),
            ({"schedule": "cyclic"}, "schedule is 'cyclic'"),
            ({"experts": 0}, "0 experts"),
        ],
    )
    def test_a_value_that_cannot_be_is_named(self, more: dict[str, Any], message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            build("mmoe", **more)

    def test_a_sequence_that_is_not_there_is_named(self) -> None:
        with pytest.raises(ConfigError, match="bought are no sequences"):
            build("live_transformer", tokens=[["bought"]])

    def test_a_target_that_is_not_there_is_named(self) -> None:
        with pytest.raises(SpecError, match="shop are no sparse columns"):
            build("live_transformer", target=["shop"])

    def test_too_few_positives_are_counted(self) -> None:
        with pytest.raises(TooFewPositives, match="task 'stay' has too few positives"):
            fit(build("mmoe", min_positives=10**6))

    def test_one_class_only_is_refused(self) -> None:
        ones = pa.array(np.ones(TRAIN.num_rows, np.float32))
        place = TRAIN.column_names.index("label_click")
        with pytest.raises(TrainingRefused, match="task 'click' has one class only"):
            fit(build("mmoe"), TRAIN.set_column(place, "label_click", ones))

    def test_an_infinite_feature_is_named(self) -> None:
        values = TRAIN["amount"].to_numpy().copy()
        values[100] = np.inf
        place = TRAIN.column_names.index("amount")
        with pytest.raises(
            TrainingRefused, match=r"2026-11-11T00.*column 'amount' holds 1 infinite"
        ):
            fit(build("mmoe"), TRAIN.set_column(place, "amount", pa.array(values)))

    def test_a_loss_that_is_not_finite_names_the_hour_and_the_column(self) -> None:
        heavy = {"click": {}, "stay": {"kind": "log_value", "weight": 1e39}}
        with pytest.raises(TrainingRefused, match=r"2026-11-11T0\d.*'label_stay', as large as"):
            fit(build("mmoe", tasks=heavy))

    def test_weights_that_diverge_are_named(self) -> None:
        with pytest.raises(TrainingRefused, match=r"2026-11-11T0\d.*weights .* are not finite"):
            fit(build("mmoe", learning_rate=1e38))

    def test_a_champion_of_other_columns_is_refused_by_name(self) -> None:
        champion, other = build("mmoe"), build("mmoe", tasks=["click"])
        assert "only there: label_stay" in str(other.warm_refusal(champion))
        with pytest.raises(ModelError, match="no warm start"):
            fit(other, warm=champion)

    def test_weights_of_another_shape_are_refused(self, tmp_path: Path) -> None:
        build("mmoe").save(tmp_path)
        text = (tmp_path / "config.json").read_text().replace('"experts": 3', '"experts": 5')
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(ModelError, match="does not hold the weights"):
            MODELS["mmoe"].load(tmp_path)


class TestMultiTask:
    def test_a_single_task_twin_comes_from_the_same_file(self) -> None:
        for family in ("mmoe", "shared_bottom"):
            twin = build(family, tasks=["click"])
            fit(twin)
            assert twin.tasks == ("click",)
            assert click_auc(twin) > 0.7

    def test_gates_are_reported(self) -> None:
        model = build("mmoe", epochs=1)
        numbers = fit(model).numbers
        assert 0.0 <= numbers["gate_entropy_click"] <= 1.0
        assert numbers["dead_experts"] == 0.0

    def test_an_expert_that_no_gate_uses_is_dead(self) -> None:
        model = build("mmoe", epochs=1, gate_units=0, learning_rate=1e-9)
        network: Any = model.module
        with torch.no_grad():  # the last of three experts of both tasks
            for task in range(2):
                network.first.bias[3 * 32 + 3 * task + 2] = -50.0
        assert fit(model).numbers["dead_experts"] == pytest.approx(1 / 3)

    def test_immature_labels_do_not_count(self) -> None:
        """Whatever stands under a mask changes nothing."""
        model, other = build("mmoe", epochs=1), build("mmoe", epochs=1)
        hidden = pa.compute.is_null(TRAIN["label_click"])
        full = pa.compute.if_else(hidden, None, TRAIN["label_click"])
        place = TRAIN.column_names.index("label_click")
        fit(model)
        fit(other, TRAIN.set_column(place, "label_click", full))
        assert np.array_equal(model.outputs(TEST), other.outputs(TEST))
        all_open = TRAIN.set_column(place, "label_click", pa.nulls(TRAIN.num_rows, pa.float32()))
        with pytest.raises(TooFewPositives, match="0 of 0 mature"):
            fit(build("mmoe"), all_open)
