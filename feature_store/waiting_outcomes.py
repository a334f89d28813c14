"""Outcomes that wait for the samples they belong to, which come in pieces."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from feature_store.rowhash import key_hashes

__all__ = ["WaitingOutcomes"]


class WaitingOutcomes:
    """Outcomes by ``sample_id``; asking for some takes as long as there are samples that ask.

    An outcome is the first sample's of its name, and no later one's: what was taken is gone.
    """

    def __init__(self, outcomes: pa.Table) -> None:
        self._outcomes = outcomes
        hashes = _hashes(outcomes["sample_id"])
        self._order = np.argsort(hashes, kind="stable")
        self._hashes = hashes[self._order]
        self._waiting = np.ones(len(hashes), dtype=bool)

    def take(self, samples: pa.ChunkedArray) -> pa.Table:
        """The outcomes of the samples with these ids, in the order of all outcomes."""
        asked = np.unique(_hashes(samples))
        first = np.searchsorted(self._hashes, asked, "left")
        counts = np.searchsorted(self._hashes, asked, "right") - first
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        rows = np.sort(self._order[np.repeat(first, counts) + within])
        rows = rows[self._waiting[rows]]
        found = self._outcomes.take(pa.array(rows))
        # Two ids may share a hash.
        own = pc.is_in(found["sample_id"], value_set=samples.combine_chunks())
        self._waiting[rows[own.to_numpy()]] = False
        return found.filter(own)


def _hashes(ids: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    parts = [key_hashes([pa.chunked_array([chunk])]) for chunk in ids.chunks if len(chunk)]
    return np.concatenate(parts) if parts else np.empty(0, np.int64)
