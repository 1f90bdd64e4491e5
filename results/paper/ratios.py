"""Ratios between pre-trainings of ours: speed-ups (Table 2) and FLOPs (Table 1c)."""

from collections.abc import Callable, Sequence

from results.cells import Notes, device_names
from results.configuration import Configuration, mean_cell
from results.record import Record
from results.table import Cell

MOST = 1e18
"""no seconds and no FLOPs of an image are more; a stranger's record may hold 1e308"""
WITHOUT_REFERENCE = (
    "no ratio: there is no complete pre-training on these images that differs in {} alone."
)


def speed_up(
    c: Configuration, references: Sequence[Configuration], what: str, notes: Notes
) -> Cell:
    """Hours of a reference over those of `c`, where both ran on as many of the same device, in the
    same precision."""
    if not references:
        return Cell(marks=(notes.ours(WITHOUT_REFERENCE.format(what)),))
    used = _places(c)
    mine = " and on ".join(used)
    alike = [each for each in references if len({*_places(each), *used}) == 1]
    if not alike:
        theirs = " and on ".join(_places(references[0]))
        text = f"no speed-up: hours on {mine} do not compare with those on {theirs} of the other"
        return Cell(marks=(notes.ours(f"{text} run."),))
    return _ratio(alike[0], c, lambda r: r.cost.seconds, c, f"speed-up on {mine}", notes)


def _places(c: Configuration) -> list[str]:
    """ "8 × NVIDIA H100 in bf16", each once."""
    found = []
    for record in c.records:
        (place,), precision = device_names([record]), record.recipe.get("precision")
        found.append(f"{place} in {precision}" if precision else place)
    return sorted(set(found))


def flops_ratio(
    c: Configuration, references: Sequence[Configuration], what: str, notes: Notes
) -> Cell:
    """FLOPs of an image in `c` over those in a reference, forward and backward, on any device."""
    if not references:
        return Cell(marks=(notes.ours(WITHOUT_REFERENCE.format(what)),))
    text = "FLOPs of an image, forward and backward, as torch counts them"
    return _ratio(c, references[0], lambda r: r.cost.flops_per_image, c, text, notes)


def _ratio(
    above: Configuration,
    below: Configuration,
    measure: Callable[[Record], float | None],
    c: Configuration,
    text: str,
    notes: Notes,
) -> Cell:
    """The ratio of two means, as a number of `c`."""
    upper, lower = (_mean(each, measure) for each in (above, below))
    if upper is None or not lower:
        return Cell(marks=(notes.ours(f"no ratio: {text} not in every record that it takes."),))
    runs = tuple(r for r in c.records if measure(r) is not None)
    other = above if c is below else below
    mark = notes.ours(f"{text}, against run {other.first.name}." if other is not c else f"{text}.")
    return Cell(upper / lower, 1, n=len(runs), marks=(mark,), runs=runs)


def _mean(c: Configuration, measure: Callable[[Record], float | None]) -> float | None:
    values = [value for value in map(measure, c.records) if value is not None]
    mean = mean_cell([value for value in values if value <= MOST], 2).value
    return mean if isinstance(mean, float) else None
