"""Colour statistics that images are normalised with. Imports no torch."""

Colour = tuple[float, float, float]

IMAGENET_MEAN: Colour = (0.485, 0.456, 0.406)
"""of the RGB channels, scaled to 0..1"""
IMAGENET_STD: Colour = (0.229, 0.224, 0.225)
