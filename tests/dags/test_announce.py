"""Hours of a bootstrap, announced through a real API server, complete a day and fire it once."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from airflow.api_fastapi.app import create_app

from feature_store import hours as hr
from local.airflow_api import AirflowApi
from local.announce import announce, main
from local.stack import LocalError
from tests.dags.scheduling import DAILY, emit, fired, forget, listen, pause

DAY = "2026-11-11"
ZONE = "Asia/Shanghai"
HOURS = hr.date_hours(DAY, ZONE)
BEFORE, LIVE = HOURS[:21], HOURS[21:]


@pytest.fixture(scope="module")
def address(database: Path) -> Iterator[str]:  # noqa: ARG001
    """Airflow's API server over the tests' database."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS", "True")
        patch.setenv("AIRFLOW__API_AUTH__JWT_SECRET", "x" * 64)
        config = uvicorn.Config(create_app(), host="127.0.0.1", port=0, log_level="warning")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run)
        thread.start()
        try:
            deadline = time.monotonic() + 60
            while not server.started:
                assert thread.is_alive() and time.monotonic() < deadline
                time.sleep(0.05)
            port = server.servers[0].sockets[0].getsockname()[1]
            yield f"http://127.0.0.1:{port}"
        finally:
            server.should_exit = True
            thread.join(30)


@pytest.fixture
def api(address: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[AirflowApi]:
    """A session with that server; the daily DAGs wait for hours."""
    monkeypatch.setenv("RANKMILL_TIME_ZONE", ZONE)
    listen()
    yield AirflowApi(address)
    forget()


def test_a_bootstraps_hours_and_the_live_ones_fire_their_day_once(api: AirflowApi) -> None:
    assert announce(api, BEFORE, ZONE) == BEFORE
    emit(LIVE[:-1])
    assert fired() == [], "23 of 24"
    assert announce(api, BEFORE, ZONE) == BEFORE
    assert fired() == [], "an hour counts once"
    emit(LIVE[-1:])
    assert fired() == [DAY]
    assert announce(api, HOURS, ZONE) == []
    assert fired() == [DAY]
    following = hr.add(HOURS[-1], 1)
    assert announce(api, [*HOURS, following], ZONE) == [following]


def test_hours_that_were_announced_to_nobody_are_made_up_for(api: AirflowApi) -> None:
    pause(True)
    emit(LIVE)
    with pytest.raises(LocalError, match=f"paused and would not hear.*: {', '.join(DAILY)}"):
        announce(api, HOURS, ZONE)
    pause(False)
    assert announce(api, BEFORE, ZONE) == BEFORE
    assert fired() == []
    assert announce(api, HOURS, ZONE) == HOURS
    assert fired() == [DAY]


def test_an_asset_that_nobody_waits_for_is_named(api: AirflowApi) -> None:
    with pytest.raises(LocalError, match=r"No DAG at http.* waits for the asset hour_scored"):
        announce(api, BEFORE, ZONE, "hour_scored")


def test_the_command_says_what_it_did(api: AirflowApi, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--airflow", api.address, "--from-hour", HOURS[0], "--to-hour"]
    zone = ["--time-zone", ZONE]
    assert main([*where, HOURS[-1], *zone]) == 0
    assert fired() == [DAY]
    assert main([*where, hr.add(HOURS[-1], 2), *zone]) == 0
    lines = capsys.readouterr().out.splitlines()  # the server writes there as well
    assert [line for line in lines if line.startswith("announced")] == [
        "announced 24 of 24 hours",
        "announced 2 of 26 hours; the others are of a day that has run",
    ]
    pause(True)
    assert main([*where, HOURS[-1], *zone]) == 1
    assert "Unpause them" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (["--to-hour", "2026-11-11", "--time-zone", ZONE], "write an hour as 2026-11-11T05"),
        (["--to-hour", "2026-11-01T00", "--time-zone", ZONE], "lies before --from-hour"),
        (["--to-hour", HOURS[-1], "--time-zone", "Shanghai"], "write a time zone as Asia/Shanghai"),
        (["--to-hour", HOURS[-1]], "required: --time-zone"),
    ],
)
def test_the_command_refuses_what_it_cannot_read(
    wrong: list[str],
    words: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("RANKMILL_TIME_ZONE", raising=False)
    with pytest.raises(SystemExit) as ended:
        main(["--from-hour", HOURS[0], *wrong])
    assert ended.value.code == 2
    assert words in capsys.readouterr().err
