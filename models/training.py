"""The training loop, the only one: batches of encoded rows to weights and accumulators.

An epoch ends with the loss on the rows kept for early stopping; the best epoch's weights and
accumulators are what a fit leaves. A checkpoint holds all that the loop knows, so that a fit that
was killed goes on at the batch where it stopped and ends with the very same weights.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from models.encoding import Rows
from models.errors import ModelError, TrainingRefused
from models.row_files import RowFiles
from models.trainer import Trainer, TrainingConfig

__all__ = ["Trained", "fit_network"]

_EVERY_SECONDS: Final = 5.0
_CHECKPOINT: Final = "checkpoint.safetensors"


@dataclass
class Trained:
    """What a fit did.

    Attributes:
        train: mean loss by epoch and task; ``valid``: the same on the early-stopping rows.
        best: number of the epoch whose weights were kept, from 0.
        samples_per_second: rows trained a second, by epoch, reading included.
        steps: of the optimizer, at the best epoch.
        accumulators: of the best epoch.
    """

    train: list[list[float]] = field(default_factory=list)
    valid: list[list[float]] = field(default_factory=list)
    samples_per_second: list[float] = field(default_factory=list)
    best: int = -1
    best_loss: float = math.inf
    steps: int = 0
    accumulators: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class _Place:
    """Where the loop stands: ``batch`` batches of ``epoch`` are done."""

    epoch: int = 0
    batch: int = 0
    summed: list[float] = field(default_factory=list)
    rows: list[float] = field(default_factory=list)


class _Fit:
    def __init__(
        self, trainer: Trainer, train: RowFiles, valid: RowFiles, config: TrainingConfig,
        progress: Callable[[str], None], folder: Path | None, fingerprint: str,
        watch: Callable[[int], None] | None,
    ) -> None:  # fmt: skip
        self.trainer, self.train, self.valid, self.watch = trainer, train, valid, watch
        self.config, self.progress = config, progress
        self.path = folder / _CHECKPOINT if folder is not None else None
        self.fingerprint = fingerprint
        self.done = Trained()
        self.best: dict[str, Tensor] = {}
        self.epochs = config.pretrain_epochs + config.epochs
        rows = min(train.count, config.max_samples or train.count)
        self.batches = -(-rows // config.batch_size)

    def run(self) -> Trained:
        place = self._resumed()
        torch.manual_seed(self.config.seed + place.epoch)
        while place.epoch < self.epochs and not self._exhausted(place.epoch):
            self._epoch(place)
            if self.watch is not None:
                self.watch(place.epoch)
            place = _Place(place.epoch + 1)
            self._checkpoint(place)
        self.trainer.network.load_state_dict(self.best)
        return self.done

    def _exhausted(self, epoch: int) -> bool:
        last_better = max(self.done.best, self.config.pretrain_epochs - 1)
        return epoch - 1 - last_better >= self.config.patience

    def _epoch(self, place: _Place) -> None:
        config, tasks = self.config, self.trainer.tasks
        if not place.batch:
            place.summed, place.rows = [0.0] * len(tasks), [0.0] * len(tasks)
        summed, mature = np.array(place.summed), np.array(place.rows)
        began = said = time.monotonic()
        seen = 0
        order = self.train.shuffled(
            config.batch_size, config.window, config.seed, place.epoch, place.batch
        )
        for places, rows in islice(order, self.batches - place.batch):
            torch.manual_seed(hash((config.seed, place.epoch, place.batch)) % 2**63)
            found, counted = self._step(place, places, rows)
            values, counts = found.double().cpu().numpy(), counted.cpu().numpy()
            summed += values * counts
            mature += counts
            place.batch += 1
            seen += rows.size
            if time.monotonic() - said > _EVERY_SECONDS:
                said = time.monotonic()
                self._say(place, seen / (said - began), summed, mature)
            if place.batch % config.checkpoint_batches == 0:
                place.summed, place.rows = summed.tolist(), mature.tolist()
                self._checkpoint(place)
        self.done.samples_per_second.append(seen / max(time.monotonic() - began, 1e-9))
        self.done.train.append((summed / np.maximum(mature, 1)).tolist())
        self._judge(place.epoch)

    def _scale(self, place: _Place) -> float:
        if self.config.schedule == "constant":
            return 1.0
        total = self.epochs * self.batches
        return 1.0 - 0.9 * (place.epoch * self.batches + place.batch) / max(total, 1)

    def _judge(self, epoch: int) -> None:
        by_task = self.trainer.loss(self.valid, epoch < self.config.pretrain_epochs)
        loss = self.trainer.weighted(by_task)
        if not self.valid.count:
            by_task = np.array(self.done.train[-1])
            loss = -epoch  # nothing to stop by: the last epoch is kept
        self.done.valid.append(by_task.tolist())
        if loss < self.done.best_loss and epoch >= self.config.pretrain_epochs:
            self.done.best, self.done.best_loss = epoch, loss
            self.done.steps = self.trainer.optimizer.steps
            self.done.accumulators = self.trainer.optimizer.accumulators()
            self.best = _copied(self.trainer.network)
        shown = ", ".join(
            f"{task.name} {train:.5f} / {valid:.5f}"
            for task, train, valid in zip(
                self.trainer.tasks, self.done.train[-1], by_task, strict=True
            )
        )
        self.progress(
            f"epoch {epoch + 1}/{self.epochs}: loss train / held {shown}, "
            f"{self.done.samples_per_second[-1]:,.0f} samples/s"
        )

    def _say(
        self, place: _Place, rate: float, summed: npt.NDArray[np.float64],
        mature: npt.NDArray[np.float64],
    ) -> None:  # fmt: skip
        batches = (self.epochs - place.epoch) * self.batches - place.batch
        left = batches * self.config.batch_size / rate
        mean = summed / np.maximum(mature, 1)
        shown = ", ".join(
            f"{task.name} {value:.4f}" for task, value in zip(self.trainer.tasks, mean, strict=True)
        )
        self.progress(
            f"epoch {place.epoch + 1}/{self.epochs}, batch {place.batch:,}/"
            f"{self.batches:,}: {shown}; {rate:,.0f} samples/s, at most {left:,.0f} s left"
        )

    def _step(
        self, place: _Place, places: npt.NDArray[np.int64], rows: Rows
    ) -> tuple[Tensor, Tensor]:
        pretraining = place.epoch < self.config.pretrain_epochs
        try:
            return self.trainer.step(rows, self._scale(place), pretraining)
        except TrainingRefused as error:
            hours = ", ".join(hour or "an unnamed hour" for hour in self.train.hours(places))
            raise TrainingRefused(
                f"the loss is not finite in batch {place.batch + 1} of epoch {place.epoch + 1}, "
                f"rows of {hours}: {error}"
            ) from error

    # Checkpoints ------------------------------------------------------------------------------

    def _checkpoint(self, place: _Place) -> None:
        if self.path is None:
            return
        done = self.done
        tensors_by_name = {
            **{f"now.{k}": v for k, v in _copied(self.trainer.network).items()},
            **{f"best.{k}": v for k, v in self.best.items()},
            **{f"sums.{k}": v for k, v in self.trainer.optimizer.accumulators().items()},
            **{f"bestsums.{k}": v for k, v in done.accumulators.items()},
        }
        said = {
            "fingerprint": self.fingerprint,
            "place": vars(place),
            "steps": self.trainer.optimizer.steps,
            "done": {
                key: value for key, value in vars(done).items() if key != "accumulators"
            },
        }  # fmt: skip
        draft = self.path.with_suffix(".draft")
        save_file(tensors_by_name, draft, {"state": json.dumps(said)})
        draft.replace(self.path)

    def _resumed(self) -> _Place:
        """Where a checkpoint of this very fit stopped; the beginning without one."""
        if self.path is None or not self.path.is_file():
            return _Place()
        with safe_open(self.path, "pt") as file:
            said: dict[str, Any] = json.loads(file.metadata()["state"])
            if said["fingerprint"] != self.fingerprint:
                raise ModelError(
                    f"{self.path} is the checkpoint of another fit; delete it, or name a folder "
                    "of its own for each"
                )
            found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        self.trainer.network.load_state_dict(_part(found, "now."))
        self.trainer.optimizer.restore(_part(found, "sums."), said["steps"])
        self.best = _part(found, "best.")
        self.done = Trained(**said["done"], accumulators=_part(found, "bestsums."))
        place = _Place(**said["place"])
        self.progress(f"going on from a checkpoint: epoch {place.epoch + 1}, batch {place.batch:,}")
        return place


def fit_network(
    trainer: Trainer, train: RowFiles, valid: RowFiles, config: TrainingConfig,
    progress: Callable[[str], None], folder: Path | None = None, fingerprint: str = "",
    watch: Callable[[int], None] | None = None,
) -> Trained:  # fmt: skip
    """Fit ``trainer``'s network on ``train``, stopping early by the loss on ``valid``.

    Args:
        folder: where checkpoints are kept, and one is looked for; None for none.
        fingerprint: says which fit a checkpoint belongs to.
        watch: called after every epoch with its number, from 0.

    Raises:
        TrainingRefused: for a loss that is not finite; names the tasks, the batch's hours and the
            column.
        ModelError: for a checkpoint of another fit.
    """
    fit = _Fit(trainer, train, valid, config, progress, folder, fingerprint, watch)
    return fit.run()


def _copied(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone() for name, value in network.state_dict().items()}


def _part(found: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): value for name, value in found.items() if name.startswith(prefix)
    }
