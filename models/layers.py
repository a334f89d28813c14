"""Layers that the deep models are made of.

Shapes: B rows of a batch, S sparse columns, d the embedding's width, L places of a sequence, H
units of a layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Final, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from models.features import Column, FeatureSpec, SparseColumn

__all__ = [
    "MLP",
    "DenseNorm",
    "EmbeddingTables",
    "InputLayer",
    "Lookup",
    "TargetAttention",
    "TransformerEncoder",
]

_SMALL = 1024
"""Tables of up to so many rows are updated as a whole, larger ones only where a batch looked."""

_LONG: Final = 24
"""Places from which target attention folds the target into its weights, row by row."""

_START: Final = 0.02
"""Deviation of a large vocabulary's vectors before training."""


class Lookup:
    """Vectors of a large table that a batch looked up; their gradient updates those rows alone."""

    def __init__(self, ids: Tensor, vectors: Tensor) -> None:
        self.ids = ids  # (N,) rows of the table
        self.vectors = vectors  # (N, d), a leaf of the graph


class EmbeddingTables(nn.Module):
    """The embedding tables of a FeatureSpec, small ones and large ones in one tensor each.

    Row 0 of a table stands for null, and pads sequences. Large tables of hashed keys start at zero,
    so that a key that no row of training had reads zeros; of a vocabulary's it is row 1, which all
    unknown texts read.

    Args:
        tables: columns by table, as of ``FeatureSpec.tables``.
        width: d.
    """

    def __init__(self, tables: Mapping[str, Sequence[Column]], width: int) -> None:
        super().__init__()
        self.width = width
        self._place: dict[str, tuple[bool, int, int]] = {}
        rows = {True: 0, False: 0}
        for name, columns in sorted(tables.items(), key=lambda item: (item[1][0].buckets, item[0])):
            large = columns[0].buckets > _SMALL
            held = columns[0].buckets if large else _rounded(columns[0].buckets)
            self._place[name] = (large, rows[large], held)
            rows[large] += held
        self.small = nn.Parameter(torch.empty(rows[False], width).normal_(std=width**-0.5))
        self.large = nn.Parameter(torch.zeros(rows[True], width), requires_grad=False)
        for name, (large, start, held) in self._place.items():
            if large and tables[name][0].kind == "vocabulary":
                self.large.data[start + 2 : start + held].normal_(std=_START)
        self.lookups: list[Lookup] = []

    def is_large(self, column: Column) -> bool:
        """Whether ``column`` reads a large table."""
        return self._place[column.embedding][0]

    def span(self, column: Column) -> tuple[int, int]:
        """Where the rows of ``column``'s table begin in its tensor, and how many are held: of a
        small one up to a power of two, so that many have the same shape."""
        _, start, held = self._place[column.embedding]
        return start, held

    def small_tables(self) -> dict[str, Tensor]:
        """The small tables by name, each (rows held, d)."""
        places = {name: held for name, (large, _, held) in self._place.items() if not large}
        return dict(zip(places, torch.split(self.small, list(places.values())), strict=True))

    def forward(self, columns: Sequence[Column], codes: Tensor) -> Tensor:
        """Vectors (B, n, d) of ``codes`` (B, n): one column each, or all of one column."""
        large = self.is_large(columns[0])
        starts = torch.tensor([self.span(column)[0] for column in columns], device=codes.device)
        ids = (codes + starts).reshape(-1)
        vectors = self._rows(ids) if large else F.embedding(ids, self.small)
        return vectors.view(*codes.shape, self.width)

    def _rows(self, ids: Tensor) -> Tensor:
        vectors = self.large.detach().index_select(0, ids)
        if self.training and torch.is_grad_enabled():
            vectors.requires_grad_()
            self.lookups.append(Lookup(ids, vectors))
        return vectors

    def whole(self, column: Column) -> Tensor:
        """All rows of ``column``'s table, (buckets, d)."""
        start, buckets = self.span(column)[0], column.buckets
        if not self.is_large(column):
            return self.small[start : start + buckets]
        return self._rows(torch.arange(start, start + buckets, device=self.large.device))

    def looked_up(self) -> Iterator[Lookup]:
        """The lookups since the last call that got a gradient; forgets them."""
        found, self.lookups = self.lookups, []
        yield from (lookup for lookup in found if lookup.vectors.grad is not None)


