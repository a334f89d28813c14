"""The loop and what it stands on: order of rows, the optimizer, layers, checkpoints, debiasing."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import nn

from models import MODELS, FeatureSpec, ModelError, SparseColumn
from models.base import SequenceColumn
from models.encoding import Encoder, Rows
from models.layers import EmbeddingTables, InputLayer, TargetAttention, TransformerEncoder
from models.network import BiasNet
from models.optimizer import Adam
from models.row_files import RowFiles, write_rows
from models.trainer import Trainer
from tests.models.deep_market import CURVE, SPEC, batches, config, held, market

TABLE = market(6_000, seed=3)


def files(folder: Path, rows: int, widest: int = 6) -> RowFiles:
    """Rows that hold their own number, with sequences of drawn lengths."""
    lengths = np.random.default_rng(0).integers(0, widest + 1, rows)
    sequences = (np.arange(widest) >= widest - lengths[:, None]).astype(np.int32)
    number = np.arange(rows, dtype=np.int32)[:, None]
    with RowFiles(folder) as found:
        for start in range(0, rows, 700):
            cut = slice(start, start + 700)
            part = Rows(
                number[cut].astype(np.float32),
                number[cut],
                sequences[cut],
                number[cut],
                number[cut].astype(np.float32),
            )
            found.append(part, [f"h{start}"] * part.size)
    return found


class TestOrder:
    def test_an_epoch_has_every_row_once(self, tmp_path: Path) -> None:
        rows = files(tmp_path, 5_003)
        for epoch in (0, 1):
            seen = np.concatenate(
                [part.sparse[:, 0] for _, part in rows.shuffled(64, 1_000, 7, epoch)]
            )
            assert np.array_equal(np.sort(seen), np.arange(5_003))
            assert not np.array_equal(seen, np.arange(5_003))

    def test_epochs_differ_and_seeds_do(self, tmp_path: Path) -> None:
        rows = files(tmp_path, 500)
        first = [next(rows.shuffled(64, 200, *of))[1].sparse for of in ((7, 0), (7, 1), (8, 0))]
        assert not np.array_equal(first[0], first[1])
        assert not np.array_equal(first[0], first[2])

    @pytest.mark.parametrize("done", [1, 15, 16, 17, 40, 79])
    def test_from_a_batch_on_it_goes_as_it_would_have(self, tmp_path: Path, done: int) -> None:
        rows = files(tmp_path, 5_003)
        whole = [places.tolist() for places, _ in rows.shuffled(64, 1_000, 7, 0)]
        rest = [places.tolist() for places, _ in rows.shuffled(64, 1_000, 7, 0, done)]
        assert rest == whole[done:]

    def test_batches_hold_rows_of_like_lengths(self, tmp_path: Path) -> None:
        rows = files(tmp_path, 4_096)
        found = list(rows.shuffled(64, 4_096, 7, 0))
        padded = sum(part.size * np.count_nonzero(part.sequences.any(0)) for _, part in found)
        needed = sum(np.count_nonzero(part.sequences) for _, part in found)
        assert padded < 1.25 * needed  # in any order it is 2

    def test_places_and_hours_are_the_rows(self, tmp_path: Path) -> None:
        rows = files(tmp_path, 2_000)
        for places, part in rows.shuffled(64, 1_000, 7, 0):
            assert np.array_equal(part.sparse[:, 0], places)
        assert rows.hours(np.array([0, 1500])) == ["h0", "h1400"]

    def test_held_rows_are_written_apart(self, tmp_path: Path) -> None:
        train, valid, moments = write_rows(batches(TABLE), Encoder(SPEC), tmp_path, held)
        assert train.count + valid.count == TABLE.num_rows
        assert moments.rows == train.count
        assert valid.count == sum(held(batch).sum() for batch in batches(TABLE))

    def test_moments_are_those_of_the_rows(self, tmp_path: Path) -> None:
        train, _, moments = write_rows(batches(TABLE), Encoder(SPEC), tmp_path, None)
        dense = train.rows(slice(None)).dense.astype(np.float64)
        assert np.allclose(moments.mean(), np.nanmean(dense, 0))
        assert np.allclose(1 / moments.scale(), np.nanstd(dense, 0))
        labels = train.rows(slice(None)).labels
        assert moments.mature.tolist() == (~np.isnan(labels)).sum(0).tolist()
        assert moments.positives.tolist() == (labels > 0).sum(0).tolist()


WIDE = FeatureSpec(
    dense=("x", "y"),
    sparse=(SparseColumn("a", 8), SparseColumn("big", 5000), SparseColumn("b", 8, table="c"),
            SparseColumn("d", 20, table="e")),
    sequences=(SequenceColumn("s", 5000, 4, table="big"), SequenceColumn("t", 8, 4, table="c")),
)  # fmt: skip


class TestLayers:
    def test_the_first_layer_is_a_linear_layer_on_everything(self) -> None:
        torch.manual_seed(0)
        tables = EmbeddingTables(WIDE.tables(), 4)
        tables.large.data.normal_()
        layer = InputLayer(WIDE, tables, 16, vectors=3)
        dense, vectors = torch.randn(9, 2), torch.randn(9, 3)
        sparse = torch.stack([torch.randint(0, c.buckets, (9,)) for c in WIDE.sparse], 1).int()
        found = layer(tables, dense, sparse, vectors)
        wanted = layer.bias + dense @ layer.dense + vectors @ layer.vectors
        small = [("a", 0), ("b", 2), ("d", 3)]
        for place, (_, column) in enumerate(small):
            start, _ = tables.span(WIDE.sparse[column])
            rows = tables.small[start + sparse[:, column].long()]
            wanted = wanted + rows @ layer.small[4 * place : 4 * place + 4]
        start, _ = tables.span(WIDE.sparse[1])
        wanted = wanted + tables.large[start + sparse[:, 1].long()] @ layer.large
        assert torch.allclose(found, wanted, atol=1e-5)

    def test_attention_is_the_same_however_long_the_padding(self) -> None:
        torch.manual_seed(0)
        attention = TargetAttention(8)
        elements, target = torch.randn(3, 5, 8), torch.randn(3, 8)
        filled = torch.tensor([[True] * 5, [False] * 2 + [True] * 3, [False] * 5])
        short = attention(elements, target, filled)
        beside = torch.cat([torch.full((3, 30, 8), 1e3), elements], 1)
        mask = torch.cat([torch.zeros(3, 30, dtype=torch.bool), filled], 1)
        assert torch.allclose(attention(beside, target, mask), short, atol=1e-5)
        assert not short[2].any()

    def test_padding_changes_nothing(self) -> None:
        torch.manual_seed(0)
        encoder = TransformerEncoder(8, 2, 2, 16)
        tokens, filled = torch.randn(3, 5, 8), torch.ones(3, 5, dtype=torch.bool)
        padded = torch.cat([torch.full((3, 4, 8), 1e3), tokens], 1)
        mask = torch.cat([torch.zeros(3, 4, dtype=torch.bool), filled], 1)
        for causal in (False, True):
            alone, beside = encoder(tokens, filled, causal), encoder(padded, mask, causal)
            assert torch.allclose(alone, beside[:, 4:], atol=1e-5)

    def test_a_causal_token_knows_nothing_of_later_ones(self) -> None:
        torch.manual_seed(0)
        encoder = TransformerEncoder(8, 2, 2, 16)
        tokens, filled = torch.randn(2, 6, 8), torch.ones(2, 6, dtype=torch.bool)
        changed = tokens.clone()
        changed[:, 4:] += torch.randn(2, 2, 8)
        one, two = (encoder(given, filled, True) for given in (tokens, changed))
        assert torch.allclose(one[:, :4], two[:, :4], atol=1e-6)
        assert not torch.allclose(one[:, 4], two[:, 4], atol=1e-3)


class _Toy(nn.Module):
    """One column of a large table, summed."""

    def __init__(self) -> None:
        super().__init__()
        self.column = SparseColumn("big", 5000)
        self.tables = EmbeddingTables({"big": [self.column]}, 3)
        self.out = nn.Linear(3, 1)

    def forward(self, codes: torch.Tensor) -> torch.Tensor:
        return self.out(self.tables([self.column] * 2, codes).sum(1))


class TestOptimizer:
    def test_rows_that_every_batch_reads_follow_adam(self) -> None:
        """Beside torch's Adam on the same table; rows 1 to 4 are read in every step."""
        torch.manual_seed(0)
        toy = _Toy()
        table = nn.Parameter(toy.tables.large.detach()[:5].clone())
        out = copy.deepcopy(toy.out)
        adam, peer = Adam(toy, 0.01), torch.optim.Adam([table, *out.parameters()], 0.01)
        codes = torch.tensor([[1, 2], [3, 4], [1, 1]], dtype=torch.int32)
        wanted = torch.randn(3, 1)
        for _ in range(30):
            adam.zero()
            (toy(codes) - wanted).square().mean().backward()
            adam.step()
            peer.zero_grad()
            (out(table[codes.long()].sum(1)) - wanted).square().mean().backward()
            peer.step()
        assert torch.allclose(toy.tables.large[:5], table, atol=1e-6)
        assert torch.allclose(toy.out.weight, out.weight, atol=1e-6)
        assert not toy.tables.large[5:].any()

    def test_the_compiled_update_is_the_one_of_other_devices(self) -> None:
        torch.manual_seed(0)
        one = _Toy()
        two = copy.deepcopy(one)
        compiled, plain = Adam(one, 0.01), Adam(two, 0.01)
        plain._slots.clear()
        for _ in range(10):
            codes = torch.randint(0, 50, (16, 2), dtype=torch.int32)
            for toy, adam in ((one, compiled), (two, plain)):
                adam.zero()
                (toy(codes) - 1.0).square().mean().backward()
                adam.step()
        assert torch.allclose(one.tables.large, two.tables.large, atol=1e-7)

    def test_what_is_restored_goes_on_to_the_bit(self) -> None:
        torch.manual_seed(0)
        one = _Toy()
        adam = Adam(one, 0.01)

        def steps(toy: _Toy, optimizer: Adam, count: int) -> None:
            for step in range(count):
                codes = torch.tensor([[1 + step % 3, 2]], dtype=torch.int32)
                optimizer.zero()
                (toy(codes) - 1.0).square().mean().backward()
                optimizer.step()

        steps(one, adam, 6)
        two = copy.deepcopy(one)
        other = Adam(two, 0.01)
        other.restore(adam.accumulators(), adam.steps)
        steps(one, adam, 5)
        steps(two, other, 5)
        assert torch.equal(one.tables.large, two.tables.large)
        assert torch.equal(one.out.weight, two.out.weight)

    def test_a_spike_cannot_pass_the_norm_bound(self) -> None:
        toy = _Toy()
        adam = Adam(toy, 0.01, clip_norm=1.0)
        (toy(torch.tensor([[1, 2]], dtype=torch.int32)) * 1e6).sum().backward()
        adam.step()
        total = torch.sqrt(sum(p.grad.square().sum() for p in toy.out.parameters()))
        assert total <= 1.0 + 1e-5


