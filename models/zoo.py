"""``MODELS``, the zoo: rankers by family, and ``EMBEDDINGS`` beside it. A new model is one file and
one line here.

A family's file is imported when it is first asked for, so that a job that trains trees does not
wait for torch.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, Generic, TypeVar

from models.base import CONFIG_FILE, Model, ModelError, Ranker, read_json

__all__ = ["EMBEDDINGS", "MODELS", "Zoo", "load_model", "load_ranker"]

T_co = TypeVar("T_co", bound=Model, covariant=True)


class Zoo(Mapping[str, type[T_co]], Generic[T_co]):
    """Classes by family, from ``module.Class`` by family."""

    def __init__(self, places: Mapping[str, str]) -> None:
        self._places = dict(places)

    def __getitem__(self, family: str) -> type[T_co]:
        module, _, name = self._places[family].rpartition(".")
        found: type[T_co] = getattr(importlib.import_module(module), name)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


MODELS: Final[Zoo[Ranker]] = Zoo(
    {
        "gbdt": "models.gbdt.GBDTRanker",
        "wide_deep": "models.wide_deep.WideDeep",
        "shared_bottom": "models.shared_bottom.SharedBottom",
        "mmoe": "models.mmoe.MMOE",
        "dual_attention": "models.dual_attention.DualAttention",
        "live_transformer": "models.live_transformer.LiveTransformer",
    }
)
EMBEDDINGS: Final[Zoo[Model]] = Zoo({"metapath2vec": "models.metapath2vec.Metapath2Vec"})


def load_model(folder: Path) -> Model:
    """The model saved in ``folder``, whichever family it is of.

    Raises:
        ModelError: when the folder holds no model, or one of a family that is not in the zoo.
    """
    family = str(read_json(folder / CONFIG_FILE).get("family"))
    for zoo in (MODELS, EMBEDDINGS):
        if family in zoo:
            return zoo[family].load(folder)
    known = ", ".join(sorted([*MODELS, *EMBEDDINGS]))
    raise ModelError(f"{folder} holds a model of family {family!r}; known are {known}")


def load_ranker(folder: Path) -> Ranker:
    """The ranker saved in ``folder``, whichever family it is of.

    Raises:
        ModelError: when the folder holds no ranker.
    """
    found = load_model(folder)
    if not isinstance(found, Ranker):
        raise ModelError(f"{folder} holds {found.family}, which ranks nothing")
    return found
