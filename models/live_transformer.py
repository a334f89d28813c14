"""The live transformer, V4 of the live-streaming ranker: the room's historical core products, the
products it explains now and the user's items as tokens of one sequence, with self-attention between
all of them.

The user's tokens alone, read from left to right, are the sequence encoder of the self-supervised
objective: at every place, which item comes next (Kang & McAuley, Self-Attentive Sequential
Recommendation, ICDM 2018), here with a softmax over all items or over the batch's and drawn ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from models.deep import DeepRanker
from models.deep_config import DeepConfig
from models.errors import ConfigError
from models.features import FeatureSpec
from models.layers import MLP, TargetAttention, TransformerEncoder
from models.network import Network, RowTensors, SequenceBlock, target_columns

__all__ = ["LiveTransformer", "LiveTransformerConfig", "LiveTransformerNetwork"]

_TOKENS: Final = (
    ("user_items_item_id", "user_items_category", "user_items_action", "user_items_gap"),
    ("room_live_items_item_id", "room_live_items_category", "room_live_items_gap"),
    ("room_core_items_item_id", "room_core_items_category", "room_core_items_gap"),
)


@dataclass(frozen=True)
class LiveTransformerConfig(DeepConfig):
    """See :class:`models.deep_config.DeepConfig`.

    Attributes:
        tokens: by kind the sequence columns that make a token; the first of each holds the
            identifiers, and the first kind is the user's, whose next item is foretold.
        target: sparse columns of what is shown, of the tables that the tokens read; () for none.
        heads, blocks, hidden: of the encoder; ``hidden`` units of feed-forward.
        layers: units of the MLP over everything.
        candidates: items drawn for the softmax of the next item, beside those of the batch; 0 for
            a softmax over all items.
    """

    tokens: tuple[tuple[str, ...], ...] = _TOKENS
    target: tuple[str, ...] = ("item_id", "category")
    heads: int = 2
    blocks: int = 1
    hidden: int = 64
    dropout: float = 0.0
    layers: tuple[int, ...] = (256, 128, 64)
    candidates: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.heads < 1 or self.embedding % self.heads:
            raise ConfigError(f"embedding {self.embedding} is no multiple of {self.heads} heads")
        if self.blocks < 1 or self.hidden < 1 or not self.layers or not self.tokens:
            raise ConfigError("at least one block, hidden unit, layer and kind of token is needed")
        if not 0 <= self.dropout < 1 or self.candidates < 0:
            raise ConfigError(f"dropout {self.dropout} or candidates {self.candidates} cannot be")


class LiveTransformerNetwork(Network):
    """K kinds of tokens; L is the number of all of them."""

    def __init__(self, config: LiveTransformerConfig, spec: FeatureSpec) -> None:
        super().__init__(config, spec)
        self.blocks = [SequenceBlock.of(spec, tuple(names)) for names in config.tokens]
        self.targets = target_columns(spec, config.target)
        self.candidates, self.dropout = config.candidates, config.dropout
        width, kinds = self.width, len(self.blocks)
        self.kinds = nn.Parameter(torch.empty(kinds, width).normal_(std=0.02))
        self.places = nn.ParameterList(
            nn.Parameter(torch.empty(block.columns[0].length, width).normal_(std=0.02))
            for block in self.blocks
        )
        self.encoder = TransformerEncoder(
            width, config.heads, config.blocks, config.hidden, config.dropout
        )
        self.summary = nn.Parameter(torch.empty(width).normal_(std=0.02))
        self.attention = TargetAttention(width) if self.targets else None
        self.first = self.input_layer(config.layers[0], 2 * width if self.targets else width)
        self.deep = MLP(config.layers[0], config.layers[1:])
        self.out = nn.Linear(self.deep.units, len(self.tasks))

    def tokens(self, kind: int, rows: RowTensors) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens of one kind (B, L, d), which are filled (B, L), and their identifiers (B, L).

        Places are counted from the newest, so that they do not depend on what is padded.
        """
        block = self.blocks[kind]
        codes, filled = block.read(rows.sequences)
        own = self.places[kind][-codes[0].shape[1] :] + self.kinds[kind]
        found = block.vectors(self.tables, codes) + own
        if self.dropout:
            found = F.dropout(found, self.dropout, self.training)
        return found, filled, codes[0]

    def encoded(self, rows: RowTensors) -> tuple[Tensor, Tensor]:
        """A summary and every token after self-attention, (B, 1 + L, d), and which are filled."""
        parts = [self.tokens(kind, rows) for kind in range(len(self.blocks))]
        count = len(rows.dense)
        summary = self.summary.expand(count, 1, -1)
        there = torch.ones(count, 1, dtype=torch.bool, device=rows.dense.device)
        tokens = torch.cat([summary, *(part[0] for part in parts)], 1)
        filled = torch.cat([there, *(part[1] for part in parts)], 1)
        return self.encoder(tokens, filled), filled

    def forward(self, rows: RowTensors) -> Tensor:
        encoded, filled = self.encoded(rows)
        vectors = [encoded[:, 0]]
        if self.attention is not None:
            target = self.target(rows, self.targets)
            vectors.append(self.attention(encoded, target, filled))
        found: Tensor = self.out(self.deep(F.relu(self.read(self.first, rows, *vectors))))
        return found

    # The next item --------------------------------------------------------------------------

    def after_each(self, rows: RowTensors) -> tuple[Tensor, Tensor, Tensor]:
        """What the user's sequence says after each of its places, (B, L, d), by looking back alone;
        which places are filled, and the identifiers."""
        tokens, filled, ids = self.tokens(0, rows)
        return self.encoder(tokens, filled, causal=True), filled, ids

    def self_supervised(self, rows: RowTensors) -> Tensor:
        """Mean cross-entropy of the next item, over the places that have one."""
        found, filled, ids = self.after_each(rows)
        there = filled[:, :-1] & filled[:, 1:]
        states, wanted = found[:, :-1][there], ids[:, 1:][there].long()
        if not len(wanted):
            return found.sum() * 0.0
        column = self.blocks[0].columns[0]
        if not self.candidates:
            return F.cross_entropy(states @ self.tables.whole(column).T, wanted)
        drawn = torch.randint(1, column.buckets, (self.candidates,), device=wanted.device)
        chosen, place = torch.unique(torch.cat([wanted, drawn]), return_inverse=True)
        vectors = self.tables([column], chosen[None].to(ids.dtype))[0]
        return F.cross_entropy(states @ vectors.T, place[: len(wanted)])

    def next_item_scores(self, rows: RowTensors) -> Tensor:
        """Scores of all identifiers as the user's next, (B, buckets); null and unknown last."""
        states = self.after_each(rows)[0][:, -1]
        scores = states @ self.tables.whole(self.blocks[0].columns[0]).T
        scores[:, :2] = -torch.inf
        return scores


class LiveTransformer(DeepRanker):
    """See the module."""

    family: ClassVar[str] = "live_transformer"
    config_class: ClassVar[type[DeepConfig]] = LiveTransformerConfig
    network_class: ClassVar[type[Network]] = LiveTransformerNetwork
    reads_sequences: ClassVar[bool] = True