class KilledError(Exception):
    """Stands for the end of the process."""


def fit(model: Any, **more: Any) -> Any:
    return model.fit_batches(lambda: batches(TABLE), held, **more)


@pytest.mark.parametrize("killed_at", [3, 25, 61])
@pytest.mark.parametrize("family", ["mmoe", "live_transformer"])
def test_killed_and_resumed_it_ends_with_the_same_weights(
    family: str, killed_at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = config(family, epochs=3, checkpoint_batches=4, dropout=0.1)
    if family == "mmoe":
        small.pop("dropout")
    whole = MODELS[family].build(small, SPEC)
    fit(whole, folder=tmp_path / "whole")

    seen: list[int] = []
    step = Trainer.step

    def counted(self: Trainer, rows: Rows, *more: Any) -> Any:
        if len(seen) == killed_at:
            raise KilledError
        seen.append(rows.size)
        return step(self, rows, *more)

    monkeypatch.setattr(Trainer, "step", counted)
    with pytest.raises(KilledError):
        fit(MODELS[family].build(small, SPEC), folder=tmp_path / "killed")
    monkeypatch.setattr(Trainer, "step", step)
    told: list[str] = []
    resumed = MODELS[family].build(small, SPEC)
    fit(resumed, folder=tmp_path / "killed", progress=told.append)
    assert any("going on from a checkpoint" in line for line in told) == (killed_at >= 4)
    for name, value in whole.module.state_dict().items():
        assert torch.equal(value, resumed.module.state_dict()[name]), name
    for name, value in whole.accumulators.items():
        assert torch.equal(value, resumed.accumulators[name]), name
    assert resumed.steps == whole.steps


def test_an_epoch_trains_as_many_as_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    step = Trainer.step

    def counted(self: Trainer, rows: Rows, *more: Any) -> Any:
        sizes.append(rows.size)
        return step(self, rows, *more)

    monkeypatch.setattr(Trainer, "step", counted)
    fit(MODELS["mmoe"].build(config("mmoe", epochs=2, max_samples=1_000), SPEC))
    assert sum(sizes) == 2 * 1_024


def test_a_checkpoint_of_another_fit_is_refused(tmp_path: Path) -> None:
    fit(MODELS["mmoe"].build(config("mmoe", epochs=1), SPEC), folder=tmp_path)
    with pytest.raises(ModelError, match="checkpoint of another fit"):
        fit(MODELS["mmoe"].build(config("mmoe", epochs=2), SPEC), folder=tmp_path)


def test_the_best_epoch_is_kept_and_patience_ends_the_fit() -> None:
    model = MODELS["mmoe"].build(config("mmoe", epochs=30, patience=2, learning_rate=0.02), SPEC)
    report = fit(model)
    losses = np.array(report.curves["click"]["valid"]) + 0.3 * np.array(
        report.curves["stay"]["valid"]
    )
    assert len(losses) < 30
    assert report.rounds["click"] == int(losses.argmin()) + 1 == len(losses) - 2


def test_the_self_supervised_loss_falls_and_is_refused_where_there_is_none() -> None:
    given = config("live_transformer", pretrain_epochs=3, epochs=1)
    report = fit(MODELS["live_transformer"].build(given, SPEC))
    curve = report.curves["click"]["train"]
    assert curve[0] > curve[1] > curve[2]
    with pytest.raises(ModelError, match="no self-supervised loss"):
        fit(MODELS["mmoe"].build(config("mmoe", pretrain_epochs=1), SPEC))


def test_the_next_item_is_found_where_it_follows_from_the_last() -> None:
    """Everybody goes round the same circle of kinds."""
    draw = np.random.default_rng(0)
    circle = [f"k{number}" for number in range(12)]
    starts, lengths = draw.integers(0, 12, 1_500), draw.integers(2, 10, 1_500)
    walks = [[circle[(s + i) % 12] for i in range(n)] for s, n in zip(starts, lengths, strict=True)]
    spec = FeatureSpec(sequences=(SequenceColumn("seen", 16, 10, kind="vocabulary"),))
    for candidates in (0, 5):
        model = MODELS["live_transformer"].build(
            {"tasks": ["click"], "tokens": [["seen"]], "target": [], "embedding": 16, "epochs": 1,
             "pretrain_epochs": 6, "batch_size": 64, "learning_rate": 0.01, "min_positives": 0,
             "candidates": candidates},
            spec,
        )  # fmt: skip
        table = pa.table(
            {
                "seen": pa.array(walks, pa.list_(pa.string())),
                "label_click": pa.array(draw.integers(0, 2, 1_500).astype(np.float32)),
            }
        )
        model.fit_batches(lambda t=table: batches(t), lambda b: np.arange(b.num_rows) % 9 == 0)
        rows = model.encode(pa.table({"seen": [walks[0]], "label_click": [0.0]}), grow=False)
        with torch.no_grad():
            batch = type("B", (), {"sequences": torch.from_numpy(rows.sequences)})
            best = int(model.module.next_item_scores(batch).argmax())
        texts = model.encoder.vocabularies["seen"].texts.to_pylist()
        after = (circle.index(walks[0][-1]) + 1) % 12
        assert texts[best - 2] == circle[after]


class TestDebiasing:
    def test_the_position_curve_is_recovered(self) -> None:
        model = MODELS["mmoe"].build(config("mmoe", debias="bias_net", epochs=6), SPEC)
        table = market(20_000, seed=4)
        model.fit_batches(lambda: batches(table), held)
        bias = model.module
        assert isinstance(bias, BiasNet)
        with torch.no_grad():
            found = bias.bias(torch.arange(1, len(CURVE) + 1)[:, None])[
                :, model.tasks.index("click")
            ].numpy()
        assert np.corrcoef(found, CURVE)[0, 1] > 0.98
        assert found[0] - found[-1] == pytest.approx(CURVE[0] - CURVE[-1], rel=0.3)

    @pytest.mark.parametrize("debias", ["feature", "bias_net"])
    def test_scores_do_not_depend_on_the_position(self, debias: str) -> None:
        model = MODELS["mmoe"].build(config("mmoe", debias=debias, epochs=1), SPEC)
        fit(model)
        place = TABLE.column_names.index("position")
        last = pa.array(np.full(TABLE.num_rows, 8, np.int32))
        assert np.array_equal(
            model.score(TABLE), model.score(TABLE.set_column(place, "position", last))
        )

    def test_probabilities_stay_calibrated_on_average(self) -> None:
        model = MODELS["mmoe"].build(config("mmoe", debias="bias_net"), SPEC)
        fit(model)
        mean = np.nanmean(TABLE["label_click"].to_numpy())
        assert model.predict(TABLE)["click"].mean() == pytest.approx(mean, rel=0.1)
