"""The harness of all faults: a small store, what is seen after a fault, and what a rerun leaves.

A try takes away what a job made of the last hour, starts the job as the scheduler would, lets a
fault happen, and puts right what an operator would. Of every table then either nothing is visible
or exactly the hour of the undisturbed run, no alias has moved to another version, and a job that
ended by the fault has said so in a sentence; and the same command, run to its end, leaves exactly
what the undisturbed run left. A try follows from its fault, seed and number, but for the duration
of its job, which is measured.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import yaml

from feature_store import hours as hr
from feature_store.schemas import TABLES
from feature_store.sources.simulator import MarketConfig, write_simulation
from tests.e2e.stack import Running, finished, project_folder, started
from tests.faults.hourly import (
    EMBEDDING,
    FIRST,
    HOUR,
    HOURS,
    JOBS,
    RANKER,
    Job,
    aliases_of,
    ledger_of,
)
from tests.faults.trials import NOTHING, Dealt, LostError, Outcome, Trial
from tests.faults.victim import Victim
from tests.faults.worlds import WORLDS

__all__ = ["SmallStore", "jobs_of"]

T = TypeVar("T")

NEXT = hr.add(HOUR, 1)
HOURLY = ("ingest_events", "validate_events", "extract_features", "build_samples")
MODEL_OF = {"train_gbdt": RANKER, "evaluate": RANKER, "promote": RANKER, "embed_graph": EMBEDDING}

LONGEST_END_S = 180
"""How long what is left of a struck job may take to end by itself, on a busy machine."""

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


def jobs_of(names: Sequence[str]) -> tuple[Job, ...]:
    """What must have run undisturbed before tries on the jobs ``names``: they, and those before."""
    known = [job.name for job in JOBS]
    return JOBS[: 1 + max(map(known.index, names))]


class SmallStore:
    """A store of 25 small hours as one range of undisturbed jobs left it: the truth.

    Attributes:
        seconds: the latest duration of each job, from start to end.
        lost: whether a try lost something; there is no truth to compare with any more.
    """

    def __init__(
        self, jobs: Sequence[Job] = JOBS, world: str = "folder", *, ahead: bool = False
    ) -> None:
        """``ahead``: run the next hour once as well, for :meth:`go_on` to compare with."""
        text = yaml.safe_dump(CONFIGURATION)
        self._jobs = jobs
        self.lost = False
        self.run: Running = started(project_folder("faults", "demo", text), "simulator", None)
        self.world = WORLDS[world](self.run)
        try:
            self.world.begin()
            self.seconds = self._fill()
            self._states = {job.name: job.state(self.run) for job in jobs}
            for job in jobs:
                job.settle(self.run)
            self._known = self._everything()
            self._check()
            self._next = self._next_hour() if ahead else {}
        except BaseException:
            self.close()
            raise

    def _fill(self) -> dict[str, float]:
        """Run everything once, over all hours where a job takes many; how long each of them took.

        An undisturbed run of the last hour alone would take a third of the time of five tries; that
        a range leaves the tables of hours alone is what other tests prove, and every rerun here.
        """
        log = Path(self.run.env["RANKMILL_DATA"])
        write_simulation(MARKET, log, HOURS + 1, lambda _hour, _rows: None, with_truth=False)
        seconds = {}
        for job in self._jobs:
            if job.name != JOBS[0].name:
                self.run.wait_for_mlflow()
            began = time.monotonic()
            finished(job.command(self.run, since=FIRST if job.ranged else None), self.run.env)
            seconds[job.name] = time.monotonic() - began
        return seconds

    def _check(self) -> None:
        """Every table holds rows of the last hour, so that something can be lost."""
        for job in self._jobs:
            shown = {key.split()[0] for key in self._states[job.name]
                     if not key.endswith(" completed")}  # fmt: skip
            empty = set(job.tables) - shown
            assert empty <= job.empty, f"{job.name} makes nothing of {sorted(empty)}"

    def attempt(self, trial: Trial) -> Outcome:
        """Take the job's hour away, let the fault happen, look, run it again, compare.

        Raises:
            LostError: when something was visible that should not be, or is not what it should be;
                it says how to repeat the try.
        """
        try:
            for earlier in (1.0, 0.7, 0.4):  # durations are those of the last run, and vary
                met = replace(trial, moment=earlier * trial.moment)
                outcome = self._struck(met)
                if outcome.struck != NOTHING:
                    break
            self._rerun(trial.job, met.own)
        except Exception as error:  # a try that cannot be judged counts as one that lost
            self.lost = True
            said = f"{type(error).__name__}: {error}"
            raise LostError(f"{trial}\n{said}\nRepeat it: {trial.repeat}") from error
        return outcome

    def _struck(self, trial: Trial) -> Outcome:
        """Withdraw, let it happen, and look."""
        job, duration = trial.job, self.seconds[trial.job.name]
        job.withdraw(self.run)
        self._expect({}, job.state(self.run, trial.own), "what was taken away is still seen")
        at = trial.moment * duration if trial.fault.during else 0.0
        dealt = trial.fault.deal(self, trial, at)
        assert dealt.struck != NOTHING or dealt.status == 0, (
            f"it ended by itself with {dealt.status}\n{dealt.words}"
        )
        self._said(trial, dealt)
        seen = self._seen(job, trial.own, dealt)
        whole = len(self._states[job.name])
        return Outcome(dealt.struck, round(at, 2), round(duration, 2), dealt.status, seen, whole)

    def _said(self, trial: Trial, dealt: Dealt) -> None:
        """A job that could speak has told its operator what is wrong, and spared him the stack."""
        says = trial.fault.says
        if dealt.status == 0 or says is None:
            return
        assert dealt.status in (1, 3), f"exit status {dealt.status}\n{dealt.words}"
        assert re.search(says, dealt.words), f"nothing like {says!r} is said, but\n{dealt.words}"
        # Spark logs the stacks of its tasks; the job's own words come after them.
        own = dealt.words[dealt.words.rfind(f"[{trial.job.name}] ") :]
        assert "Traceback" not in own, f"a stack is shown\n{dealt.words}"

    def meet(
        self, trial: Trial, at: float, inflicted: Callable[[Victim], AbstractContextManager[str]],
        lasting: float = LONGEST_END_S,
    ) -> Dealt:  # fmt: skip
        """Start the job; ``at`` seconds later let ``inflicted`` last until the job has ended, but
        no longer than ``lasting`` seconds."""
        job = trial.job
        began = time.monotonic()
        victim = Victim(job.command(self.run, trial.own), self.run.env)
        struck = NOTHING
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                victim.process.wait(max(0.0, began + at - time.monotonic()))
                self.seconds[job.name] = time.monotonic() - began
            if victim.process.poll() is None:
                with inflicted(victim) as struck, contextlib.suppress(subprocess.TimeoutExpired):
                    victim.process.wait(lasting)
            status = victim.ended(LONGEST_END_S)
        finally:
            victim.clear()
        return Dealt(struck, status, victim.text()[-6000:])

    def _seen(self, job: Job, own: str, dealt: Dealt) -> int:
        """How many things are visible after a fault, once each of them is found whole."""
        found, whole = job.state(self.run, own), self._states[job.name]
        partly = {key: (whole.get(key), text) for key, text in found.items()
                  if whole.get(key) != text}  # fmt: skip
        words = dealt.words
        assert not partly, f"visible after the fault, as (truth, found): {partly}\n{words}"
        for table in job.tables:
            rows = f"{table} rows"
            missing = f"{table} completed" in found and rows in whole and rows not in found
            assert not missing, f"{table} is said to be complete, and has no rows\n{words}"
        assert dealt.status != 0 or found == whole, f"it ended well, with {sorted(found)}\n{words}"
        return len(found)

    def _rerun(self, job: Job, own: str) -> None:
        """Run ``job`` to its end; compare what it made, and the whole ledger, with the truth."""
        began = time.monotonic()
        finished(job.command(self.run, own), self.run.env)
        self.seconds[job.name] = time.monotonic() - began
        self._expect(self._states[job.name], job.state(self.run, own), "after the rerun")
        left = job.left_over(self.run)
        assert left is None, f"the rerun left over {left}"
        job.settle(self.run)
        self._expect(self._known, self._everything(), "in the ledger after the rerun")

    def _everything(self) -> Mapping[tuple[str, str], object]:
        """Every hour's completion, and where every alias points to."""
        models = {MODEL_OF[job.name] for job in self._jobs if job.name in MODEL_OF}
        return {**ledger_of(self.run, self._jobs), **aliases_of(self.run, sorted(models))}

    def go_on(self) -> None:
        """The next hour is made as after an undisturbed one, and taken away again.

        Raises:
            LostError: when it is not.
        """
        try:
            self._expect(self._next, self._next_hour(), "of the next hour")
        except AssertionError as error:
            self.lost = True
            raise LostError(f"the next hour after the fault\n{error}") from error

    def _next_hour(self) -> Mapping[str, object]:
        """Make the hour after the last; what is complete of it then. Nothing of it is left."""
        jobs = [job for job in self._jobs if job.name in HOURLY]
        for job in jobs:
            command = [NEXT if part == HOUR else part for part in job.command(self.run)]
            finished(command, self.run.env)
        tables = [table for job in jobs for table in job.tables]
        made = {
            table: (done.rows, done.content_hash, done.validated)
            for table, done in self.run.completions(NEXT, tables).items()
        }
        for table in tables:
            self.run.store.ledger.forget(table, [NEXT])
            self.run.store.commit_slice(TABLES[table].schema.empty_table(), table, {"hour": NEXT})
        return made

    def _expect(self, truth: Mapping[T, object], found: Mapping[T, object], what: str) -> None:
        other = [key for key in {**truth, **found} if truth.get(key) != found.get(key)]
        shown = {key: (truth.get(key), found.get(key)) for key in other}
        assert not other, f"{what}, as (truth, found): {shown}"

    def close(self) -> None:
        """Stop everything and delete the folder."""
        try:
            self.world.end()
        finally:
            self.run.close()
