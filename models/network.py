"""What the networks of all deep models share: reading encoded rows, sequences, and debiasing.

Shapes: B rows, T tasks, L places of a sequence, d the embedding's width.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor, nn

from models.encoding import Rows
from models.errors import ConfigError, SpecError
from models.features import Column, FeatureSpec, SequenceColumn, SparseColumn
from models.layers import MLP, EmbeddingTables, InputLayer
from models.objectives import BINARY, Task

__all__ = [
    "DEBIASING",
    "BiasNet",
    "Network",
    "RowTensors",
    "SequenceBlock",
    "target_columns",
    "tensors",
]

DEBIASING: Final = ("none", "feature", "bias_net")
_TOP: Final = 1  # code of the first position


class RowTensors(NamedTuple):
    """``Rows`` as tensors on one device, of the same shapes."""

    dense: Tensor
    sparse: Tensor
    sequences: Tensor
    extra: Tensor
    labels: Tensor


def tensors(rows: Rows, device: torch.device) -> RowTensors:
    """``rows`` on ``device``; on a CPU without a copy."""
    return RowTensors(*(torch.from_numpy(column).to(device) for column in rows))


@dataclass(frozen=True)
class SequenceBlock:
    """Columns of the same elements, such as the items, categories and gaps of a user's clicks.

    Attributes:
        columns: the first says which places are filled.
        starts: where each begins among the places of ``Rows.sequences``.
    """

    columns: tuple[SequenceColumn, ...]
    starts: tuple[int, ...]

    @classmethod
    def of(cls, spec: FeatureSpec, names: Sequence[str]) -> SequenceBlock:
        """The block of the named columns.

        Raises:
            ConfigError: for a column that is no sequence, or one of another length.
        """
        places, start = {}, 0
        for column in spec.sequences:
            places[column.name] = (column, start)
            start += column.length
        missing = [name for name in names if name not in places]
        if missing:
            raise ConfigError(
                f"{', '.join(missing)} are no sequences of the FeatureSpec; there are "
                f"{', '.join(places) or 'none'}"
            )
        columns = tuple(places[name][0] for name in names)
        if len({column.length for column in columns}) > 1:
            raise ConfigError(f"sequences {', '.join(names)} differ in length")
        return cls(columns, tuple(places[name][1] for name in names))

    def read(self, sequences: Tensor) -> tuple[list[Tensor], Tensor]:
        """The columns' codes, each (B, L), and which places are filled, (B, L).

        L is the longest sequence of the batch, at least 1: what no row fills is not read.
        """
        length = self.columns[0].length
        ids = sequences[:, self.starts[0] : self.starts[0] + length]
        used = (ids != 0).any(0).nonzero()
        first = min(int(used[0]) if len(used) else length, length - 1)
        codes = [sequences[:, start + first : start + length] for start in self.starts]
        return codes, codes[0] != 0

    def vectors(self, tables: EmbeddingTables, codes: Sequence[Tensor]) -> Tensor:
        """The sum of the elements' embeddings, (B, L, d)."""
        parts = (tables([column], code) for column, code in zip(self.columns, codes, strict=True))
        return torch.stack([*parts]).sum(0) if len(codes) > 1 else next(parts)


