"""Files of the warehouse, wherever it lies: in a folder, or in a bucket behind the S3 protocol.

A path is either absolute on this machine or ``s3://bucket/key``; both go through Arrow's file
systems, here and in Spark's tasks, so that no jar is needed. Endpoint, region and keys are those of
AWS's own variables: ``AWS_ENDPOINT_URL``, ``AWS_REGION``, ``AWS_ACCESS_KEY_ID`` and
``AWS_SECRET_ACCESS_KEY``, or whatever else Arrow's chain of credentials finds.

Pages are written with a checksum, which is compared when they are read: a damaged file is an error
that names it, and not another number.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from feature_store.damage import DamagedFileError, is_damage, naming
from feature_store.staged import StoreError

__all__ = [
    "Found",
    "Rows",
    "absolute",
    "catalog_properties",
    "check",
    "dataset",
    "hadoop_path",
    "in_bucket",
    "intact",
    "objects",
    "parquet_file",
    "parquet_files",
    "parquet_writer",
    "read_bytes",
    "read_metadata",
    "read_schema",
    "read_table",
    "remove",
    "sha256",
    "unanswered",
    "write_table",
]

_S3: Final = "s3://"
_FILE: Final = "file://"
_REGION: Final = "us-east-1"
"""What stores that know no regions answer to; Arrow would else ask Amazon for the bucket's."""
_CONNECT_SECONDS: Final = 5.0
_REQUEST_SECONDS: Final = 60.0
_TRIES: Final = 5


@dataclass(frozen=True)
class Found:
    """A file or object: how many bytes it has, and when it was written, in seconds since 1970."""

    bytes: int
    written: float


def in_bucket(path: str) -> bool:
    """Whether ``path`` names an object, or the place of objects, and no file."""
    return path.startswith(_S3)


def absolute(warehouse: str) -> str:
    """``warehouse`` as every path below it begins.

    Raises:
        StoreError: for an address that is neither a folder nor in a bucket.
    """
    if in_bucket(warehouse):
        bucket, _, prefix = warehouse.removeprefix(_S3).partition("/")
        if not bucket:
            raise StoreError(f"{warehouse} names no bucket; write s3://bucket/folder")
        return _S3 + "/".join([bucket, *(part for part in prefix.split("/") if part)])
    if "://" in warehouse and not warehouse.startswith(_FILE):
        raise StoreError(
            f"tables cannot lie in {warehouse}; name a folder, or a bucket as s3://bucket/folder"
        )
    return str(Path(warehouse.removeprefix(_FILE)).resolve())


def check(warehouse: str) -> None:
    """Make sure that the bucket of ``warehouse`` can be reached; folders are made when written to.

    Raises:
        StoreError: with the address and what to do.
    """
    if not in_bucket(warehouse):
        return
    bucket = warehouse.removeprefix(_S3).partition("/")[0]
    try:
        kind = _s3().get_file_info(bucket).type
    except OSError as error:
        raise StoreError(unanswered(str(error), f" for bucket {bucket!r}")) from error
    if kind == pafs.FileType.NotFound:
        raise StoreError(
            f"{_address()} has no bucket {bucket!r}; create it, or correct the warehouse"
        )


def unanswered(said: str, what: str = "") -> str:
    """The sentence for a bucket's server that failed with ``said``."""
    return (
        f"the object store at {_address()} does not answer{what} ({' '.join(said.split())}); start "
        "it, or correct AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and run the "
        "same command again"
    )


def _address() -> str:
    return os.environ.get("AWS_ENDPOINT_URL", "Amazon S3")


def catalog_properties(warehouse: str) -> dict[str, str]:
    """What the Iceberg catalog needs in order to write its metadata below ``warehouse``."""
    if not in_bucket(warehouse):
        return {"warehouse": f"{_FILE}{warehouse}"}
    given = {
        "s3.endpoint": os.environ.get("AWS_ENDPOINT_URL"),
        "s3.access-key-id": os.environ.get("AWS_ACCESS_KEY_ID"),
        "s3.secret-access-key": os.environ.get("AWS_SECRET_ACCESS_KEY"),
        "s3.session-token": os.environ.get("AWS_SESSION_TOKEN"),
        "s3.region": _region(),
        "s3.connect-timeout": str(_CONNECT_SECONDS),
        "s3.request-timeout": str(_REQUEST_SECONDS),
    }
    return {"warehouse": warehouse, **{key: value for key, value in given.items() if value}}


