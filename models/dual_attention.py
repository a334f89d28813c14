"""Dual target attention, V2 of the live-streaming ranker: the user's items are weighed by what they
have to do with the product that is shown, the user's rooms by what they have to do with the room.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from models.deep import DeepRanker
from models.deep_config import DeepConfig
from models.errors import ConfigError
from models.features import FeatureSpec
from models.layers import MLP, TargetAttention
from models.network import Network, RowTensors, SequenceBlock, target_columns

__all__ = ["DualAttention", "DualAttentionConfig", "Interest"]

_POOLINGS: Final = ("attention", "mean")


@dataclass(frozen=True)
class Interest:
    """A sequence and what it is weighed by.

    Attributes:
        sequence: sequence columns of the same elements; the first holds the identifiers.
        target: sparse columns of the target, of the same tables as the sequence's first columns.
    """

    sequence: tuple[str, ...]
    target: tuple[str, ...]


_ITEMS: Final = Interest(
    ("user_items_item_id", "user_items_category", "user_items_action", "user_items_gap"),
    ("item_id", "category"),
)
_ROOMS: Final = Interest(
    ("user_rooms_room_id", "user_rooms_category", "user_rooms_action", "user_rooms_gap"),
    ("room_id", "category"),
)


@dataclass(frozen=True)
class DualAttentionConfig(DeepConfig):
    """See :class:`models.deep_config.DeepConfig`.

    Attributes:
        interests: each :class:`Interest`, or a mapping with its fields.
        pooling: ``attention``, or ``mean`` of the same sequences to compare with.
        attention_units: units of the attention's hidden layer.
        layers: units of the MLP over everything.
    """

    interests: tuple[Any, ...] = (_ITEMS, _ROOMS)
    pooling: str = "attention"
    attention_units: int = 32
    layers: tuple[int, ...] = (256, 128, 64)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pooling not in _POOLINGS:
            raise ConfigError(f"pooling is {self.pooling!r}; known are {', '.join(_POOLINGS)}")
        if not self.layers or not self.interests:
            raise ConfigError("at least one layer and one interest are needed")
        self.parsed_interests()

    def parsed_interests(self) -> tuple[Interest, ...]:
        """The interests, whichever way they were written."""
        found = []
        for given in self.interests:
            fields = vars(given) if isinstance(given, Interest) else dict(given)
            try:
                interest = Interest(**{key: tuple(value) for key, value in fields.items()})
            except TypeError as error:
                raise ConfigError(f"an interest has sequence and target: {error}") from error
            if not interest.sequence or not interest.target:
                raise ConfigError(f"interest {given} needs a sequence and a target")
            found.append(interest)
        return tuple(found)


class DualAttentionNetwork(Network):
    """One attention an interest; what they pool goes into the first layer beside the row."""

    def __init__(self, config: DualAttentionConfig, spec: FeatureSpec) -> None:
        super().__init__(config, spec)
        interests = config.parsed_interests()
        self.blocks = [SequenceBlock.of(spec, interest.sequence) for interest in interests]
        self.targets = [target_columns(spec, interest.target) for interest in interests]
        pooled = config.pooling == "attention"
        units = config.attention_units
        self.attentions = nn.ModuleList(
            TargetAttention(self.width, units) for _ in interests if pooled
        )
        vectors = 2 * self.width * len(interests)
        self.first = self.input_layer(config.layers[0], vectors)
        self.deep = MLP(config.layers[0], config.layers[1:])
        self.out = nn.Linear(self.deep.units, len(self.tasks))

    def interest(self, place: int, rows: RowTensors) -> Tensor:
        """A pooled sequence beside its product with the target, (B, 2 d)."""
        block = self.blocks[place]
        codes, filled = block.read(rows.sequences)
        elements = block.vectors(self.tables, codes)
        target = self.target(rows, self.targets[place])
        if len(self.attentions):
            pooled = self.attentions[place](elements, target, filled)
        else:
            weights = filled / filled.sum(1, keepdim=True).clamp(min=1)
            pooled = (elements * weights[:, :, None]).sum(1)
        return torch.cat([pooled, pooled * target], 1)

    def forward(self, rows: RowTensors) -> Tensor:
        pooled = [self.interest(place, rows) for place in range(len(self.blocks))]
        hidden = self.deep(F.relu(self.read(self.first, rows, *pooled)))
        found: Tensor = self.out(hidden)
        return found


class DualAttention(DeepRanker):
    """See the module."""

    family: ClassVar[str] = "dual_attention"
    config_class: ClassVar[type[DeepConfig]] = DualAttentionConfig
    network_class: ClassVar[type[Network]] = DualAttentionNetwork
    reads_sequences: ClassVar[bool] = True
