from collections.abc import Callable

import pytest
from made_records import make

from mae_bench.words import hand_in
from results import Record


@pytest.fixture(autouse=True)
def _words() -> None:
    """Titles and metrics of our tasks, as `mae-bench report` hands them in."""
    hand_in()


@pytest.fixture
def make_record() -> Callable[..., Record]:
    return make
