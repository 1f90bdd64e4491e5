"""What a trained network says of an image of which nothing is known."""

from dataclasses import dataclass, field
from typing import Any

from PIL import Image


@dataclass(frozen=True, eq=False)
class Prediction:
    """What was found in one image, as values for JSON and as a picture to look at."""

    index: int
    """of the image"""
    found: dict[str, Any]
    """numbers, text and lists of them"""
    picture: Image.Image
    maps: dict[str, Image.Image] = field(default_factory=dict)
    """what it is -> an image that a program reads"""
