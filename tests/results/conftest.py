from collections.abc import Callable

import pytest
from made_records import make

from results import Record


@pytest.fixture
def make_record() -> Callable[..., Record]:
    return make
