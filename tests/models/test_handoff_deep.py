"""What the registry hands over of a deep ranker: the same logits, and a place to go on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from examples import finetune_online
from models import MODELS, ModelError, SpecError
from models.deep import DeepRanker
from models.gbdt import GBDTRanker
from models.metrics import auc
from models.online import OnlineLearner
from models.registry import Registry, RegistryError, Version
from tests.models.deep_market import SPEC, TASKS, batches, config, held, market

# MLflow's own tables, under SQLAlchemy 2.1; only where the store is a database and no server.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning")

ROOT = Path(__file__).resolve().parents[2]
YESTERDAY, HOUR, NEXT = market(8_000, seed=11), market(1_500, seed=12), market(3_000, seed=13)
HANDOFF = {
    "data_hour": "2026-11-10T23",
    "trained_hours": ["2026-11-10T00", "2026-11-10T23"],
    "iceberg_snapshots": {"samples": 71, "outcomes": 72},
}

FRESH = """
import sys
from pathlib import Path

def refuse(event, arguments):
    if event == "pickle.find_class":
        raise RuntimeError(f"a pickle is loaded: {arguments}")

import numpy as np
import pyarrow.parquet as pq
from models.registry import Registry

sys.addaudithook(refuse)
uri, name, rows, out = sys.argv[1:]
loaded = Registry(uri).load(name, "champion")
np.save(out, loaded.model.outputs(pq.read_table(rows)))
"""


def fitted(family: str) -> DeepRanker:
    model = MODELS[family].build(config(family, epochs=2), SPEC)  # type: ignore[attr-defined]
    assert isinstance(model, DeepRanker)
    model.report = model.fit_batches(lambda: batches(YESTERDAY), held)  # type: ignore[attr-defined]
    return model


@pytest.fixture(scope="module", params=["mmoe", "live_transformer"])
def champion(request: pytest.FixtureRequest) -> DeepRanker:
    return fitted(request.param)


def register(registry: Registry, model: DeepRanker, folder: Path) -> Version:
    model.save(folder / "saved")
    report: Any = model.report  # type: ignore[attr-defined]
    version = registry.register(
        "ranker", "k1", folder / "saved", model.spec, report.metrics(), model.config_dict(),
        {"code_version": "0.1.0"}, HOUR.slice(0, 5).select(list(model.spec.columns)), {},
        "Trained on a day.", lambda: None, HANDOFF, report.history(),
    )  # fmt: skip
    registry.set_alias("ranker", "champion", version.version)
    return version


def test_a_fresh_process_gives_the_same_logits_without_a_pickle(
    registry: Registry, champion: DeepRanker, tmp_path: Path
) -> None:
    register(registry, champion, tmp_path)
    rows, out = tmp_path / "rows.parquet", tmp_path / "logits.npy"
    pq.write_table(NEXT, rows)
    command = [sys.executable, "-c", FRESH, registry.tracking_uri, "ranker", str(rows), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    assert np.array_equal(np.load(out), champion.outputs(NEXT))


def test_a_loaded_version_is_trainable_with_its_accumulators(
    registry: Registry, champion: DeepRanker, tmp_path: Path
) -> None:
    register(registry, champion, tmp_path)
    loaded = registry.load("ranker", "champion")
    assert loaded.spec == champion.spec
    assert loaded.handoff["data_hour"] == "2026-11-10T23"
    assert loaded.handoff["tasks"] == list(TASKS)
    assert loaded.optimizer_state is not None
    assert loaded.optimizer_state["steps"] == champion.steps
    model = loaded.model
    assert isinstance(model, DeepRanker)
    assert any(parameter.requires_grad for parameter in model.module.parameters())
    # The same step from here and from the model that was never stored.
    stored, kept = OnlineLearner(model), OnlineLearner(_copy(champion, tmp_path / "copy"))
    assert stored.update(HOUR) == kept.update(HOUR)
    assert np.array_equal(stored.model.outputs(NEXT), kept.model.outputs(NEXT))


def _copy(model: DeepRanker, folder: Path) -> DeepRanker:
    model.save(folder)
    return type(model).load(folder)


def test_curves_are_logged_by_epoch(
    registry: Registry, champion: DeepRanker, tmp_path: Path
) -> None:
    version = register(registry, champion, tmp_path)
    client = mlflow.MlflowClient(registry.tracking_uri)
    found = client.get_metric_history(version.run_id, "loss_valid_click")
    report: Any = champion.report  # type: ignore[attr-defined]
    assert [metric.step for metric in found] == [1, 2]
    assert [metric.value for metric in found] == list(report.curves["click"]["valid"])
    assert client.get_metric_history(version.run_id, "samples_per_second")


def test_pyfunc_serves_frames_with_lists(
    registry: Registry, champion: DeepRanker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = register(registry, champion, tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", registry.tracking_uri)
    model = mlflow.pyfunc.load_model(f"models:/ranker/{version.version}")
    table = NEXT.slice(0, 60).select(list(champion.spec.columns))
    found = model.predict(table.to_pandas())
    assert list(found.columns) == [*TASKS, "score"]
    assert np.allclose(found["score"].to_numpy(), champion.score(table))
    names = model.metadata.signature.inputs.input_names()
    assert names == list(champion.spec.columns)


def test_the_first_hour_online_beats_a_cold_start(
    registry: Registry, champion: DeepRanker, tmp_path: Path
) -> None:
    register(registry, champion, tmp_path)
    pq.write_table(HOUR, tmp_path / "hour.parquet")
    learner = finetune_online.finetune(
        registry, "ranker", "champion", tmp_path / "hour.parquet", 250, None
    )
    cold = MODELS[champion.family].build(config(champion.family), SPEC)  # type: ignore[attr-defined]
    beginner = OnlineLearner(cold)
    for batch in HOUR.to_batches(250):
        beginner.update(batch)
    drawn = np.random.default_rng(5).random(NEXT.num_rows) < NEXT["truth"].to_numpy()
    one, two = (
        auc(drawn.astype(float), model.predict(NEXT)["click"]) for model in (learner.model, cold)
    )
    assert one > two + 0.02
    assert learner.model.steps == champion.steps + 6


def test_the_example_is_a_program(
    registry: Registry, champion: DeepRanker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    register(registry, champion, tmp_path)
    rows = tmp_path / "hour.parquet"
    pq.write_table(HOUR, rows)
    arguments = ["--tracking-uri", registry.tracking_uri, "--name", "ranker", "--rows", str(rows)]
    assert finetune_online.main([*arguments, "--out", str(tmp_path / "tuned")]) == 0
    said = capsys.readouterr().out
    assert "batch 1, " in said
    assert "hours up to 2026-11-10T23" in said
    tuned = type(champion).load(tmp_path / "tuned")
    assert not np.array_equal(tuned.outputs(NEXT), champion.outputs(NEXT))
    assert finetune_online.main([*arguments[:-1], str(tmp_path / "none.parquet")]) == 1
    assert "there is no file" in capsys.readouterr().err
    pq.write_table(HOUR.drop_columns(["kind"]), rows)
    assert finetune_online.main(arguments) == 1
    assert "missing: kind" in capsys.readouterr().err


def test_another_feature_spec_is_refused_by_name(
    registry: Registry, champion: DeepRanker, tmp_path: Path
) -> None:
    register(registry, champion, tmp_path)
    loaded = registry.load("ranker", "champion")
    other = MODELS["wide_deep"].build(config("wide_deep"), SPEC)  # type: ignore[attr-defined]
    if other.spec != loaded.spec:
        with pytest.raises(SpecError, match="seen_kind, seen_gap"):
            loaded.spec.require(other.spec)
    with pytest.raises(RegistryError, match="has FeatureSpec"):
        registry.register(
            "ranker", "k2", tmp_path / "saved", SPEC, {}, {}, {"code_version": "1"}, HOUR, {}, "",
            lambda: None, HANDOFF,
        )  # fmt: skip


def test_trees_take_no_gradient_steps(fitted: GBDTRanker) -> None:
    with pytest.raises(ModelError, match="family gbdt takes no gradient steps"):
        OnlineLearner(fitted)


def test_a_batch_that_cannot_be_learned_from_changes_nothing(champion: DeepRanker) -> None:
    place = HOUR.column_names.index("label_stay")
    bad = HOUR.set_column(place, "label_stay", pa.array(np.full(HOUR.num_rows, -1.0, np.float32)))
    before = champion.outputs(NEXT)
    with pytest.raises(ModelError, match="label 'label_stay' holds -1"):
        OnlineLearner(champion).update(bad)
    assert np.array_equal(champion.outputs(NEXT), before)
