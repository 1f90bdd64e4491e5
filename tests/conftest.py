"""What the tests of several packages share."""

from pathlib import Path

import pytest
from small_worlds import draw


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A miniature world of a few images; for reading only."""
    few = {"imagenet1k_train": 48, "imagenet1k_val": 24, "unlabelled_train": 24}
    return draw(tmp_path_factory.mktemp("world"), **few)


@pytest.fixture(scope="session")
def coco_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A miniature world with a few COCO images alone; for reading only."""
    return draw(tmp_path_factory.mktemp("coco_world"), coco_train=32, coco_val=8)


@pytest.fixture(scope="session")
def ade20k_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A miniature world with a few ADE20K images alone; for reading only."""
    return draw(tmp_path_factory.mktemp("ade20k_world"), ade20k_train=24, ade20k_val=6)
