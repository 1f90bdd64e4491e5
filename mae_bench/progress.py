"""Progress of long steps: a live bar in a terminal or notebook, else a line now and then."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

# Of the processes that torchrun starts, the first speaks for all; so it is with srun's.
console = Console(
    highlight=False, emoji=False, soft_wrap=True, quiet=os.environ.get("RANK", "0") != "0"
)

SECONDS_BETWEEN_LINES = 15.0


def say(text: str, style: str | None = None) -> None:
    """Print text as it is: rich takes brackets, which a path may hold, for its markup."""
    console.print(text, style=style, markup=False)


class Bar:
    """One long step. `update` says how far it is and, optionally, a few figures."""

    def __init__(self, title: str, total: int, start: int = 0) -> None:
        self.title, self.total, self.start = title, total, start
        self.began = self.printed = time.monotonic()
        self.live: Progress | None = None
        self.row: TaskID | None = None

    def update(self, done: int, text: str = "") -> None:
        now = time.monotonic()
        passed = now - self.began
        left = passed / max(done - self.start, 1) * (self.total - done)
        if self.live is not None and self.row is not None:
            detail = f"{text}  {duration(left)} left" if done < self.total else text
            self.live.update(self.row, completed=done, detail=detail)
        elif now - self.printed >= SECONDS_BETWEEN_LINES and done < self.total:
            self.printed = now
            say(f"{self.title}: {done}/{self.total}  {text}  {duration(left)} left")


@contextmanager
def progress(title: str, total: int, start: int = 0) -> Iterator[Bar]:
    """A bar for `total` units of which `start` were done before."""
    bar = Bar(title, total, start)
    say(f"{title} ...")
    if console.quiet or not (console.is_terminal or in_notebook()):
        yield bar
        return
    columns = (
        BarColumn(bar_width=None),
        TextColumn("{task.completed}/{task.total}"),
        TextColumn("{task.fields[detail]}", markup=False),
    )
    with Progress(*columns, console=console, expand=True, refresh_per_second=4) as live:
        bar.live = live
        bar.row = live.add_task(title, total=total, completed=start, detail="")
        yield bar


def in_notebook() -> bool:
    """Whether rich can draw a bar in a notebook: with ipywidgets alone."""
    return console.is_jupyter and find_spec("ipywidgets") is not None


def duration(seconds: float) -> str:
    """ "45 s", "3 min 10 s", "2 h 05 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
