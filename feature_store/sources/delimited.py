"""Delimited text read in bounded batches with declared column types, and errors that say where."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from feature_store.sources.base import SourceError

__all__ = ["Delimited", "find_files"]

_BLOCK_BYTES = 1 << 20


def find_files(folder: Path, pattern: str, what: str) -> list[Path]:
    """The files in ``folder`` that match ``pattern`` or ``pattern`` + ``.gz``, in name order.

    Raises:
        SourceError: when there is none, or the same file lies there plain and compressed.
    """
    plain = sorted(folder.glob(pattern))
    packed = sorted(folder.glob(f"{pattern}.gz"))
    if not plain and not packed:
        raise SourceError(
            f"{folder} holds no {pattern} or {pattern}.gz ({what}); "
            "point source.options.path at the folder of the published files"
        )
    twice = sorted({path.name for path in plain} & {path.name[:-3] for path in packed})
    if twice:
        raise SourceError(f"{folder} holds {twice[0]} plain and as .gz; remove one of them")
    return sorted(plain + packed, key=lambda path: path.name.removesuffix(".gz"))


@dataclass(frozen=True)
class Delimited:
    """One comma-separated file.

    Args:
        columns: the columns that are read, with their types; all must be there.
        may_be_empty: columns whose cells may be empty (null); no other may. None: all may.
        other_columns: whether the file's other columns are read too, as text.
        names: all columns of a file that may lack a header line, in order. Its first line is the
            header where it holds one of these names, and the first row otherwise. None: the first
            line is the header.
    """

    path: Path
    columns: Mapping[str, pa.DataType]
    may_be_empty: Sequence[str] | None = None
    other_columns: bool = False
    names: Sequence[str] | None = None

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The rows in file order, about a megabyte of text at a time; declared columns first.

        Raises:
            SourceError: for a missing column, or cells that are not of their column's type.
        """
        header = self._header()
        names = [*self.columns]
        if self.other_columns:
            names += [name for name in header if name not in self.columns]
        types = {name: self.columns.get(name, pa.string()) for name in names}
        try:
            for batch in self._open(names, types):
                self._check_empty(batch)
                yield batch
        except pa.ArrowInvalid as error:
            raise self._diagnosis(error) from error

    def _open(self, names: list[str], types: Mapping[str, pa.DataType]) -> pacsv.CSVStreamingReader:
        return pacsv.open_csv(
            self.path,
            read_options=self._read_options(),
            convert_options=pacsv.ConvertOptions(
                column_types=types,
                include_columns=names,
                null_values=[""],
                strings_can_be_null=True,
                quoted_strings_can_be_null=True,
            ),
        )

    def _read_options(self) -> pacsv.ReadOptions:
        names = self.names if self.names and not self._has_header(self._first_line()) else None
        return pacsv.ReadOptions(block_size=_BLOCK_BYTES, column_names=names)

    def _has_header(self, first_line: Sequence[str]) -> bool:
        return self.names is None or not set(self.names).isdisjoint(first_line)

    def _first_line(self) -> list[str]:
        try:
            with pacsv.open_csv(
                self.path, read_options=pacsv.ReadOptions(block_size=_BLOCK_BYTES)
            ) as reader:
                names: list[str] = reader.schema.names
        except (pa.ArrowInvalid, OSError) as error:
            raise SourceError(
                f"{self.path} is not a readable CSV file ({error}); download it again"
            ) from error
        return names

    def _header(self) -> list[str]:
        """The file's columns, read or named.

        Raises:
            SourceError: when a declared one is missing, or a file without a header line has another
                number of columns than are named.
        """
        header = self._first_line()
        if self.names is not None and not self._has_header(header):
            if len(header) != len(self.names):
                raise SourceError(
                    f"{self.path} has no header line, and its first row has {len(header)} cells "
                    f"({','.join(header)}) where {len(self.names)} are wanted: "
                    f"{', '.join(self.names)}; use the published file, or add a header line"
                )
            return list(self.names)
        missing = [name for name in self.columns if name not in header]
        if missing:
            raise SourceError(
                f"{self.path}: column {', '.join(map(repr, missing))} is missing in "
                f"{self._count_rows()} rows; the file has {', '.join(header)}; "
                "use the published file, header included"
            )
        return header

    def _count_rows(self) -> int:
        reader = pacsv.open_csv(
            self.path, convert_options=pacsv.ConvertOptions(include_columns=self._any_column())
        )
        return sum(batch.num_rows for batch in reader)

    def _any_column(self) -> list[str]:
        with pacsv.open_csv(self.path) as reader:
            return list(reader.schema.names[:1])

    def _check_empty(self, batch: pa.RecordBatch) -> None:
        if self.may_be_empty is None:
            return
        for name in self.columns:
            if name not in self.may_be_empty and batch[name].null_count:
                raise self._bad_cells(name)

    def _diagnosis(self, error: pa.ArrowInvalid) -> SourceError:
        """Why the typed reading failed: the first column with cells that are not of its type."""
        for name in self.columns:
            if self._count_bad(name)[0]:
                return self._bad_cells(name)
        return SourceError(f"{self.path}: {error}; download the file again")

    def _bad_cells(self, name: str) -> SourceError:
        bad, rows, values = self._count_bad(name)
        return SourceError(
            f"{self.path}: column {name!r} must be {self.columns[name]}, and {bad} of {rows} rows "
            f"hold something else; first values {', '.join(map(repr, values))}; "
            "correct or remove these rows"
        )

    def _count_bad(self, name: str) -> tuple[int, int, list[str | None]]:
        """How many cells of a column are not of its type, of how many, and the first three."""
        may_be_empty = self.may_be_empty is None or name in self.may_be_empty
        bad, rows, values = 0, 0, list[str | None]()
        try:
            for batch in self._open([name], {name: pa.string()}):
                rows += batch.num_rows
                wrong = _unconvertible(batch[name], self.columns[name], may_be_empty)
                bad += len(wrong)
                values += wrong[: max(3 - len(values), 0)].to_pylist()
        except pa.ArrowInvalid:
            # A row with too few or too many fields: the reader's own message says which.
            return 0, rows, []
        return bad, rows, values


def _unconvertible(text: pa.Array, kind: pa.DataType, may_be_empty: bool) -> pa.Array:
    """The cells of ``text`` that have no value of type ``kind``."""
    if pa.types.is_integer(kind):
        pattern = r"^[+-]?\d{1,19}$"
    elif pa.types.is_floating(kind):
        pattern = r"(?i)^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$|^[+-]?(nan|inf)$"
    elif pa.types.is_date(kind):
        pattern = r"^\d{4}-\d{2}-\d{2}$"
    elif pa.types.is_timestamp(kind):
        pattern = _timestamp_pattern(kind)
    else:
        pattern = ""
    wrong = pc.invert(pc.match_substring_regex(text, pattern))
    return text.filter(pc.fill_null(wrong, not may_be_empty))


def _timestamp_pattern(kind: pa.TimestampType) -> str:
    """What the reader takes for an instant; with a time zone, the offset must be written."""
    date = r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])"
    digits = {"s": "", "ms": r"(\.\d{1,3})?", "us": r"(\.\d{1,6})?", "ns": r"(\.\d{1,9})?"}[
        kind.unit
    ]
    time = rf"[ T]([01]\d|2[0-3]):[0-5]\d(:[0-5]\d{digits})?"
    if kind.tz:
        return rf"^{date}{time}(Z|[+-]\d{{2}}(:?\d{{2}})?)$"
    return rf"^{date}({time})?$"
