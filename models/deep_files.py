"""What a deep model keeps in its folder beside JSON: safetensors, and Parquet for vocabularies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from safetensors.torch import load_file, save_file
from torch import Tensor

from models.encoding import Vocabulary
from models.errors import ModelError
from models.features import FeatureSpec

__all__ = ["forget_texts", "read_state", "write_state"]

_WEIGHTS: Final = "weights.safetensors"
_ACCUMULATORS: Final = "accumulators.safetensors"
_VOCABULARIES: Final = "vocabularies.parquet"
_FORGOTTEN: Final = "(forgotten)"
_TEXTS: Final = pa.schema([("table", pa.string()), ("text", pa.string())])


def write_state(
    folder: Path, weights: Mapping[str, Tensor], accumulators: Mapping[str, Tensor],
    vocabularies: Mapping[str, Vocabulary],
) -> None:  # fmt: skip
    """Write what was learned: the weights, what the optimizer knows, and the texts' numbers."""
    for name, found in ((_WEIGHTS, weights), (_ACCUMULATORS, accumulators)):
        save_file({k: v.detach().cpu().contiguous() for k, v in found.items()}, folder / name)
    parts = [
        pa.table([pa.repeat(name, len(vocabulary.texts)), vocabulary.texts], schema=_TEXTS)
        for name, vocabulary in sorted(vocabularies.items())
    ]
    pq.write_table(pa.concat_tables([_TEXTS.empty_table(), *parts]), folder / _VOCABULARIES)


def forget_texts(folder: Path, table: str, texts: Sequence[str]) -> int:
    """Blot ``texts`` out of the vocabulary of an embedding table; how many it had.

    Their numbers stay taken, so that all others keep theirs.
    """
    path = folder / _VOCABULARIES
    if not path.is_file():
        return 0
    known = pq.read_table(path)
    mine = pc.equal(known["table"], table)
    gone = pc.and_(mine, pc.is_in(known["text"], value_set=pa.array(texts, pa.string())))
    count: int = pc.sum(gone).as_py() or 0
    if count:
        blots = pa.array([f"{_FORGOTTEN} {place}" for place in range(len(known))])
        blotted = pc.if_else(gone, blots, known["text"])
        pq.write_table(known.set_column(1, "text", blotted), path)
    return count


def read_state(
    folder: Path, spec: FeatureSpec
) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Vocabulary]]:
    """The inverse of :func:`write_state`.

    Raises:
        ModelError: for a missing file.
    """
    for name in (_WEIGHTS, _ACCUMULATORS, _VOCABULARIES):
        if not (folder / name).is_file():
            raise ModelError(f"{folder / name} is missing; register the model again")
    table = pq.read_table(folder / _VOCABULARIES)
    vocabularies = {}
    for name, columns in spec.tables().items():
        texts = table.filter(pc.equal(table["table"], name))["text"].combine_chunks()
        vocabularies[name] = Vocabulary(columns[0].buckets, texts)
    return load_file(folder / _WEIGHTS), load_file(folder / _ACCUMULATORS), vocabularies