def hadoop_path(path: str) -> str:
    """``path`` as Hadoop's file systems call it."""
    return f"s3a://{path.removeprefix(_S3)}" if in_bucket(path) else f"{_FILE}{path}"


def parquet_file(path: str, **options: Any) -> pq.ParquetFile:
    """A Parquet file, opened; ``options`` as of :class:`pyarrow.parquet.ParquetFile`."""
    return _NamedFile(path, **options)


class _NamedFile(pq.ParquetFile):  # type: ignore[misc]  # pyarrow's classes are Any to mypy
    """A Parquet file that is named when it cannot be read; the arguments are those of its base."""

    def __init__(self, path: str, **options: Any) -> None:
        self._path = path
        filesystem, inside = _located(path)
        with naming(path):
            super().__init__(
                inside, filesystem=filesystem, page_checksum_verification=True, **options
            )

    def read(self, *arguments: Any, **options: Any) -> pa.Table:
        with naming(self._path):
            return super().read(*arguments, **options)

    def read_row_group(self, *arguments: Any, **options: Any) -> pa.Table:
        with naming(self._path):
            return super().read_row_group(*arguments, **options)

    def iter_batches(self, *arguments: Any, **options: Any) -> Iterator[pa.RecordBatch]:
        with naming(self._path):
            yield from super().iter_batches(*arguments, **options)


def read_table(path: str, columns: Sequence[str] | None = None) -> pa.Table:
    """The rows of a Parquet file."""
    filesystem, inside = _located(path)
    with naming(path):
        return pq.read_table(
            inside, columns=columns and list(columns), filesystem=filesystem, partitioning=None,
            page_checksum_verification=True,
        )  # fmt: skip


def read_schema(path: str) -> pa.Schema:
    """The columns of a Parquet file, from its footer."""
    filesystem, inside = _located(path)
    with naming(path):
        return pq.read_schema(inside, filesystem=filesystem)


def read_metadata(path: str) -> pq.FileMetaData:
    """The footer of a Parquet file."""
    filesystem, inside = _located(path)
    with naming(path):
        return pq.read_metadata(inside, filesystem=filesystem)


def intact(path: str) -> bool:
    """Whether a Parquet file is there and all of it can be read as it was written."""
    try:
        for _ in parquet_file(path).iter_batches():
            pass
    except DamagedFileError:
        return False
    return True


@dataclass(frozen=True)
class Rows:
    """Rows of Parquet files, read as a dataset; a file that cannot be read is named.

    Arguments are those of :class:`pyarrow.dataset.Dataset`.

    Raises:
        DamagedFileError: while rows are read.
    """

    paths: Sequence[str]
    arrow: ds.Dataset

    def to_table(self, **options: Any) -> pa.Table:
        with self._naming():
            return self.arrow.to_table(**options)

    def head(self, rows: int, **options: Any) -> pa.Table:
        with self._naming():
            return self.arrow.head(rows, **options)

    def to_batches(self, **options: Any) -> Iterator[pa.RecordBatch]:
        with self._naming():
            yield from self.arrow.to_batches(**options)

    @contextmanager
    def _naming(self) -> Iterator[None]:
        """Arrow reads many files at once and does not say which of them failed: look."""
        try:
            yield
        except (pa.ArrowInvalid, OSError) as error:
            if is_damage(error):
                for path in self.paths:
                    if not intact(path):
                        raise DamagedFileError(path, error) from error
            raise


