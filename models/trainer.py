"""A network with its accumulators, updated batch by batch: what a fit and online learning share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from models.encoding import Rows
from models.errors import ConfigError, TrainingRefused
from models.network import RowTensors, tensors
from models.objectives import Task, losses
from models.optimizer import Adam
from models.row_files import RowFiles

__all__ = ["Trainer", "TrainingConfig", "device"]

_VALID_BATCH: Final = 8192


@dataclass(frozen=True)
class TrainingConfig:
    """How a deep model is fitted.

    Attributes:
        pretrain_epochs: epochs before those, on the network's self-supervised loss alone.
        self_supervised: weight of that loss beside the tasks' in the other epochs.
        max_samples: rows that an epoch trains at most, other ones each epoch; 0 for all.
        schedule: ``constant``, or ``linear``: from the learning rate down to a tenth of it over
            all epochs.
        window: rows among which batches are shuffled; what memory holds.
        patience: epochs without a better loss after which the fit ends.
        clip_norm: bound of the gradient's norm; 0 for none.
        checkpoint_batches: batches between two checkpoints.
        device: ``auto`` (a GPU when there is one), ``cpu`` or ``cuda``.
        precision: ``float32``, or ``bfloat16`` for the matrix products of training, several times
            as fast where the processor multiplies such; weights stay as they are.
    """

    epochs: int = 3
    pretrain_epochs: int = 0
    self_supervised: float = 0.0
    batch_size: int = 1024
    max_samples: int = 0
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    schedule: str = "constant"
    clip_norm: float = 0.0
    window: int = 65536
    patience: int = 2
    checkpoint_batches: int = 500
    seed: int = 7
    device: str = "auto"
    precision: str = "float32"

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "window", "patience", "checkpoint_batches"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 1")
        for name in (
            "pretrain_epochs", "self_supervised", "max_samples", "weight_decay", "clip_norm"
        ):  # fmt: skip
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it cannot be negative")
        if not self.learning_rate > 0:
            raise ConfigError(f"learning_rate is {self.learning_rate}; it must be above 0")
        for name, known in (
            ("schedule", ("constant", "linear")), ("device", ("auto", "cpu", "cuda")),
            ("precision", ("float32", "bfloat16")),
        ):  # fmt: skip
            if getattr(self, name) not in known:
                raise ConfigError(f"{name} is {getattr(self, name)!r}; known are {known}")


def device(wanted: str) -> torch.device:
    """The device that ``auto``, ``cpu`` or ``cuda`` means here.

    Raises:
        ConfigError: for ``cuda`` where there is none.
    """
    there = torch.cuda.is_available()
    if wanted == "cuda" and not there:
        raise ConfigError("device is 'cuda', and this machine has no GPU; use 'auto' or 'cpu'")
    return torch.device("cuda" if there and wanted != "cpu" else "cpu")


class Trainer:
    """A network with its accumulators, updated batch by batch: in a fit, and online."""

    def __init__(self, network: nn.Module, tasks: tuple[Task, ...], config: TrainingConfig) -> None:
        self.network = network
        self.tasks = tasks
        self.place = next(network.parameters()).device
        self._besides = config.self_supervised
        self._rough = config.precision == "bfloat16"
        self._weights = torch.tensor([task.weight for task in tasks], device=self.place)
        self.optimizer = Adam(network, config.learning_rate, config.weight_decay, config.clip_norm)

    def step(
        self, rows: Rows, scale: float = 1.0, pretraining: bool = False
    ) -> tuple[Tensor, Tensor]:
        """One update; each task's loss before it, (T,), and its mature rows, (T,).

        The self-supervised loss of ``pretraining`` is given in place of every task's.

        Raises:
            TrainingRefused: for a loss that is not finite; nothing is changed then, and the column
                or the weights are named.
        """
        self.network.train()
        self.optimizer.zero()
        batch = tensors(rows, self.place)
        with torch.autocast(self.place.type, torch.bfloat16, enabled=self._rough):
            if pretraining:
                total = self._self_supervised(batch)
                found = total.expand(len(self.tasks))
                mature = torch.full((len(self.tasks),), rows.size)
            else:
                found, mature = losses(self.tasks, self.network(batch).float(), batch.labels)
                total = (found * self._weights).sum()
                if self._besides:
                    total = total + self._besides * self._self_supervised(batch)
        if not torch.isfinite(total):
            raise TrainingRefused(self._culprit(found.detach(), rows))
        total.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step(scale)
        return found.detach(), mature

    def _culprit(self, found: Tensor, rows: Rows) -> str:
        """Why the loss of a batch is not finite."""
        for name, parameter in self.network.named_parameters():
            if not torch.isfinite(parameter).all():
                return f"weights {name} are not finite; lower learning_rate or set clip_norm"
        weighted = (found * self._weights).cpu().numpy()
        worst = int(np.argmax(np.nan_to_num(weighted, nan=np.inf)))
        task = self.tasks[worst]
        largest = float(np.nanmax(np.append(rows.labels[:, worst], 0.0)))
        return (
            f"column {task.label!r}, as large as {largest:g} in this batch, has loss "
            f"{float(found[worst]):g} times weight {task.weight:g}; mend the label, lower the "
            "task's weight or the learning_rate, or set clip_norm"
        )

    def _self_supervised(self, batch: RowTensors) -> Tensor:
        loss: Tensor | None = self.network.self_supervised(batch)  # type: ignore[operator]
        if loss is None:
            raise ConfigError(
                "the model has no self-supervised loss; set pretrain_epochs and self_supervised "
                "to 0, or train a live_transformer"
            )
        return loss

    def loss(self, files: RowFiles, pretraining: bool = False) -> npt.NDArray[np.float64]:
        """Each task's loss over all rows of ``files``, (T,); NaN without a mature one.

        With ``pretraining`` the self-supervised loss, the mean over batches, of every task.
        """
        summed = np.zeros(len(self.tasks))
        rows = np.zeros(len(self.tasks))
        self.network.eval()
        with torch.no_grad():
            for batch in files.batches(_VALID_BATCH):
                given = tensors(batch, self.place)
                if pretraining:
                    mature = torch.full((len(self.tasks),), batch.size)
                    found = self._self_supervised(given).expand(len(self.tasks))
                else:
                    found, mature = losses(self.tasks, self.network(given), given.labels)
                summed += (found * mature).double().cpu().numpy()
                rows += mature.cpu().numpy()
        return np.where(rows > 0, summed / np.maximum(rows, 1), np.nan)

    def weighted(self, by_task: npt.NDArray[np.float64]) -> float:
        """The weighted sum of losses of the tasks that have one."""
        return float(np.nansum(by_task * self._weights.cpu().numpy()))
