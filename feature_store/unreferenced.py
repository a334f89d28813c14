"""Files of a table that nothing names any more, found and removed.

Writers stage files before they commit them, and readers read files after they resolved them, so
that no file or folder goes before it is old: what is younger than the age given is never touched.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import stat
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pyiceberg.table import Table

from feature_store import storage
from feature_store.storage import Found
from feature_store.tables import Store, StoreError

__all__ = ["Swept", "files_in_folder", "referenced", "sweep"]

_SCHEME: Final = "file://"
_METADATA: Final = ".metadata.json"


@dataclass(frozen=True)
class Swept:
    """What was removed, or would be: files, their bytes, and folders that held nothing else."""

    files: int = 0
    bytes: int = 0
    folders: int = 0


@dataclass
class _Folder:
    """A folder as it was listed; ``pinned`` when it holds a link, or anything but files."""

    old: bool
    files: dict[str, Found] = field(default_factory=dict)
    folders: list[str] = field(default_factory=list)
    pinned: bool = False


def referenced(table: Table, without: Collection[int] = ()) -> set[str]:
    """Paths of every file that the table's metadata names.

    Args:
        without: snapshots that are taken as gone already.
    """
    metadata = table.metadata
    paths = {table.metadata_location, *(entry.metadata_file for entry in metadata.metadata_log)}
    statistics = (*metadata.statistics, *metadata.partition_statistics)
    paths |= {entry.statistics_path for entry in statistics}
    for snapshot in metadata.snapshots:
        if snapshot.snapshot_id in without:
            continue
        paths.add(snapshot.manifest_list)
        for manifest in snapshot.manifests(table.io):
            if manifest.manifest_path not in paths:
                paths.add(manifest.manifest_path)
                entries = manifest.fetch_manifest_entry(table.io, discard_deleted=True)
                paths |= {entry.data_file.file_path for entry in entries}
    return {path.removeprefix(_SCHEME) for path in paths}


def files_in_folder(store: Store, name: str) -> dict[str, int]:
    """Every file of a table's data, named by a snapshot or not, by path, with its bytes; links are
    left out.

    Raises:
        StoreError: when the folder is not this table's own, or not all of the table.
    """
    folder = store.iceberg(name).location().removeprefix(_SCHEME).rstrip("/")
    listed = _listed(folder, 0.0)
    table = store.iceberg(name)
    _check_whole(table, folder, listed, referenced(table))
    return {
        f"{path}/{file}": found.bytes
        for path, content in listed.items()
        if f"{path}/".startswith(f"{folder}/data/")
        for file, found in content.files.items()
    }


def sweep(
    store: Store, name: str, before: dt.datetime, without: Collection[int] = (), dry: bool = False
) -> Swept:
    """Remove files of a table that no snapshot names, and empty folders, from before an instant.

    Links are neither followed nor removed. What is listed first and referenced afterwards cannot
    be a file that was committed in between.

    Args:
        before: what was written at or after it stays.
        without: snapshots that are taken as gone already.
        dry: remove nothing.

    Raises:
        StoreError: when the folder is not this table's own, or not all of the table.
    """
    folder = store.iceberg(name).location().removeprefix(_SCHEME).rstrip("/")
    listed = _listed(folder, before.timestamp())
    table = store.iceberg(name)
    needed = referenced(table, without)
    _check_whole(table, folder, listed, referenced(table) if without else needed)
    kept = {folder, f"{folder}/data", f"{folder}/metadata"}
    files, found, folders = 0, 0, 0
    gone: set[str] = set()
    for path, content in listed.items():  # the deepest first
        doomed = [
            (f"{path}/{name}", file.bytes)
            for name, file in content.files.items()
            if file.written < before.timestamp() and f"{path}/{name}" not in needed
        ]
        files, found = files + len(doomed), found + sum(size for _, size in doomed)
        if not dry:
            for file, _ in doomed:
                storage.remove(file)
        emptied = len(doomed) == len(content.files) and gone.issuperset(content.folders)
        if emptied and content.old and not content.pinned and path not in kept:
            folders += 1
            gone.add(path)
            if not dry:
                # Whoever has put something there in the meantime keeps it.
                with contextlib.suppress(OSError):
                    Path(path).rmdir()
    return Swept(files, found, folders)


def _listed(folder: str, before: float) -> dict[str, _Folder]:
    """Every folder below ``folder``, itself included, each after those that it holds; of a bucket,
    which has no folders, what paths have in common.
    """
    listed: dict[str, _Folder] = {}
    if storage.in_bucket(folder):
        for file, found in storage.objects(folder):
            path, _, name = file.rpartition("/")
            listed.setdefault(path, _Folder(False)).files[name] = found
        return listed
    if Path(folder).is_symlink():
        return listed
    for path, folders, names in os.walk(folder, topdown=False, followlinks=False):
        content = listed[path] = _Folder(False)
        # A writer cleans up after itself meanwhile: what is gone is left out, and nothing else.
        with contextlib.suppress(FileNotFoundError):
            content.old = Path(path).lstat().st_mtime < before
        for name in (*folders, *names):
            with contextlib.suppress(FileNotFoundError):
                status = Path(path, name).lstat()
                if stat.S_ISDIR(status.st_mode):
                    content.folders.append(f"{path}/{name}")
                elif stat.S_ISREG(status.st_mode):
                    content.files[name] = Found(status.st_size, status.st_mtime)
                else:
                    content.pinned = True
    return listed


def _check_whole(
    table: Table, folder: str, listed: dict[str, _Folder], needed: Collection[str]
) -> None:
    """Refuse where files might be taken for unreferenced only because of how they are named."""
    # A commit since the listing has made a newer one, which lists these as its predecessors.
    own = [table.metadata_location, *(entry.metadata_file for entry in table.metadata.metadata_log)]
    places = [location.removeprefix(_SCHEME).rpartition("/") for location in own]
    if not any(name in listed.get(path, _Folder(False)).files for path, _, name in places):
        raise StoreError(
            f"{''.join(places[0])}, which the catalog names, is not below {folder} (links are not "
            "followed): nothing is removed. Make the folders of the table real ones"
        )
    outside = sorted(path for path in needed if not path.startswith(f"{folder}/"))
    if outside:
        raise StoreError(
            f"{len(outside)} files of the table lie outside its folder {folder}, {outside[0]} "
            "among them: nothing is removed. Give --warehouse as it was when the table was made"
        )
    for path, content in listed.items():
        for name in content.files:
            if not name.endswith(_METADATA) or f"{path}/{name}" in needed:
                continue
            owner = _owner(f"{path}/{name}")
            if owner not in (None, str(table.metadata.table_uuid)):
                raise StoreError(
                    f"{path}/{name} belongs to the table of another catalog that shares the "
                    f"folder: nothing is removed. Take --catalog-uri of the catalog in use, and "
                    f"when nobody uses the other any more, delete its {_METADATA} files"
                )


def _owner(path: str) -> str | None:
    """The table whose rows a metadata file describes; None without rows, as when two runs created
    the table at once and one was too late, and for a file that is gone or was cut off.
    """
    try:
        described = json.loads(storage.read_bytes(path))
        return str(described["table-uuid"]) if described["snapshots"] else None
    except (FileNotFoundError, ValueError, KeyError):
        return None
