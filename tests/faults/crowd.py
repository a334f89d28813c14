"""Several runs of one job at once."""

from __future__ import annotations

from feature_store import hours as hr
from tests.faults.hourly import HOUR
from tests.faults.small_store import LONGEST_END_S, SmallStore
from tests.faults.trials import Dealt, Trial
from tests.faults.victim import Victim

__all__ = ["concurrent_backfills"]

OVERTAKEN = "was taken over by run"


def concurrent_backfills(store: SmallStore, trial: Trial, _at: float) -> Dealt:
    """The hour twice at once and, where the job takes many, a range that ends with it.

    Whoever is overtaken ends with a sentence, and one of them makes the hour.
    """
    job, run = trial.job, store.run
    commands = [job.command(run, trial.own), job.command(run, trial.own)]
    if job.ranged:
        commands.append(job.command(run, trial.own, since=hr.add(HOUR, -2)))
    trial.chance.shuffle(commands)
    victims = [Victim(command, run.env) for command in commands]
    try:
        for victim in victims:
            victim.process.wait(LONGEST_END_S)
        ended = [victim.ended() for victim in victims]
    finally:
        for victim in victims:
            victim.clear()
    for victim, status in zip(victims, ended, strict=True):
        words = victim.text()[-6000:]
        assert status == 0 or (status == 1 and OVERTAKEN in words), f"status {status}\n{words}"
        assert "Traceback" not in words, words
    assert 0 in ended, "nobody made the hour"
    return Dealt(f"{len(victims)} runs", 0, "")