def _rounded(buckets: int) -> int:
    """The next power of two, from 8 on."""
    return max(8, 1 << (buckets - 1).bit_length())


class DenseNorm(nn.Module):
    """(x - mean) / deviation of a row's numbers, 0 where nothing is known; (B, D) to (B, D)."""

    mean: Tensor
    scale: Tensor

    def __init__(self, columns: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(columns))
        self.register_buffer("scale", torch.ones(columns))

    def forward(self, dense: Tensor) -> Tensor:
        return torch.nan_to_num((dense - self.mean) * self.scale).clamp(-8.0, 8.0)


class InputLayer(nn.Module):
    """A linear layer over everything a row says: (B, D), (B, S) and further vectors to (B, H).

    It equals a linear layer on the concatenation of dense values, embeddings and vectors. For the
    small tables the product of table and weights is taken first, (rows, H), and summed over a row's
    codes: a table has fewer rows than a batch, so that this is the cheaper order.

    Args:
        units: H.
        vectors: width of what :meth:`forward` is given besides.
    """

    def __init__(
        self, spec: FeatureSpec, tables: EmbeddingTables, units: int, vectors: int = 0
    ) -> None:
        super().__init__()
        self.columns = spec.sparse
        small = [i for i, column in enumerate(spec.sparse) if not tables.is_large(column)]
        small.sort(key=lambda i: (tables.span(spec.sparse[i])[1], i))
        self._small = small
        self._large = [i for i in range(len(spec.sparse)) if i not in small]
        self._groups: list[tuple[int, list[SparseColumn]]] = [
            (buckets, list(columns))
            for buckets, columns in groupby(
                (spec.sparse[i] for i in small), key=lambda column: tables.span(column)[1]
            )
        ]
        self.norm = DenseNorm(spec.numbers)
        width = tables.width
        fan_in = spec.numbers + len(spec.sparse) * width + vectors
        self.bias = nn.Parameter(torch.zeros(units))
        self.dense = _weights(spec.numbers, units, fan_in)
        self.small = _weights(len(small) * width, units, fan_in)
        self.large = _weights(len(self._large) * width, units, fan_in)
        self.vectors = _weights(vectors, units, fan_in)

    def forward(
        self, tables: EmbeddingTables, dense: Tensor, sparse: Tensor, vectors: Tensor | None = None
    ) -> Tensor:
        found = torch.addmm(self.bias, self.norm(dense), self.dense)
        if self._small:
            found = found + self._summed(tables, sparse)
        if self._large:
            columns = [self.columns[i] for i in self._large]
            looked_up = tables(columns, sparse[:, self._large])
            found = torch.addmm(found, looked_up.flatten(1), self.large)
        if vectors is not None:
            found = torch.addmm(found, vectors, self.vectors)
        return found

    def _summed(self, tables: EmbeddingTables, sparse: Tensor) -> Tensor:
        """The small tables' part, (B, H)."""
        blocks = tables.small_tables()
        sizes = [len(columns) * tables.width for _, columns in self._groups]
        parts = torch.split(self.small, sizes)
        products, starts, rows = [], [], 0
        for (buckets, columns), part in zip(self._groups, parts, strict=True):
            own = torch.stack([blocks[column.embedding] for column in columns])
            product = torch.bmm(own, part.view(len(columns), tables.width, -1))
            products.append(product.flatten(0, 1))  # (columns * buckets, H)
            starts += [rows + place * buckets for place in range(len(columns))]
            rows += len(columns) * buckets
        ids = sparse[:, self._small] + torch.tensor(starts, device=sparse.device)
        return F.embedding_bag(ids, torch.cat(products), mode="sum")


def _weights(fan_in: int, units: int, total: int) -> nn.Parameter:
    """(fan_in, units), as nn.Linear with ``total`` inputs starts."""
    bound = max(total, 1) ** -0.5
    return nn.Parameter(torch.empty(fan_in, units).uniform_(-bound, bound))