class Network(nn.Module, abc.ABC):
    """Rows to one output a task: a logit, or log(1 + value).

    Args:
        config: a :class:`models.deep_config.DeepConfig`. With ``debias`` of ``feature`` the
            training-only columns are read as features, as those of the first position when nothing
            says them; else they are not read here, see :class:`BiasNet`.
    """

    def __init__(self, config: Any, spec: FeatureSpec) -> None:
        super().__init__()
        self.spec = spec
        self.tasks: tuple[Task, ...] = config.parsed_tasks
        self.width: int = config.embedding
        as_features = config.debias == "feature"
        self.tables = EmbeddingTables(_read_tables(spec, as_features), self.width)
        self._positions = spec.training_only if as_features else ()

    def input_layer(self, units: int, vectors: int = 0) -> InputLayer:
        """A first layer over all that a row says, and ``vectors`` numbers besides."""
        own = len(self._positions) * self.width
        return InputLayer(self.spec, self.tables, units, vectors + own)

    def read(self, layer: InputLayer, rows: RowTensors, *vectors: Tensor) -> Tensor:
        """What ``layer`` makes of ``rows`` and of ``vectors`` (B, n), (B, units)."""
        parts = list(vectors)
        if self._positions:
            codes = rows.extra
            if not codes.shape[1]:
                shape = (len(rows.dense), len(self._positions))
                codes = torch.full(shape, _TOP, dtype=torch.int32, device=rows.dense.device)
            parts += [
                self.tables([column], codes[:, place : place + 1]).flatten(1)
                for place, column in enumerate(self._positions)
            ]
        given = torch.cat(parts, 1) if parts else None
        found: Tensor = layer(self.tables, rows.dense, rows.sparse, given)
        return found

    def target(self, rows: RowTensors, columns: Sequence[tuple[int, SparseColumn]]) -> Tensor:
        """The sum of the rows' embeddings of some sparse columns, see :func:`target_columns`."""
        parts = [self.tables([c], rows.sparse[:, i : i + 1]).squeeze(1) for i, c in columns]
        return torch.stack(parts).sum(0) if len(parts) > 1 else parts[0]

    @abc.abstractmethod
    def forward(self, rows: RowTensors) -> Tensor:
        """(B, T)."""

    def self_supervised(self, rows: RowTensors) -> Tensor | None:
        """A loss that needs no label; None for a network without one."""
        del rows
        return None

    def diagnostics(self, rows: RowTensors) -> Mapping[str, float]:
        """Numbers about the network itself on ``rows``, by name; none by default."""
        del rows
        return {}


def target_columns(spec: FeatureSpec, names: Sequence[str]) -> list[tuple[int, SparseColumn]]:
    """The named sparse columns with their places.

    Raises:
        SpecError: for one that the spec does not hold.
    """
    places = {column.name: place for place, column in enumerate(spec.sparse)}
    missing = [name for name in names if name not in places]
    if missing:
        raise SpecError(
            f"targets {', '.join(missing)} are no sparse columns of the FeatureSpec; there are "
            f"{', '.join(places) or 'none'}"
        )
    return [(places[name], spec.sparse[places[name]]) for name in names]


def _read_tables(spec: FeatureSpec, positions: bool) -> dict[str, list[Column]]:
    """The tables that a network reads; those of training-only columns if it reads positions."""
    left_out = () if positions else spec.training_only
    found: dict[str, list[Column]] = {}
    for name, columns in spec.tables().items():
        kept = [column for column in columns if column not in left_out]
        if kept:
            found[name] = kept
    return found


class BiasNet(nn.Module):
    """A network whose binary logits get one more summand in training: what the position alone
    explains (Zhao et al., Recommending What Video to Watch Next, RecSys 2019, section 4.3).

    At inference the summand is its mean over the training rows: scores do not depend on the
    position, and probabilities stay calibrated on average.
    """

    offset: Tensor

    def __init__(self, network: Network, units: int = 16) -> None:
        super().__init__()
        columns = network.spec.training_only
        if not columns:
            raise ConfigError(
                "debias: bias_net reads the training-only columns of the FeatureSpec, and there "
                "are none; name the position as one"
            )
        self.network = network
        self.embeddings = nn.ModuleList(nn.Embedding(c.buckets, units) for c in columns)
        self.hidden = MLP(units * len(columns), (units,))
        self.out = nn.Linear(units, len(network.tasks))
        binary = [1.0 if task.kind == BINARY else 0.0 for task in network.tasks]
        self.register_buffer("binary", torch.tensor(binary), persistent=False)
        self.register_buffer("offset", torch.zeros(len(network.tasks)))

    def bias(self, extra: Tensor) -> Tensor:
        """The summand of training-only codes (B, X): (B, T), 0 for tasks that are not binary."""
        parts = [table(extra[:, i]) for i, table in enumerate(self.embeddings)]
        found: Tensor = self.out(self.hidden(torch.cat(parts, 1))) * self.binary
        return found

    def forward(self, rows: RowTensors) -> Tensor:
        """(B, T); with the positions' summand where ``rows`` says positions, else its mean."""
        outputs: Tensor = self.network(rows)
        return outputs + (self.bias(rows.extra) if rows.extra.shape[1] else self.offset)

    def self_supervised(self, rows: RowTensors) -> Tensor | None:
        """That of the network."""
        return self.network.self_supervised(rows)
