"""Wide and deep (Cheng et al., DLRS 2016): a linear model of codes and their crosses beside an MLP
over embeddings; their logits are added."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from models.deep import DeepRanker
from models.deep_config import DeepConfig
from models.errors import ConfigError, SpecError
from models.features import FeatureSpec
from models.layers import MLP
from models.network import Network, RowTensors

__all__ = ["WideDeep", "WideDeepConfig"]

_MULTIPLIER: Final = 0x9E3779B1  # 2^32 / golden ratio (Knuth, TAOCP 3, section 6.4)


@dataclass(frozen=True)
class WideDeepConfig(DeepConfig):
    """See :class:`models.deep_config.DeepConfig`.

    Attributes:
        layers: units of the deep part.
        crosses: pairs of sparse columns whose combinations have weights of their own.
        cross_buckets: how many weights the combinations of one pair are hashed into.
    """

    layers: tuple[int, ...] = (256, 128, 64)
    crosses: tuple[tuple[str, str], ...] = ()
    cross_buckets: int = 65536

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.layers or self.cross_buckets < 1:
            raise ConfigError(
                f"layers {self.layers} and cross_buckets {self.cross_buckets}; at least one layer "
                "and one bucket are needed"
            )
        if any(len(pair) != 2 for pair in self.crosses):
            raise ConfigError(f"crosses are pairs of sparse columns, not {self.crosses}")


class WideDeepNetwork(Network):
    """The wide weights of all columns and crosses are one table, a column a task."""

    starts: Tensor

    def __init__(self, config: WideDeepConfig, spec: FeatureSpec) -> None:
        super().__init__(config, spec)
        names = [column.name for column in spec.sparse]
        missing = sorted({n for pair in config.crosses for n in pair if n not in names})
        if missing:
            raise SpecError(f"crosses name {', '.join(missing)}; sparse are {', '.join(names)}")
        self.pairs = [tuple(names.index(name) for name in pair) for pair in config.crosses]
        self.cross_buckets = config.cross_buckets
        sizes = [column.buckets for column in spec.sparse]
        sizes += [config.cross_buckets] * len(self.pairs)
        starts = torch.tensor([0, *sizes]).cumsum(0)[:-1]
        self.register_buffer("starts", starts.to(torch.int32), persistent=False)
        self.wide = nn.Parameter(torch.zeros(max(sum(sizes), 1), len(self.tasks)))
        self.first = self.input_layer(config.layers[0])
        self.deep = MLP(config.layers[0], config.layers[1:])
        self.out = nn.Linear(self.deep.units, len(self.tasks))

    def forward(self, rows: RowTensors) -> Tensor:
        deep: Tensor = self.out(self.deep(F.relu(self.read(self.first, rows))))
        if not len(self.starts):
            return deep
        codes = [rows.sparse]
        codes += [self._crossed(rows.sparse[:, a], rows.sparse[:, b]) for a, b in self.pairs]
        return deep + F.embedding_bag(torch.cat(codes, 1) + self.starts, self.wide, mode="sum")

    def _crossed(self, left: Tensor, right: Tensor) -> Tensor:
        """One code for two, (B, 1): multiplicative hashing, the upper half of the product."""
        mixed = ((left.long() * _MULTIPLIER + right.long()) * _MULTIPLIER) & 0xFFFFFFFFFFFF
        return ((mixed >> 16) % self.cross_buckets).to(torch.int32)[:, None]


class WideDeep(DeepRanker):
    """See the module."""

    family: ClassVar[str] = "wide_deep"
    config_class: ClassVar[type[DeepConfig]] = WideDeepConfig
    network_class: ClassVar[type[Network]] = WideDeepNetwork
