"""The deep rankers' common part: from Arrow streams to a fitted network, and back from a folder.

A family is a subclass with a frozen configuration and a ``network``; everything else is here. What
is saved can be trained on: weights, the optimizer's accumulators and the vocabularies, as
safetensors and Parquet.
"""

from __future__ import annotations

import abc
import hashlib
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Final, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor, nn

from models.base import (
    CONFIG_FILE,
    SPEC_FILE,
    FeatureSpec,
    FitReport,
    ModelError,
    Progress,
    Ranker,
    TooFewPositives,
    TrainingRefused,
    read_json,
    silent,
    write_json,
)
from models.deep_config import DeepConfig
from models.deep_files import read_state, write_state
from models.encoding import Encoder, Rows
from models.layers import DenseNorm
from models.network import BiasNet, Network, tensors
from models.objectives import BINARY, Task, ranking_score, readings
from models.row_files import Held, Moments, RowFiles, write_rows
from models.trainer import Trainer, device
from models.training import Trained, fit_network

__all__ = ["Batches", "DeepRanker"]

Batches = Callable[[], Iterator[pa.RecordBatch]]
"""Opens a stream of rows; every call gives the same rows in the same order."""

_SCORED: Final = 8192
_SHOWN_ROWS: Final = 20_000


class DeepRanker(Ranker, abc.ABC):
    """A ranker whose network is trained by :mod:`models.training`.

    A subclass sets ``family``, ``config_class`` and ``network_class``.

    Args:
        spec: may hold more than the family reads; ``spec`` of the model is what it reads.
    """

    packages: ClassVar[tuple[str, ...]] = ("torch", "safetensors", "numba")
    config_class: ClassVar[type[DeepConfig]]
    network_class: ClassVar[type[Network]]
    reads_sequences: ClassVar[bool] = False

    def __init__(self, config: DeepConfig, spec: FeatureSpec) -> None:
        self.config = config
        self._tasks = config.parsed_tasks
        self.spec = self.narrowed(config, spec)
        self.encoder = Encoder(self.spec)
        self.accumulators: dict[str, Tensor] = {}
        self.steps = 0
        self._place = device(config.training.device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.training.seed)
            network = self.network_class(config, self.spec)
            self.module: nn.Module = BiasNet(network) if config.debias == "bias_net" else network
        self.module.to(self._place)

    @classmethod
    def build(cls, config: Mapping[str, Any], spec: FeatureSpec) -> Self:
        """A model of plain configuration values.

        Raises:
            ConfigError: for a configuration that cannot be used.
            SpecError: for a FeatureSpec that does not hold what the family reads.
        """
        return cls(cls.config_class.from_dict(config), spec)

    @classmethod
    def config_tasks(cls, config: Mapping[str, Any]) -> tuple[str, ...]:
        """The names of the tasks of plain configuration values."""
        return tuple(task.name for task in cls.config_class.from_dict(config).parsed_tasks)

    @classmethod
    def narrowed(cls, config: DeepConfig, spec: FeatureSpec) -> FeatureSpec:
        """What of ``spec`` a model of ``config`` reads."""
        return FeatureSpec(
            dense=spec.dense,
            sparse=spec.sparse,
            sequences=spec.sequences if cls.reads_sequences else (),
            pretrained=spec.pretrained,
            labels=tuple(task.label for task in config.parsed_tasks),
            training_only=spec.training_only if config.debias != "none" else (),
        )

    @property
    def tasks(self) -> tuple[str, ...]:
        return tuple(task.name for task in self._tasks)

    @property
    def tree_version(self) -> str:
        return ""

    @property
    def objectives(self) -> tuple[Task, ...]:
        """The tasks with their kinds and weights."""
        return self._tasks

    @property
    def optimizer_state(self) -> Mapping[str, Any]:
        """``steps``, and the moments by parameter, ``<parameter>.first`` and ``.second``."""
        return {"steps": self.steps, **self.accumulators}

    @property
    def parameters(self) -> int:
        """How many numbers are learned, embedding tables included."""
        return sum(parameter.numel() for parameter in self.module.parameters())

    def config_dict(self) -> dict[str, Any]:
        # Tasks as a list: JSON is written with sorted keys, and their order is that of the outputs.
        body = {**asdict(self.config), "tasks": [asdict(task) for task in self._tasks]}
        return json.loads(json.dumps(body))  # type: ignore[no-any-return]

    # Fitting ----------------------------------------------------------------------------------

    def fit(self, train: pa.Table, valid: pa.Table, progress: Progress = silent) -> FitReport:
        """Fit on ``train``, stopping early on ``valid``; see :meth:`fit_batches`."""
        with tempfile.TemporaryDirectory(prefix="rankmill-") as scratch:
            began = time.perf_counter()
            rows, _, moments = write_rows(
                train.to_batches(_SCORED), self.encoder, Path(scratch) / "a", None
            )
            held, _, _ = write_rows(
                valid.to_batches(_SCORED), self.encoder, Path(scratch) / "b", None, grow=False
            )
            self._normalise(moments)
            return self._fitted(rows, held, moments, progress, None, began)

    def fit_batches(
        self, rows: Batches, held: Held, progress: Progress = silent, folder: Path | None = None,
        warm: DeepRanker | None = None, watch: Callable[[int], None] | None = None,
    ) -> FitReport:  # fmt: skip
        """Fit on a stream, in memory that does not grow with it.

        Args:
            rows: record batches with the columns of ``spec``, its labels and, to be named in
                messages, ``hour``.
            held: which rows are kept for early stopping; the others are fitted.
            folder: for the encoded rows and checkpoints; a fit that was killed goes on from there.
            warm: start from its weights, accumulators, normalisation and vocabularies.
            watch: called after every epoch with its number, from 0.

        Raises:
            SpecError: for batches that do not fit the spec.
            TrainingRefused: too few positives, one class only, a loss that is not finite.
            ModelError: for a ``warm`` that does not fit, or a checkpoint of another fit.
        """
        began = time.perf_counter()
        if warm is not None:
            self._warm_from(warm)
        with ExitStack() as stack:
            if folder is None:
                scratch = tempfile.TemporaryDirectory(prefix="rankmill-")
                folder = Path(stack.enter_context(scratch))
            train, valid, moments = write_rows(rows(), self.encoder, folder / "rows", held)
            progress(
                f"read {train.count + valid.count:,} rows in {time.perf_counter() - began:.1f} s: "
                f"{train.count:,} to fit on, {valid.count:,} to stop early by"
            )
            if warm is None:
                self._normalise(moments)
            return self._fitted(train, valid, moments, progress, folder, began, watch)

    def _fitted(
        self, train: RowFiles, valid: RowFiles, moments: Moments, progress: Progress,
        folder: Path | None, began: float, watch: Callable[[int], None] | None = None,
    ) -> FitReport:  # fmt: skip
        counts = self._require_both_classes(moments)
        encoded = time.perf_counter() - began
        trainer = self.trainer()
        done = fit_network(
            trainer, train, valid, self.config.training, progress, folder,
            self._fingerprint(train), watch,
        )  # fmt: skip
        self.accumulators, self.steps = done.accumulators, done.steps
        self._keep_mean_bias(train)
        return self._report(done, counts, encoded, time.perf_counter() - began, valid)

    def trainer(self) -> Trainer:
        """The network with its accumulators, to be updated batch by batch."""
        trainer = Trainer(self.module, self._tasks, self.config.training)
        trainer.optimizer.restore(self.accumulators, self.steps)
        return trainer

    def encode(self, table: pa.Table | pa.RecordBatch, *, grow: bool = True) -> Rows:
        """Labelled rows for :meth:`models.trainer.Trainer.step`."""
        return self.encoder.encode(table, train=True, grow=grow)

    def adopt(self, trainer: Trainer) -> None:
        """Keep the accumulators of ``trainer``, whose steps changed this model's weights."""
        self.accumulators = trainer.optimizer.accumulators()
        self.steps = trainer.optimizer.steps

    def _normalise(self, moments: Moments) -> None:
        for module in self.module.modules():
            if isinstance(module, DenseNorm):
                module.mean.copy_(torch.from_numpy(moments.mean()))
                module.scale.copy_(torch.from_numpy(moments.scale()))

    def _require_both_classes(self, moments: Moments) -> dict[str, tuple[int, int, int]]:
        """Mature rows, positives and immature rows of every task among the rows to fit on.

        Raises:
            TrainingRefused: when a task cannot be learned from them.
        """
        counts = {}
        for place, task in enumerate(self._tasks):
            mature, positives = int(moments.mature[place]), int(moments.positives[place])
            immature = moments.rows - mature
            counts[task.name] = (mature, positives, immature)
            if task.kind == BINARY and mature and positives == mature:
                raise TrainingRefused(
                    f"task {task.name!r} has one class only: all of its {mature:,} mature training "
                    "rows are positive; check the label's action and its window"
                )
            if positives < self.config.min_positives:
                raise TooFewPositives(
                    f"task {task.name!r} has too few positives: {positives:,} of {mature:,} mature "
                    f"training rows ({immature:,} immature), and {self.config.min_positives:,} are "
                    "wanted; train on a longer span, lower min_positives or drop the task"
                )
        return counts

    def _fingerprint(self, train: RowFiles) -> str:
        said = json.dumps([self.family, self.config_dict(), self.spec.sha, train.count])
        return hashlib.sha256(said.encode()).hexdigest()

    def _keep_mean_bias(self, train: RowFiles) -> None:
        if not isinstance(self.module, BiasNet):
            return
        summed = torch.zeros(len(self._tasks), device=self._place)
        with torch.no_grad():
            for rows in train.batches(_SHOWN_ROWS):
                summed += self.module.bias(tensors(rows, self._place).extra).sum(0)
            self.module.offset.copy_(summed / max(train.count, 1))

    def _report(
        self, done: Trained, counts: Mapping[str, tuple[int, int, int]], encoded: float,
        seconds: float, valid: RowFiles,
    ) -> FitReport:  # fmt: skip
        curves = {
            name: {
                "train": tuple(epoch[place] for epoch in done.train),
                "valid": tuple(epoch[place] for epoch in done.valid),
            }
            for place, name in enumerate(self.tasks)
        }
        return FitReport(
            rounds=dict.fromkeys(self.tasks, done.best + 1),
            curves=curves,
            importances={},
            rows={name: mature for name, (mature, _, _) in counts.items()},
            positives={name: positives for name, (_, positives, _) in counts.items()},
            immature={name: immature for name, (_, _, immature) in counts.items()},
            seconds=seconds,
            seconds_by_step={"read": encoded, "train": seconds - encoded},
            speeds=tuple(done.samples_per_second),
            numbers={
                "samples_per_second": float(np.mean(done.samples_per_second or [0.0])),
                "parameters": float(self.parameters),
                **self._diagnostics(valid),
            },
        )

    def _diagnostics(self, valid: RowFiles) -> dict[str, float]:
        network = self.module.network if isinstance(self.module, BiasNet) else self.module
        if not valid.count or not isinstance(network, Network):
            return {}
        self.module.eval()
        with torch.no_grad():
            rows = tensors(valid.rows(slice(0, _SHOWN_ROWS)), self._place)
            return dict(network.diagnostics(rows))

    # Warm start -------------------------------------------------------------------------------

    def warm_refusal(self, champion: Ranker) -> str | None:
        """Why a fit cannot start from ``champion``; None when it can."""
        if not isinstance(champion, DeepRanker) or champion.family != self.family:
            return f"it is of family {champion.family}, not {self.family}"
        if champion.spec.sha != self.spec.sha:
            try:
                self.spec.require(champion.spec)
            except ModelError as error:
                return str(error)
        mine = {n: tuple(v.shape) for n, v in self.module.state_dict().items()}
        theirs = {n: tuple(v.shape) for n, v in champion.module.state_dict().items()}
        other = sorted(n for n in set(mine) | set(theirs) if mine.get(n) != theirs.get(n))
        if other:
            return f"its weights {', '.join(other[:3])} have other shapes"
        return None

    def _warm_from(self, champion: DeepRanker) -> None:
        reason = self.warm_refusal(champion)
        if reason is not None:
            raise ModelError(f"no warm start: {reason}; train from scratch")
        self.module.load_state_dict(champion.module.state_dict())
        self.encoder = Encoder(self.spec, champion.encoder.vocabularies)
        self.accumulators = {k: v.clone() for k, v in champion.accumulators.items()}
        self.steps = champion.steps

    # Scoring ----------------------------------------------------------------------------------

    def outputs(self, table: pa.Table) -> npt.NDArray[np.float32]:
        """Logits, or log(1 + value), of every task: (rows, T). Positions are not read."""
        self.module.eval()
        found = [np.empty((0, len(self._tasks)), np.float32)]
        with torch.inference_mode():
            for batch in table.to_batches(_SCORED):
                rows = tensors(self.encoder.encode(batch), self._place)
                found.append(self.module(rows).cpu().numpy())
        return np.concatenate(found)

    @property
    def probabilities(self) -> tuple[str, ...]:
        return tuple(task.name for task in self._tasks if task.kind == BINARY)

    def predict(self, table: pa.Table) -> dict[str, npt.NDArray[np.float64]]:
        """Per task the probability of a positive label, or the expected value, (rows,)."""
        self.spec.check(table)
        return readings(self._tasks, self.outputs(table))

    def combine(
        self, predictions: Mapping[str, npt.NDArray[np.float64]]
    ) -> npt.NDArray[np.float64]:
        """The sum of probabilities and log(1 + value)s by the tasks' score weights, (rows,)."""
        return ranking_score(self._tasks, predictions)

    # Folders ----------------------------------------------------------------------------------

    def save(self, folder: Path) -> None:
        """Write configuration, FeatureSpec, weights, accumulators and vocabularies."""
        folder.mkdir(parents=True, exist_ok=True)
        write_state(folder, self.module.state_dict(), self.accumulators, self.encoder.vocabularies)
        (folder / SPEC_FILE).write_text(self.spec.to_json() + "\n", encoding="utf-8")
        write_json(
            folder / CONFIG_FILE,
            {
                "family": self.family,
                "config": self.config_dict(),
                "tree_version": "",
                "steps": self.steps,
                "dense_transform": "sign(x) * log(1 + abs(x)), then normalised by the weights",
            },
        )

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The model saved in ``folder``, ready to score and to be trained on.

        Raises:
            ModelError: for a missing file, or weights that are not this configuration's.
        """
        saved = read_json(folder / CONFIG_FILE)
        spec = FeatureSpec.from_json((folder / SPEC_FILE).read_text(encoding="utf-8"))
        model = cls.build(saved["config"], spec)
        weights, model.accumulators, vocabularies = read_state(folder, model.spec)
        try:
            model.module.load_state_dict(weights)
        except RuntimeError as error:
            raise ModelError(
                f"{folder} does not hold the weights of its configuration ({error}); register the "
                "model again"
            ) from error
        model.steps = int(saved["steps"])
        model.encoder = Encoder(model.spec, vocabularies)
        return model
