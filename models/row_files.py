"""Encoded rows on disk, written once from a stream and read in shuffled windows, epoch by epoch.

Memory holds one window. The order of an epoch follows from the seed and the epoch's number alone,
so that an interrupted epoch goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from models.encoding import Encoder, Rows
from models.errors import TrainingRefused

__all__ = ["Moments", "RowFiles", "write_rows"]

Held = Callable[[pa.RecordBatch], npt.NDArray[np.bool_]]
"""Which rows of a batch are kept for early stopping: (B,)."""

_KINDS: Final = {
    "dense": np.dtype(np.float32),
    "sparse": np.dtype(np.int32),
    "sequences": np.dtype(np.int32),
    "extra": np.dtype(np.int32),
    "labels": np.dtype(np.float32),
}
_BUCKETED: Final = 32
"""Batches among which rows of like sequence lengths are put together, so that little is padded."""


class Moments:
    """What is known of the rows to fit on without keeping them, added up batch by batch.

    Attributes:
        rows: how many there are.
        mature: (T,) labels that are mature; ``positives`` (T,): those of them above 0.
    """

    def __init__(self, columns: int, tasks: int) -> None:
        self.rows = 0
        self.mature = np.zeros(tasks, np.int64)
        self.positives = np.zeros(tasks, np.int64)
        self._count = np.zeros(columns)
        self._sum = np.zeros(columns)
        self._squares = np.zeros(columns)

    def add(self, rows: Rows) -> None:
        """Add ``rows``."""
        self.rows += rows.size
        self.mature += (~np.isnan(rows.labels)).sum(0)
        self.positives += (rows.labels > 0).sum(0)
        values = rows.dense.astype(np.float64)
        known = ~np.isnan(values)
        values[~known] = 0.0
        self._count += known.sum(0)
        self._sum += values.sum(0)
        self._squares += np.einsum("bd,bd->d", values, values)

    def mean(self) -> npt.NDArray[np.float64]:
        """(D,) of the rows' numbers; 0 for one without any value."""
        return self._sum / np.maximum(self._count, 1.0)

    def scale(self) -> npt.NDArray[np.float64]:
        """(D,); 1 / standard deviation, and 1 for a column that is constant."""
        variance = self._squares / np.maximum(self._count, 1.0) - self.mean() ** 2
        steady = variance <= 1e-8
        return np.where(steady, 1.0, 1.0 / np.sqrt(np.where(steady, 1.0, variance)))


