"""Metapaths: the sequences of node types that walks follow (Dong et al., metapath2vec, KDD 2017).

A metapath is written ``user-item-user``. Walks repeat it until they are long enough, so it ends
with the type that it begins with; one that does not is walked there and back.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Self

from models.errors import ConfigError

__all__ = ["EdgeType", "Metapath", "MetapathError"]

EdgeType = tuple[str, str]
"""The types at both ends of an undirected edge, in either order."""


class MetapathError(ConfigError):
    """A metapath that is not one, or that the graph has no edges for."""


@dataclass(frozen=True)
class Metapath:
    """Node types, first and last the same; ``types`` holds them once around, without the last."""

    types: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """The metapath that ``text`` writes, types between dashes.

        Raises:
            MetapathError: for fewer than two types, or an empty one.
        """
        types = tuple(part.strip() for part in text.split("-"))
        if len(types) < 2 or not all(types):
            raise MetapathError(
                f"{text!r} is no metapath; write node types between dashes, as user-item-user"
            )
        if types[0] != types[-1]:
            types += types[-2::-1]
        return cls(types[:-1])

    def __str__(self) -> str:
        return "-".join((*self.types, self.types[0]))

    def steps(self) -> tuple[EdgeType, ...]:
        """The types that each step goes from and to, once around."""
        return tuple(zip(self.types, (*self.types[1:], self.types[0]), strict=True))

    def check(self, nodes: Collection[str], edges: Iterable[EdgeType]) -> None:
        """Refuse a metapath that the graph of these node and edge types cannot be walked by.

        Raises:
            MetapathError: naming the type that no node has, or the step that no edge has.
        """
        known = {frozenset(edge) for edge in edges}
        for number, step in enumerate(self.steps(), 1):
            for kind in step:
                if kind not in nodes:
                    raise MetapathError(
                        f"metapath {self}: no node has the type {kind!r}; the graph has "
                        f"{', '.join(sorted(nodes))}"
                    )
            if frozenset(step) not in known:
                there = ", ".join(sorted("-".join(sorted(edge)) for edge in known))
                raise MetapathError(
                    f"metapath {self}: step {number}, {step[0]}-{step[1]}, has no edge type; the "
                    f"graph has {there}"
                )
