"""Files of a table exchanged for others, and what still names the old ones."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping
from typing import Final

import pyarrow.compute as pc
from pyiceberg.expressions import AlwaysTrue
from pyiceberg.io.pyarrow import parquet_file_to_data_file
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table
from pyiceberg.table.update.snapshot import ExpireSnapshots, ManageSnapshots

from feature_store import storage
from feature_store.commits import FewCopies
from feature_store.tables import Store
from feature_store.user_rows import UserSearch

__all__ = [
    "OvertakenError",
    "current_files",
    "drop_snapshots",
    "rewritten_without",
    "snapshots_with",
    "swap",
]

_SCHEME: Final = "file://"


class OvertakenError(RuntimeError):
    """Somebody replaced files while they were rewritten."""


def current_files(table: Table) -> dict[str, DataFile]:
    """The data files of the current snapshot, by path."""
    snapshot = table.current_snapshot()
    if snapshot is None:
        return {}
    return {
        entry.data_file.file_path.removeprefix(_SCHEME): entry.data_file
        for manifest in snapshot.manifests(table.io)
        for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=True)
    }


def snapshots_with(table: Table) -> dict[int, set[str]]:
    """The paths of the data files of every snapshot."""
    known: dict[str, set[str]] = {}
    found: dict[int, set[str]] = {}
    for snapshot in table.metadata.snapshots:
        paths = found[snapshot.snapshot_id] = set()
        for manifest in snapshot.manifests(table.io):
            if manifest.manifest_path not in known:
                known[manifest.manifest_path] = {
                    entry.data_file.file_path.removeprefix(_SCHEME)
                    for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=True)
                }
            paths |= known[manifest.manifest_path]
    return found


def rewritten_without(path: str, table: str, search: UserSearch) -> str | None:
    """A copy of a file of ``table`` without the rows that ``search`` finds, row group by row
    group, beside it and before the same neighbours; None when no row is left."""
    copy = f"{path.removesuffix('.parquet')}-{uuid.uuid4().hex}.parquet"
    rows = 0
    with (
        storage.parquet_file(path) as file,
        storage.parquet_writer(copy, file.schema_arrow) as writer,
    ):
        for group in range(file.num_row_groups):
            found = file.read_row_group(group)
            kept = found.filter(pc.invert(search.mask(table, found)))
            if kept.num_rows:
                writer.write_table(kept)
                rows += kept.num_rows
    if not rows:
        storage.remove(copy)
        return None
    return copy


def swap(
    store: Store, name: str, theirs: Mapping[str, Collection[str]],
    made: Mapping[str, str | None],
) -> int | None:  # fmt: skip
    """Put ``made`` in the place of the files ``theirs``, by hour, in one transaction.

    Returns:
        The snapshot that is the current one afterwards.

    Raises:
        OvertakenError: when one of them is not there any more; nothing is changed.
    """
    old = [path for paths in theirs.values() for path in paths]

    def attempt(table: Table) -> None:
        there = current_files(table)
        if not there.keys() >= set(old):
            raise OvertakenError(name)
        with FewCopies(table) as transaction:
            metadata = transaction.table_metadata
            fresh = [path for path in map(made.get, old) if path is not None]
            added = [parquet_file_to_data_file(table.io, metadata, path) for path in fresh]
            with transaction.update_snapshot().overwrite() as overwrite:
                if not metadata.spec().fields:
                    overwrite.delete_by_predicate(AlwaysTrue())
                for path in old:
                    overwrite.delete_data_file(there[path])
                for file in added:
                    overwrite.append_data_file(file)

    if not old:
        return store.snapshot_id(name)
    snapshot = store.change(name, attempt).current_snapshot()
    return None if snapshot is None else snapshot.snapshot_id


def drop_snapshots(store: Store, name: str, doomed: Collection[str]) -> None:
    """Drop the snapshots that name any of the files ``doomed``, in one commit, and whatever tags
    them.

    Raises:
        OvertakenError: when the current one does.
    """

    def attempt(table: Table) -> None:
        numbers = {
            number for number, paths in snapshots_with(table).items() if not
            paths.isdisjoint(doomed)
        }  # fmt: skip
        head = table.current_snapshot()
        if head is not None and head.snapshot_id in numbers:
            raise OvertakenError(name)
        refs = {label: ref for label, ref in table.refs().items() if ref.snapshot_id in numbers}
        if not numbers:
            return
        with FewCopies(table) as transaction:
            with ManageSnapshots(transaction) as manage:
                for label, ref in refs.items():
                    if ref.snapshot_ref_type == "tag":
                        manage.remove_tag(label)
                    else:
                        manage.remove_branch(label)
            with ExpireSnapshots(transaction) as expiry:
                expiry.by_ids(sorted(numbers))

    store.change(name, attempt)