class RowFiles:
    """Rows of one kind, one file a field of ``Rows`` and one for the rows' hours."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._files: dict[str, IO[bytes]] = {}
        self._widths: dict[str, int] = {}
        self._hours: list[str] = []
        self.count = 0

    def __enter__(self) -> Self:
        for name in (*_KINDS, "hour"):
            self._files[name] = (self._folder / f"{name}.bin").open("wb")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        for file in self._files.values():
            file.close()

    def append(self, rows: Rows, hours: list[str]) -> None:
        """Write ``rows``; ``hours`` says of each which hour's samples it belongs to."""
        for name, values in zip(_KINDS, rows, strict=True):
            self._widths[name] = values.shape[1]
            self._files[name].write(np.ascontiguousarray(values).tobytes())
        known = {hour: place for place, hour in enumerate(self._hours)}
        for hour in dict.fromkeys(hours):
            if hour not in known:
                known[hour] = len(self._hours)
                self._hours.append(hour)
        codes = np.array([known[hour] for hour in hours], np.int32)
        self._files["hour"].write(codes.tobytes())
        self.count += rows.size

    def _mapped(self, name: str, kind: np.dtype[Any], width: int) -> npt.NDArray[Any]:
        if not self.count or not width:
            return np.empty((self.count, width), kind)
        path = self._folder / f"{name}.bin"
        return np.memmap(path, kind, "r", shape=(self.count, width))

    def rows(self, places: slice) -> Rows:
        """Consecutive rows, read from disk."""
        found = (
            np.array(self._mapped(name, kind, self._widths.get(name, 0))[places])
            for name, kind in _KINDS.items()
        )
        return Rows(*found)

    def hours(self, places: npt.NDArray[np.int64]) -> list[str]:
        """The distinct hours of some rows, in order."""
        codes = self._mapped("hour", np.dtype(np.int32), 1)[places, 0]
        return sorted(self._hours[code] for code in np.unique(codes))

    def batches(self, size: int) -> Iterator[Rows]:
        """All rows as they were written, ``size`` at a time."""
        for start in range(0, self.count, size):
            yield self.rows(slice(start, start + size))

    def shuffled(
        self, size: int, window: int, seed: int, epoch: int, first: int = 0
    ) -> Iterator[tuple[npt.NDArray[np.int64], Rows]]:
        """Batches of an epoch from number ``first`` on, with the places of their rows.

        The rows are cut into windows of ``window`` rows; their order and the order within each are
        drawn. A row is in exactly one batch.
        """
        starts = np.arange(0, self.count, window)
        order = np.random.default_rng((seed, epoch)).permutation(starts)
        done = 0
        for start in order.tolist():
            rows_here = min(window, self.count - start)
            batches = -(-rows_here // size)
            if done + batches <= first:
                done += batches
                continue
            rows = self.rows(slice(start, start + rows_here))
            draw = np.random.default_rng((seed, epoch, start))
            places = _by_length(draw.permutation(rows_here), rows.sequences, size, draw)
            rows = rows.at(places)
            for number in range(max(first - done, 0), batches):
                cut = slice(number * size, (number + 1) * size)
                yield start + places[cut], rows.at(cut)
            done += batches


def _by_length(
    order: npt.NDArray[np.int64], sequences: npt.NDArray[np.int32], size: int,
    draw: np.random.Generator,
) -> npt.NDArray[np.int64]:  # fmt: skip
    """``order`` with rows of like lengths in one batch; which batch comes when is drawn again."""
    if not sequences.shape[1]:
        return order
    lengths = np.count_nonzero(sequences, axis=1)
    parts = []
    for start in range(0, len(order), size * _BUCKETED):
        part = order[start : start + size * _BUCKETED]
        part = part[np.argsort(lengths[part], kind="stable")]
        whole = len(part) // size
        batches = draw.permutation(whole)
        parts += [part[number * size : (number + 1) * size] for number in batches.tolist()]
        parts.append(part[whole * size :])
    return np.concatenate(parts)


def write_rows(
    stream: Iterable[pa.RecordBatch], encoder: Encoder, folder: Path, held: Held | None,
    grow: bool = True,
) -> tuple[RowFiles, RowFiles, Moments]:  # fmt: skip
    """Encode ``stream`` below ``folder``: rows to fit on, rows that ``held`` marks, and the moments
    of the former.

    Args:
        grow: number texts that no vocabulary holds yet.
    """
    moments = Moments(encoder.spec.numbers, len(encoder.spec.labels))
    with RowFiles(folder / "train") as train, RowFiles(folder / "valid") as valid:
        for batch in stream:
            marked = np.zeros(batch.num_rows, bool) if held is None else held(batch)
            for kept, files in ((~marked, train), (marked, valid)):
                part = batch.filter(pa.array(kept))
                if not part.num_rows:
                    continue
                rows = _encoded(encoder, part, grow and files is train)
                files.append(rows, _hours_of(part))
                if files is train:
                    moments.add(rows)
    return train, valid, moments


def _encoded(encoder: Encoder, batch: pa.RecordBatch, grow: bool) -> Rows:
    try:
        return encoder.encode(batch, train=True, grow=grow)
    except TrainingRefused as error:
        hours = ", ".join(sorted(set(_hours_of(batch))))
        raise TrainingRefused(f"{hours or 'rows'}: {error}") from error


def _hours_of(batch: pa.RecordBatch) -> list[str]:
    if "hour" in batch.schema.names:
        hours: list[str] = batch.column("hour").to_pylist()
        return hours
    return [""] * batch.num_rows
