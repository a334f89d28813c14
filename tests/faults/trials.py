"""What a fault is, a try of it, and what a try comes to."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.faults.hourly import JOBS, Job

if TYPE_CHECKING:
    from tests.faults.small_store import SmallStore

__all__ = ["NOTHING", "Dealt", "Fault", "LostError", "Outcome", "Trial", "planned"]

NOTHING = "nothing"
"""What was struck where the job had ended."""


class LostError(AssertionError):
    """A fault left a part of an hour, or a rerun something else than the undisturbed run."""


@dataclass(frozen=True)
class Dealt:
    """How a job came through a fault.

    Attributes:
        struck: what the fault met, or ``NOTHING``.
        status: how the job ended.
        words: the last it said.
    """

    struck: str
    status: int
    words: str = ""


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong while a job runs, or before.

    Attributes:
        name: in tables and on command lines.
        what: one line on what is done.
        jobs: which it meets, by name; the first one is the cheapest that shows it.
        deal: withdrawn as the job's hour is, run the job into the fault and put right what an
            operator would, short of running the job again.
        says: a pattern that the last words of a job hold which ended by the fault; None where a
            job ends without words.
        world: what the store lies in, by name in ``worlds.WORLDS``.
        short: whether `make test` meets it; else `make faults` alone does.
        during: whether it strikes at a moment of the job, so that "before, between or after a
            commit" has a meaning.
    """

    name: str
    what: str
    jobs: tuple[str, ...]
    deal: Callable[[SmallStore, Trial, float], Dealt]
    says: str | None = None
    world: str = "folder"
    short: bool = True
    during: bool = True


@dataclass(frozen=True)
class Trial:
    """One try of a fault: which job it meets, and when, as a share of the job's duration."""

    fault: Fault
    seed: int
    number: int
    job: Job
    way: str
    moment: float

    def __str__(self) -> str:
        at = f", at {self.moment:.1%} of its duration" if self.fault.during else ""
        return f"{self.fault.name}, try {self.number} of seed {self.seed}: {self.job.name}{at}"

    @property
    def own(self) -> str:
        """A name for what no other try shall find."""
        words = f"{self.fault.name}_{self.seed}_{self.number}_{self.moment:.4f}"
        return "".join(c if c.isalnum() else "_" for c in words)

    @property
    def chance(self) -> random.Random:
        """Whatever else is left to chance, the same whenever the try is made again."""
        return random.Random(f"{self.fault.name}|{self.seed}|{self.number}|more")

    @property
    def repeat(self) -> str:
        """The command line that makes this try again."""
        return (
            f"make faults ARGS=\"--fault '{self.fault.name}' --seed {self.seed} "
            f'--only {self.number}"'
        )


def planned(fault: Fault, seed: int, number: int, jobs: int | None = None) -> Trial:
    """A fault's jobs take turns, and each of them its ways to be struck.

    Args:
        jobs: how many of the fault's jobs take part, from the cheapest; all by default.
    """
    names = fault.jobs[:jobs]
    turn, place = divmod(number, len(names))
    [job] = [job for job in JOBS if job.name == names[place]]
    way = job.ways[(turn + place) % len(job.ways)]
    # The last tenth of a job is the end of its process, and often over before it is reached.
    moment = 0.9 * random.Random(f"{fault.name}|{seed}|{number}").random()
    return Trial(fault, seed, number, job, way, moment)


@dataclass(frozen=True)
class Outcome:
    """What a fault met, of a try that lost nothing.

    Attributes:
        struck: see ``Dealt``.
        seconds: from the job's start to the fault.
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
