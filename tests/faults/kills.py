"""Jobs killed at random moments: what is seen then, and what a rerun leaves.

A try takes away what a job made of the last hour, starts the job as the scheduler would, kills it
at a moment drawn from its whole duration, and waits until nothing of it runs. Of every table then
either nothing is visible or exactly the hour of the undisturbed run; and the same command, run to
its end, leaves exactly what the undisturbed run left. A try follows from its seed and number, but
for the duration of its job, which is measured.
"""

from __future__ import annotations

import contextlib
import random
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import yaml

from feature_store.sources.simulator import MarketConfig, write_simulation
from tests.e2e.stack import Running, finished, project_folder, started
from tests.faults.hourly import FIRST, HOURS, JOBS, Job, ledger_of
from tests.faults.victim import Victim

__all__ = ["LostError", "Outcome", "SmallStore", "Try", "jobs_of", "planned"]

T = TypeVar("T")

LONGEST_END_S = 90
"""How long what is left of a killed job may take to end by itself, on a busy machine."""

CONFIGURATION = {
    "source": {"name": "simulator"},
    "train": {"gbdt": {"tasks": ["click"], "rounds": 10, "num_leaves": 7}},
    "evaluation": {"labels": ["click"], "resamples": 100},
}
# Some 260 events an hour, with enough dirt for the last hour to have a quarantine.
MARKET = MarketConfig(
    start=FIRST, requests_per_hour=15, users=100, items=100, rooms=40, categories=8,
    too_late_share=0.03, duplicate_share=0.02,
)  # fmt: skip


class LostError(AssertionError):
    """A kill left a part of an hour, or a rerun something else than the undisturbed run."""


@dataclass(frozen=True)
class Try:
    """One kill: whom it strikes, and when, as a share of the job's duration."""

    seed: int
    number: int
    job: Job
    way: str
    moment: float

    def __str__(self) -> str:
        return (
            f"try {self.number} of seed {self.seed}: {self.job.name}, {self.way}, "
            f"at {self.moment:.1%} of its duration"
        )

    @property
    def repeat(self) -> str:
        """The command line that makes this try again."""
        return f'make bench-kills ARGS="--seed {self.seed} --only {self.number}"'


def planned(seed: int, number: int) -> Try:
    """Jobs take turns, and each of them its ways to be killed."""
    turn, place = divmod(number, len(JOBS))
    job = JOBS[place]
    way = job.ways[(turn + place) % len(job.ways)]
    return Try(seed, number, job, way, random.Random(f"{seed}|{number}").random())


def jobs_of(tries: Iterable[Try]) -> tuple[Job, ...]:
    """What must have run undisturbed before ``tries``: their jobs, and those before them.

    The hour of events is judged in any case, as `Ingestion.settle` leaves it.
    """
    return JOBS[: 1 + max(1, *(JOBS.index(trial.job) for trial in tries))]


@dataclass(frozen=True)
class Outcome:
    """What a kill met and left, of a try that lost nothing.

    Attributes:
        struck: whom it met: the group where what was meant did not run at that moment, or nothing
            where the job had ended.
        seconds: from the job's start to the kill.
        duration: of the job undisturbed, by which the moment was chosen.
        status: how the job ended.
        seen: how many things were visible afterwards, each of them whole.
        whole: how many are visible of an undisturbed run.
    """

    struck: str
    seconds: float
    duration: float
    status: int
    seen: int
    whole: int


