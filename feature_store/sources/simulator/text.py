"""Names of things in a simulated log."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from feature_store.schemas import TIMESTAMP
from feature_store.sources.simulator.population import Floats, Ints

__all__ = ["instants", "joined_text", "request_names", "target_names"]


def joined_text(*parts: str | Ints) -> pa.ChunkedArray:
    """The parts joined: texts as they are, numbers in decimal."""
    columns = [
        pa.scalar(part) if isinstance(part, str) else pa.array(part).cast(pa.string())
        for part in parts
    ]
    return pa.chunked_array([pc.binary_join_element_wise(*columns, "")])


def request_names(hour: int, request: Ints, position: Ints | None = None) -> pa.ChunkedArray:
    """Ids of requests, or of their impressions."""
    if position is None:
        return joined_text(f"q{hour}-", request)
    return joined_text(f"q{hour}-", request, "-", position)


def target_names(is_room: npt.NDArray[np.bool_], item: Ints, room: Ints) -> pa.ChunkedArray:
    """Ids of rooms where ``is_room``, else of items."""
    chosen = pc.if_else(pa.array(is_room), joined_text("r", room), joined_text("i", item))
    return pa.chunked_array(chosen.chunks, pa.string())


def instants(hour: int, second: Floats) -> pa.Array:
    """Seconds after the beginning of ``hour`` (since the epoch) as timestamps."""
    micros = hour * 3_600_000_000 + np.round(second * 1e6).astype(np.int64)
    return pa.array(micros).cast(TIMESTAMP)
