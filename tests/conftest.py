"""What the tests of several packages share."""

from pathlib import Path

import pytest

from tasks import miniature
from tasks.miniature import WorldSizes


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A miniature world of a few images; for reading only."""
    few = {"imagenet1k_train": 48, "imagenet1k_val": 24, "unlabelled_train": 24}
    sizes = WorldSizes(**(dict.fromkeys(WorldSizes.__dataclass_fields__, 0) | few))
    return miniature.make(tmp_path_factory.mktemp("world"), sizes=sizes, workers=1)