class MLP(nn.Module):
    """Linear layers with ReLU between and after them: (B, inputs) to (B, layers[-1])."""

    def __init__(self, inputs: int, layers: Sequence[int], dropout: float = 0.0) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Linear(a, b) for a, b in zip((inputs, *layers), layers, strict=False)
        )
        self.dropout = dropout
        self.units = layers[-1] if layers else inputs

    def forward(self, values: Tensor) -> Tensor:
        for layer in self.layers:
            values = F.relu(layer(values), inplace=True)
            if self.dropout:
                values = F.dropout(values, self.dropout, self.training)
        return values


class TargetAttention(nn.Module):
    """A sequence pooled by how much each element has to do with the target (Zhou et al., Deep
    Interest Network, KDD 2018, section 4.3), with a softmax over the places that are filled.

    An element's weight is an MLP of [element, target, element * target]; the first layer's part of
    the target is taken once a row, and over long sequences so is the product's.
    """

    def __init__(self, width: int, units: int = 32) -> None:
        super().__init__()
        self.element = nn.Linear(width, units)
        self.target = nn.Linear(width, units, bias=False)
        self.product = nn.Linear(width, units, bias=False)
        self.out = nn.Linear(units, 1, bias=False)

    def forward(self, elements: Tensor, target: Tensor, filled: Tensor) -> Tensor:
        """(B, L, d), (B, d) and (B, L) to (B, d); zeros for a row without any element."""
        if elements.shape[1] < _LONG:
            hidden = self.element(elements) + self.target(target)[:, None]
            hidden = hidden + self.product(elements * target[:, None])
        else:
            weights = self.element.weight.T + target[:, :, None] * self.product.weight.T
            own = (self.target(target) + self.element.bias)[:, None]
            hidden = torch.baddbmm(own, elements, weights)  # weights are (B, d, units)
        hidden = F.relu(hidden, inplace=True)
        logits = self.out(hidden).squeeze(-1).masked_fill(~filled, -1e9)
        weights = torch.softmax(logits, dim=1) * filled
        return torch.bmm(weights[:, None], elements).squeeze(1)


class TransformerEncoder(nn.Module):
    """Blocks of self-attention and feed-forward, each on normalised input and added to it (Xiong et
    al., On Layer Normalization in the Transformer Architecture, ICML 2020).

    Args:
        width: of a token, a multiple of ``heads``.
        hidden: units of the feed-forward layer.
    """

    def __init__(
        self, width: int, heads: int, blocks: int, hidden: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.blocks = nn.ModuleList(_Block(width, hidden) for _ in range(blocks))
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens: Tensor, filled: Tensor, causal: bool = False) -> Tensor:
        """(B, L, d) and (B, L) to (B, L, d); what is not filled is attended to by itself alone.

        ``causal``: a token attends to itself and those before it only.
        """
        length = tokens.shape[1]
        allowed = filled[:, None, None, :] | torch.eye(
            length, dtype=torch.bool, device=tokens.device
        )  # (B, 1, L, L)
        if causal:
            allowed = allowed & torch.ones_like(allowed[0, 0]).tril()
        for block in cast("list[_Block]", self.blocks):
            tokens = tokens + self._dropped(self._attended(block, tokens, allowed))
            inner = F.gelu(block.inner(block.before_inner(tokens)))
            tokens = tokens + self._dropped(block.outer(inner))
        found: Tensor = self.norm(tokens)
        return found

    def _attended(self, block: _Block, tokens: Tensor, allowed: Tensor) -> Tensor:
        rows, length, width = tokens.shape
        mixed = block.mixed(block.before_attention(tokens))  # (B, L, 3 d)
        query, key, value = mixed.view(rows, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        dropout = self.dropout if self.training else 0.0
        found = F.scaled_dot_product_attention(query, key, value, allowed, dropout)
        result: Tensor = block.joined(found.transpose(1, 2).reshape(rows, length, width))
        return result

    def _dropped(self, values: Tensor) -> Tensor:
        return F.dropout(values, self.dropout, self.training) if self.dropout else values


class _Block(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.before_attention = nn.LayerNorm(width)
        self.mixed = nn.Linear(width, 3 * width)
        self.joined = nn.Linear(width, width)
        self.before_inner = nn.LayerNorm(width)
        self.inner = nn.Linear(width, hidden)
        self.outer = nn.Linear(hidden, width)