class SmallStore:
    """A store of 25 small hours as one range of undisturbed jobs left it: the truth.

    Attributes:
        seconds: the latest duration of each job, from start to end.
        lost: whether a try lost something; there is no truth to compare with any more.
    """

    def __init__(self, jobs: Sequence[Job] = JOBS) -> None:
        text = yaml.safe_dump(CONFIGURATION)
        self._jobs = jobs
        self.lost = False
        self.run: Running = started(project_folder("kills", "demo", text), "simulator", None)
        try:
            self.seconds = self._fill()
            self._states = {job.name: job.state(self.run) for job in jobs}
            self._ledger = ledger_of(self.run, jobs)
            self._check()
        except BaseException:
            self.close()
            raise
        # A job of many hours takes longer than the same of one.
        self._alone = {job.name for job in jobs if not job.ranged}

    def _fill(self) -> dict[str, float]:
        """Run everything once, over all hours where a job takes many; how long each of them took.

        An undisturbed run of the last hour alone would take a third of the time of five tries; that
        a range leaves the tables of hours alone is what other tests prove, and every rerun here.
        """
        log = Path(self.run.env["RANKMILL_DATA"])
        write_simulation(MARKET, log, HOURS, lambda _hour, _rows: None, with_truth=False)
        seconds = {}
        for job in self._jobs:
            if job.name != JOBS[0].name:
                self.run.wait_for_mlflow()
            began = time.monotonic()
            finished(job.command(self.run, over_all=job.ranged), self.run.env)
            seconds[job.name] = time.monotonic() - began
        return seconds

    def _check(self) -> None:
        """Every table holds rows of the last hour, so that something can be lost."""
        for job in self._jobs:
            shown = {key.split()[0] for key in self._states[job.name]
                     if not key.endswith(" completed")}  # fmt: skip
            empty = set(job.tables) - shown
            assert empty <= job.empty, f"{job.name} makes nothing of {sorted(empty)}"

    def attempt(self, trial: Try) -> Outcome:
        """Take the job's hour away, kill the job, look, run it again, compare.

        Raises:
            LostError: when something was visible that should not be, or is not what it should be;
                it says how to repeat the try.
        """
        job, own = trial.job, f"{trial.seed}_{trial.number}"
        guessed = job.name not in self._alone
        try:
            outcome = self._struck(trial, own)
            if outcome.struck == "nothing" and guessed:
                # It takes less alone than over all hours, and that much is known now.
                outcome = self._struck(trial, own)
            self._rerun(job, own)
        except AssertionError as error:
            self.lost = True
            raise LostError(f"{trial}\n{error}\nRepeat it: {trial.repeat}") from error
        return outcome

    def _struck(self, trial: Try, own: str) -> Outcome:
        """Withdraw, kill, and look."""
        job, duration = trial.job, self.seconds[trial.job.name]
        job.withdraw(self.run)
        self._expect({}, job.state(self.run, own), "what was taken away is still seen")
        at = trial.moment * duration
        struck, status, words = self._kill(job, own, trial.way, at)
        assert struck != "nothing" or status == 0, f"it ended by itself with {status}\n{words}"
        seen = self._seen(job, own, status, words)
        whole = len(self._states[job.name])
        return Outcome(struck, round(at, 2), round(duration, 2), status, seen, whole)

    def _kill(self, job: Job, own: str, way: str, at: float) -> tuple[str, int, str]:
        """Strike ``at`` seconds after the start; whom it met, the exit status, the last words."""
        began = time.monotonic()
        victim = Victim(job.command(self.run, own), self.run.env)
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                victim.process.wait(max(0.0, began + at - time.monotonic()))
                self._took(job, began)
            struck = strike(victim, way)
            status = victim.ended(LONGEST_END_S)
        finally:
            victim.clear()
        return struck, status, victim.text()[-3000:]

    def _took(self, job: Job, began: float) -> None:
        self.seconds[job.name] = time.monotonic() - began
        self._alone.add(job.name)

    def _seen(self, job: Job, own: str, status: int, words: str) -> int:
        """How many things are visible after a kill, once each of them is found whole."""
        found, whole = job.state(self.run, own), self._states[job.name]
        partly = {key: (whole.get(key), text) for key, text in found.items()
                  if whole.get(key) != text}  # fmt: skip
        assert not partly, f"visible after the kill, as (truth, found): {partly}\n{words}"
        for table in job.tables:
            rows = f"{table} rows"
            missing = f"{table} completed" in found and rows in whole and rows not in found
            assert not missing, f"{table} is said to be complete, and has no rows\n{words}"
        assert status != 0 or found == whole, f"it ended well, with {sorted(found)}\n{words}"
        return len(found)

    def _rerun(self, job: Job, own: str) -> None:
        """Run ``job`` to its end; compare what it made, and the whole ledger, with the truth."""
        began = time.monotonic()
        finished(job.command(self.run, own), self.run.env)
        self._took(job, began)
        self._expect(self._states[job.name], job.state(self.run, own), "after the rerun")
        left = job.left_over(self.run)
        assert left is None, f"the rerun left over {left}"
        job.settle(self.run)
        self._expect(self._ledger, ledger_of(self.run, self._jobs), "in the ledger after the rerun")

    def _expect(self, truth: Mapping[T, object], found: Mapping[T, object], what: str) -> None:
        other = [key for key in {**truth, **found} if truth.get(key) != found.get(key)]
        shown = {key: (truth.get(key), found.get(key)) for key in other}
        assert not other, f"{what}, as (truth, found): {shown}"

    def close(self) -> None:
        """Stop everything and delete the folder."""
        self.run.close()


def strike(victim: Victim, way: str) -> str:
    """Kill ``way``, or the group where that does not run yet or any more; whom the kill met."""
    for whom in dict.fromkeys((way, "group")):
        if victim.process.poll() is not None:
            break
        # ValueError: no such process, or its predecessor of the same name, at this moment
        with contextlib.suppress(ValueError, ProcessLookupError):
            victim.strike(whom)
            return whom
    return "nothing"
