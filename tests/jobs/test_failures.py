"""What a failed job tells: a sentence for what can be mended, a stack only where it helps."""

from __future__ import annotations

import argparse
import errno
from pathlib import Path

import pytest

from feature_store.damage import DamagedFileError
from jobs.support.failures import sentence
from models.versions import RegistryUnavailableError

WAREHOUSE = argparse.Namespace(warehouse="/nowhere/warehouse")


def raised(error: Exception, cause: Exception | None = None) -> Exception:
    """``error`` as it is caught."""
    try:
        raise error from cause
    except type(error) as caught:
        return caught


def test_a_full_disk_names_the_folders_and_what_is_free(tmp_path: Path) -> None:
    given = argparse.Namespace(warehouse=str(tmp_path / "warehouse"))
    full = OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "spill" / "part"))
    in_spark = RuntimeError("Job aborted: java.io.IOException: No space left on device")
    for error in (full, raised(ValueError("write failed"), full), in_spark):
        told = sentence(error, given)
        assert told is not None
        assert f"{tmp_path} has " in told
        assert "run the same command again" in told


def test_a_full_disk_comes_before_what_was_raised_from_it() -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    told = sentence(raised(RegistryUnavailableError("MLflow did not send it"), full), WAREHOUSE)
    assert told is not None
    assert told.startswith("no space left")


def test_a_damaged_file_is_named_from_sparks_tasks_as_well() -> None:
    path = "/w/rankmill/events/data/0123abcd/2026-11-11T05.parquet"
    damaged = DamagedFileError(path, OSError("CRC checksum\nverification failed"))
    text = f"Traceback ...\n  File ...\nfeature_store.damage.DamagedFileError: {damaged}\n  at org"
    for error in (damaged, RuntimeError(text)):
        told = sentence(error, WAREHOUSE)
        assert told == str(damaged)
    assert "spark-submit jobs/ingest_events.py --hour 2026-11-11T05;" in str(damaged)


def test_an_object_store_that_went_away_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    said = "When reading 'events': AWS Error NETWORK_CONNECTION during GetObject: refused"
    told = sentence(OSError(said), WAREHOUSE)
    assert told is not None
    assert told.startswith("the object store at http://127.0.0.1:9 does not answer (AWS Error NET")


@pytest.mark.parametrize("error", [KeyError("column"), OSError(errno.EACCES, "denied")], ids=str)
def test_what_nobody_foresaw_keeps_its_stack(error: Exception) -> None:
    assert sentence(error, WAREHOUSE) is None
