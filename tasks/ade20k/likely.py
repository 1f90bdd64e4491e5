"""Why the values of label images are likely to be other ones than the classes'."""

import numpy as np

from tasks.ade20k.classes import ClassRule
from tasks.ade20k.datasets import OWN_CLASSES

FEW = 0.05
"""share of the pixels up to which odd values look like the rims of something"""
RIM_VALUES = 3
INSTANCES = 48
"""distinct values from which on they look like something other than classes"""
CITYSCAPES = 19
"""classes that are trained on there, of 34 values"""


def likely_cause(rule: ClassRule, pixels: np.ndarray) -> str:
    """What to do, by the values that occur: `pixels` (256,) of each."""
    values = np.flatnonzero(pixels).tolist()
    last = rule.first + len(rule.classes) - 1
    odd = [v for v in values if not rule.first <= v <= last and v != rule.ignore_index]
    odd = [v for v in odd if v >= rule.first]
    named = [v for v in values if rule.first <= v <= last]
    if values and values in ([0, 255], [255], [0]) and not odd:
        return binary(rule, values)
    if odd and is_scale(values):
        number = len(values)
        return (
            f"the values are spread over 0 to 255 so that they can be seen: write 0 to "
            f"{number - 1} instead of {', '.join(map(str, values))}"
        )
    if odd == [last + 1] and not rule.zero_is_unlabelled:
        if 0 in values:
            return (
                f'if 0 is unlabelled, set "zero_is_unlabelled": true in {OWN_CLASSES}; if it is a '
                'class, name it first, for example "background"'
            )
        return (
            f'the values begin at 1: set "zero_is_unlabelled": true in {OWN_CLASSES}, or write '
            "them from 0 on"
        )
    if odd == [255]:
        return f'if 255 marks pixels to ignore, set "ignore_index": 255 in {OWN_CLASSES}'
    if odd and len(rule.classes) == CITYSCAPES and max(values[:-1] or values) <= 33:
        return "these look like Cityscapes' labelIds: take its *_labelTrainIds.png instead"
    if len(odd) >= RIM_VALUES and pixels[odd].sum() < FEW * pixels.sum() and named:
        return (
            "a few pixels of many values come from resizing or drawing with smoothing, or from "
            "JPEG: write the label images again with nearest neighbour, without anti-aliasing"
        )
    if len(values) > INSTANCES and odd:
        return (
            "so many values look like numbers of instances or like grey photographs: write the "
            "class of each pixel instead"
        )
    if odd:
        return f"name every class in {OWN_CLASSES} in the order of its values, or correct the files"
    if rule.zero_is_unlabelled and 0 in values and named:
        return (
            f'if 0 is a class, set "zero_is_unlabelled": false in {OWN_CLASSES} and name it first, '
            'for example "background"'
        )
    return "give label images in which at least two classes occur; name the background as one too"


def binary(rule: ClassRule, values: list[int]) -> str:
    """For masks of nothing but 0 and 255."""
    if len(values) == 2 and rule.ignore_index == 255:
        what = "masks of 0 and 255 are for looking at, and 255 is ignored: write "
        if rule.zero_is_unlabelled:
            return what + "the classes' values, from 1 on"
        return what + f"{rule.classes[1]!r} as 1 instead of 255"
    if values == [0] and not rule.zero_is_unlabelled:
        return "give label images in which other classes occur too"
    return "give label images with classes; these are blank, as those of a challenge's test set"


def is_scale(values: list[int]) -> bool:
    """Whether values are at even distances from 0 to 255, by rounding up or down."""
    if not 2 <= len(values) <= 16 or values[0] != 0 or values[-1] < 240:
        return False
    step = values[-1] / (len(values) - 1)
    return all(abs(value - index * step) <= 1 for index, value in enumerate(values))
