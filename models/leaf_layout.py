"""Which leaf id belongs to which tree: the description that is registered beside the boosters.

Leaf j of tree t has the id ``offsets[t] + j``, so that an id names one leaf of the whole task. Ids
mean nothing beyond the ``tree_version`` that they were made for.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from models.base import ModelError, read_json, write_json

__all__ = ["LEAVES_FILE", "LeafLayout", "StaleTreesError", "TaskLeaves"]

LEAVES_FILE: Final = "leaves.json"
_TREE: Final = re.compile(r"^Tree=\d+$", re.MULTILINE)
_LEAVES: Final = re.compile(r"^num_leaves=(\d+)$", re.MULTILINE)


class StaleTreesError(ModelError):
    """Leaf ids of other trees than those at hand."""


@dataclass(frozen=True)
class TaskLeaves:
    """The leaves of one task: how many trees and leaves, and the first id of each tree."""

    trees: int
    leaves: int
    offsets: tuple[int, ...]

    @classmethod
    def of(cls, text: str) -> TaskLeaves:
        """Counted in a booster's text, as LightGBM writes it.

        Raises:
            ModelError: for a text that does not say how many leaves each tree has.
        """
        counts = [int(found) for found in _LEAVES.findall(text)]
        trees = len(_TREE.findall(text))
        if not trees or len(counts) != trees:
            raise ModelError(
                f"the booster's text names {trees} trees and the leaves of {len(counts)}; write it "
                "with the LightGBM release of requirements.txt"
            )
        ends = list(itertools.accumulate(counts))
        return cls(trees, ends[-1], (0, *ends[:-1]))


@dataclass(frozen=True)
class LeafLayout:
    """The leaves of every task of one ``tree_version``."""

    tree_version: str
    tasks: Mapping[str, TaskLeaves]

    @classmethod
    def of(cls, tree_version: str, texts: Mapping[str, str]) -> LeafLayout:
        """The layout of the boosters whose texts are given by task."""
        return cls(tree_version, {task: TaskLeaves.of(text) for task, text in texts.items()})

    def check(self, tree_version: str) -> None:
        """Refuse a consumer that holds what was learned on the leaves of another version.

        Raises:
            StaleTreesError: naming both versions.
        """
        if tree_version != self.tree_version:
            raise StaleTreesError(
                f"leaf ids of tree version {tree_version[:12] or 'none'!r} were asked for, but "
                f"these trees have version {self.tree_version[:12]!r}, and no id keeps its meaning "
                "from one to the other; fit the linear model anew on leaves of these trees, or "
                "load the registered version whose tag tree_version is the one that it was "
                "fitted on"
            )

    def write(self, folder: Path) -> None:
        """Write ``leaves.json``."""
        tasks: dict[str, Any] = {task: asdict(leaves) for task, leaves in self.tasks.items()}
        write_json(folder / LEAVES_FILE, {"tree_version": self.tree_version, "tasks": tasks})

    @classmethod
    def read(cls, folder: Path) -> LeafLayout:
        """The inverse of :meth:`write`.

        Raises:
            ModelError: for a file that is missing, or is no layout.
        """
        path = folder / LEAVES_FILE
        body = read_json(path)
        try:
            tasks = {
                task: TaskLeaves(entry["trees"], entry["leaves"], tuple(entry["offsets"]))
                for task, entry in body["tasks"].items()
            }
            return cls(body["tree_version"], tasks)
        except (KeyError, TypeError, AttributeError) as error:
            raise ModelError(
                f"{path} holds no leaf layout ({error!r}); register the model again"
            ) from error
