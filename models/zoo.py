"""``MODELS``, the zoo: families by name. A new model is one file and one line here.

A family's file is imported when it is first asked for, so that a job that trains trees does not
wait for torch.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from models.base import CONFIG_FILE, ModelError, Ranker, read_json

__all__ = ["MODELS", "Zoo", "load_ranker"]


class Zoo(Mapping[str, type[Ranker]]):
    """Classes by family, from ``module.Class`` by family."""

    def __init__(self, places: Mapping[str, str]) -> None:
        self._places = dict(places)

    def __getitem__(self, family: str) -> type[Ranker]:
        module, _, name = self._places[family].rpartition(".")
        found: type[Ranker] = getattr(importlib.import_module(module), name)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


MODELS: Final = Zoo(
    {
        "gbdt": "models.gbdt.GBDTRanker",
        "wide_deep": "models.wide_deep.WideDeep",
        "shared_bottom": "models.shared_bottom.SharedBottom",
        "mmoe": "models.mmoe.MMOE",
        "dual_attention": "models.dual_attention.DualAttention",
        "live_transformer": "models.live_transformer.LiveTransformer",
    }
)


def load_ranker(folder: Path) -> Ranker:
    """The ranker saved in ``folder``, whichever family it is of.

    Raises:
        ModelError: when the folder holds no model, or one of a family that is not in ``MODELS``.
    """
    family = str(read_json(folder / CONFIG_FILE).get("family"))
    if family not in MODELS:
        raise ModelError(
            f"{folder} holds a model of family {family!r}; known are {', '.join(sorted(MODELS))}"
        )
    return MODELS[family].load(folder)
