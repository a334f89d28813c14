"""What a run shows: one line per step with its time, a moving line while it works on a terminal."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.markup import escape
from rich.status import Status
from rich.table import Table

__all__ = ["Screen", "Step", "duration"]


def duration(seconds: float) -> str:
    """``4.2 s`` below ten seconds, then ``42 s``, then ``3 min 05 s``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    return f"{whole} s" if whole < 60 else f"{whole // 60} min {whole % 60:02d} s"


@dataclass
class Step:
    """One step of a run; ``note`` says what came of it."""

    title: str
    note: str = ""
    seconds: float = 0.0
    good: bool = True


def new_console() -> Console:
    """A console as wide as the terminal; where there is none, wide enough for every table."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=120)


@dataclass
class Screen:
    """The console, and the steps that were done."""

    console: Console = field(default_factory=new_console)
    steps: list[Step] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    @property
    def live(self) -> bool:
        """Whether somebody is looking: output goes to a terminal."""
        return self.console.is_terminal

    def say(self, text: str, style: str = "") -> None:
        """One line as it is."""
        self.console.print(text, style=style, markup=False, soft_wrap=True)

    def done(self, step: Step) -> None:
        """Show a finished step."""
        self.steps.append(step)
        note = f"  [dim]{escape(step.note)}[/dim]" if step.note else ""
        sign = "[green]✔[/green]" if step.good else "[red]✘[/red]"
        time_taken = duration(step.seconds)
        self.console.print(
            f"  {sign} {escape(step.title):<42} {time_taken:>12}{note}", soft_wrap=True
        )

    @contextmanager
    def moving(self, text: str) -> Iterator[Status | None]:
        """A spinner with a text that may change, on a terminal; the text once elsewhere."""
        if not self.live:
            self.say(f"    {text} ...", style="dim")
            yield None
            return
        with self.console.status(escape(text)) as status:
            yield status

    @contextmanager
    def step(self, title: str) -> Iterator[Step]:
        """Time a step and show it when it succeeded."""
        step = Step(title)
        begun = time.monotonic()
        with self.console.status(escape(title)) if self.live else quiet():
            yield step
        step.seconds = time.monotonic() - begun
        self.done(step)

    def timings(self) -> Table:
        """All steps with their times; parallel ones overlap, so the total is not their sum."""
        table = Table(title="Where the time went", title_justify="left", title_style="bold")
        table.add_column("step")
        table.add_column("time", justify="right")
        for step in self.steps:
            table.add_row(step.title, duration(step.seconds))
        table.add_section()
        table.add_row("all together", duration(time.monotonic() - self.started))
        return table


@contextmanager
def quiet() -> Iterator[None]:
    """Nothing to show."""
    yield
