"""Miniature worlds of a few images."""

from pathlib import Path

from tasks import miniature
from tasks.miniature import WorldSizes


def draw(folder: Path, **sizes: int) -> Path:
    """A world of the given sizes, all others being 0."""
    return miniature.make(folder, sizes=WorldSizes.only(**sizes), workers=1)
