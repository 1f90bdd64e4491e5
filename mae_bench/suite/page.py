"""The page of a suite that is under way. Imports no torch."""

import time
from pathlib import Path

from mae_bench.progress import say
from mae_bench.report_page import REFRESH_SECONDS, changes, refresh
from mae_bench.report_runs import Wanted
from mae_bench.suite.board import Board
from results import ResultsError

SHARE = 20
"""times what renewing the page took, that is waited at least: the runs need the processor more"""


class Page:
    """The report's page, renewed while runs are under way."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.before: list[object] = []
        self.due = time.monotonic() + REFRESH_SECONDS

    def renew(self, board: Board, last: bool = False) -> None:
        """Write the page if something has changed, and not too often; `last`: in any case."""
        began = time.monotonic()
        now: list[object] = [*changes(self.out), *board.states()]
        if not last and (began < self.due or now == self.before):
            return
        seconds = None if last else REFRESH_SECONDS
        try:
            refresh(self.out, self.out / "report.html", Wanted(), board.unfinished(), seconds)
        except (OSError, ResultsError) as error:  # the runs matter more; the last report tells it
            say(f"the page could not be renewed ({error})", style="yellow")
        self.before = now
        self.due = time.monotonic() + max(REFRESH_SECONDS, SHARE * (time.monotonic() - began))