def dataset(paths: Sequence[str], schema: pa.Schema) -> Rows:
    """The rows of Parquet files that lie in one warehouse, as a dataset of ``schema``.

    Raises:
        DamagedFileError: for a file that is gone.
    """
    checked = ds.ParquetFragmentScanOptions(page_checksum_verification=True)
    kind = ds.ParquetFileFormat(default_fragment_scan_options=checked)
    filesystem = _located(paths[0])[0] if paths else pafs.LocalFileSystem()
    inside = [_located(path)[1] for path in paths]
    try:
        arrow = ds.dataset(inside, schema=schema, format=kind, filesystem=filesystem)
    except FileNotFoundError as error:  # of a folder; Arrow looks into a bucket when it reads
        raise DamagedFileError(str(error), error) from error
    return Rows(paths, arrow)


def parquet_writer(path: str, schema: pa.Schema, compression: str = "zstd") -> pq.ParquetWriter:
    """A writer of a new Parquet file, whose folder is made."""
    filesystem, inside = _for_writing(path)
    return pq.ParquetWriter(
        inside, schema, compression=compression, filesystem=filesystem, write_page_checksum=True
    )


def write_table(rows: pa.Table, path: str, row_group_size: int | None = None) -> None:
    """Write ``rows`` as a new Parquet file, whose folder is made."""
    filesystem, inside = _for_writing(path)
    pq.write_table(
        rows, inside, compression="zstd", row_group_size=row_group_size, filesystem=filesystem,
        write_page_checksum=True,
    )  # fmt: skip


def sha256(path: str) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    filesystem, inside = _located(path)
    with filesystem.open_input_file(inside) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_bytes(path: str) -> bytes:
    """All of a small file.

    Raises:
        FileNotFoundError: when it is not there.
    """
    filesystem, inside = _located(path)
    with filesystem.open_input_file(inside) as stream:
        return bytes(stream.readall())


def remove(path: str) -> None:
    """Remove a file; one that is gone already is no error."""
    filesystem, inside = _located(path)
    try:
        filesystem.delete_file(inside)
    except FileNotFoundError:
        return


def parquet_files(folder: str) -> list[str]:
    """Every ``.parquet`` file below ``folder``, in the order of their paths, name by name."""
    if in_bucket(folder):
        found = [path for path, _ in objects(folder) if path.endswith(".parquet")]
    else:
        found = [str(path) for path in Path(folder).rglob("*.parquet")]
    return sorted(found, key=lambda path: path.split("/"))


def objects(place: str) -> Iterator[tuple[str, Found]]:
    """Every object below ``place``, a path in a bucket, by its path."""
    filesystem, inside = _located(place)
    below = pafs.FileSelector(inside, recursive=True, allow_not_found=True)
    for info in filesystem.get_file_info(below):
        if info.type == pafs.FileType.File:
            yield f"{_S3}{info.path}", Found(info.size, info.mtime_ns / 1e9)


def _located(path: str) -> tuple[pafs.FileSystem, str]:
    """The file system of ``path``, and what it calls it."""
    if in_bucket(path):
        return _s3(), path.removeprefix(_S3)
    return pafs.LocalFileSystem(), path


def _for_writing(path: str) -> tuple[pafs.FileSystem, str]:
    filesystem, inside = _located(path)
    if not in_bucket(path):  # a bucket has no folders
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    return filesystem, inside


def _s3() -> pafs.FileSystem:
    """The store of AWS's variables."""
    return _client(
        os.environ.get("AWS_ENDPOINT_URL"), _region(), os.environ.get("AWS_ACCESS_KEY_ID")
    )


@lru_cache(maxsize=4)
def _client(endpoint: str | None, region: str, _key: str | None) -> pafs.FileSystem:
    """Made on first use in each process: a client does not survive a fork."""
    return pafs.S3FileSystem(
        endpoint_override=endpoint,
        region=region,
        connect_timeout=_CONNECT_SECONDS,
        request_timeout=_REQUEST_SECONDS,
        retry_strategy=pafs.AwsStandardS3RetryStrategy(max_attempts=_TRIES),
    )


def _region() -> str:
    return os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or _REGION
