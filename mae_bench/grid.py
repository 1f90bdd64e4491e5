"""What a sweep tries: every combination of some values of recipe fields. Imports no torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any, get_args, get_origin, get_type_hints

from mae_bench.arguments import shortened, slug
from mae_bench.errors import RunError
from mae_bench.recipes import NOT_THE_PROTOCOL, override
from tasks.recipe import Recipe, bounds_of

HOLDOUT = 0.1
"""share of the training images that is held out to choose by; ours, as the logistic probe's"""
MOST_CANDIDATES = 1000
Values = dict[str, Any]


@dataclass(frozen=True)
class Candidate:
    """One combination of values."""

    values: Values
    recipe: Recipe
    """the effective one"""

    @property
    def name(self) -> str:
        """Of its folder."""
        return shortened("-".join(f"{slug(k)}-{slug(v)}" for k, v in self.values.items()))

    def __str__(self) -> str:
        return told(self.values)


@dataclass(frozen=True)
class Grid:
    """All combinations of the values of some fields."""

    fields: Mapping[str, tuple[Any, ...]]
    holdout: float
    candidates: tuple[Candidate, ...] = ()

    def __str__(self) -> str:
        lists = (f"{name} {', '.join(map(str, values))}" for name, values in self.fields.items())
        return " x ".join(lists)


@dataclass(frozen=True)
class Choice:
    """The best candidate."""

    candidate: Candidate
    notes: list[str] = field(default_factory=list)
    """ties, and a best value at an end of its list; a line each"""


def told(values: Mapping[str, Any]) -> str:
    """ "base_lr 0.001, weight_decay 0.05"."""
    return ", ".join(f"{name} {value}" for name, value in values.items())


def read_sweep(groups: Sequence[Sequence[str]]) -> dict[str, list[Any]]:
    """FIELD=VALUE,VALUE words of each --sweep of a command line; `RunError` for other words."""
    found: dict[str, list[Any]] = {}
    for word in (word for group in groups for word in group or [""]):
        name, equals, values = word.partition("=")
        name, texts = name.strip().replace("-", "_"), values.split(",")
        if not equals or not name or not all(text.strip() for text in texts):
            raise RunError(
                f"--sweep {word}: expected FIELD=VALUE,VALUE, for example base_lr=1e-4,3e-4,1e-3"
            )
        if name in found:
            raise RunError(f"--sweep {name}: given twice; list all its values at one place")
        found[name] = [as_value(text.strip()) for text in texts]
    return found


def as_value(text: str) -> Any:
    """A word as TOML would have it; text that is none is itself."""
    import tomllib

    if text in ("True", "False", "None"):
        return {"True": True, "False": False, "None": None}[text]
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def as_words(name: str, values: Sequence[Any]) -> tuple[Any, ...]:
    """Values as a command line lists them; `RunError` for what it cannot."""
    found = []
    for value in values:
        if isinstance(value, tuple) and len(value) != 1:
            raise RunError(
                f"--sweep {name}: each of its values is several numbers; sweep it in Python"
            )
        single = value[0] if isinstance(value, tuple) else value
        if isinstance(single, str) and "," in single:
            raise RunError(f"--sweep {name}: {single!r} has a comma, which separates values")
        found.append(single)
    return tuple(found)


def read_grid(
    sweep: Mapping[str, Sequence[Any]],
    base: Recipe,
    overrides: Mapping[str, Any],
    holdout: float = HOLDOUT,
) -> Grid:
    """The candidates of a sweep; `RunError` of one line for a field or a value that cannot be.

    `base` is the protocol's recipe, `overrides` what all candidates change of it.
    """
    number = isinstance(holdout, int | float) and not isinstance(holdout, bool)
    if not number or not 0 < holdout < 1:
        raise RunError(f"sweep_holdout is {holdout!r}; expected a share above 0, below 1")
    if not isinstance(sweep, Mapping) or not sweep:
        raise RunError(f"sweep is {sweep!r}; expected recipe fields and their values")
    fields = {name: values_of(name, values, base) for name, values in sweep.items()}
    for name in fields:
        if name in overrides:
            raise RunError(
                f"--sweep {name} and --{name.replace('_', '-')} contradict each other; leave one "
                "out"
            )
    count = 1
    for values in fields.values():
        count *= len(values)
    if not 2 <= count <= MOST_CANDIDATES:
        raise RunError(
            f"--sweep has {count} candidates; expected two or more values, and at most "
            f"{MOST_CANDIDATES:,} combinations"
        )
    candidates = [
        candidate(dict(zip(fields, each, strict=True)), base, overrides)
        for each in product(*fields.values())
    ]
    typed = {name: dict.fromkeys(each.values[name] for each in candidates) for name in fields}
    for name, values in fields.items():
        if len(typed[name]) < len(values):
            raise RunError(f"--sweep {name}: lists a value twice; expected each once")
    return Grid({name: tuple(values) for name, values in typed.items()}, holdout, (*candidates,))


def values_of(name: str, values: Sequence[Any], base: Recipe) -> list[Any]:
    """The values of a field, a number in place of each list of one number."""
    if isinstance(values, str | bytes) or not isinstance(values, Sequence) or not values:
        raise RunError(f"--sweep {name} is {values!r}; expected a list of values")
    if name in NOT_THE_PROTOCOL:
        raise RunError(
            f"--sweep {name}: says how a run is computed, not what; a sweep takes fields that "
            "belong to the protocol"
        )
    kind = get_type_hints(type(base)).get(name)
    several = get_origin(kind) is tuple and Ellipsis not in get_args(kind)
    if several and not all(isinstance(each, list | tuple) for each in values):
        raise RunError(f"--sweep {name}: each of its values is several numbers; sweep it in Python")
    if get_origin(kind) is tuple:
        return [tuple(each) if isinstance(each, list | tuple) else (each,) for each in values]
    return list(values)


def candidate(values: Values, base: Recipe, overrides: Mapping[str, Any]) -> Candidate:
    """One combination, its values as the recipe has them."""
    try:
        recipe = override(base, {**overrides, **values})
    except RunError as error:
        raise RunError(f"--sweep {told(values)}: {error}") from None
    return Candidate({name: getattr(recipe, name) for name in values}, recipe)


def choose(grid: Grid, scores: Sequence[float | None], better: str = "higher") -> Choice:
    """The candidate with the best score, of equals the first; `RunError` if all failed (None)."""
    sign = -1 if better == "lower" else 1
    there = {n: sign * score for n, score in enumerate(scores) if score is not None}
    if not there:
        raise RunError(f"all {len(scores)} candidates of the sweep failed; nothing to choose from")
    equals = [n for n, score in there.items() if score == max(there.values())]
    best = grid.candidates[equals[0]]
    notes = []
    if len(equals) > 1:
        names = "; ".join(str(grid.candidates[n]) for n in equals)
        notes.append(f"a tie between {names}: the first of them is taken")
    for name, values in grid.fields.items():
        if is_edge(best.values[name], values, name, best.recipe):
            notes.append(
                f"the best {name}, {best.values[name]}, is an end of its list; a longer list may "
                "have a better one"
            )
    return Choice(best, notes)


def is_edge(value: Any, values: Sequence[Any], name: str, recipe: Recipe) -> bool:
    """Whether a number is the least or the largest of a list, with room beyond."""
    numbers = [each[0] if isinstance(each, tuple) and len(each) == 1 else each for each in values]
    number = value[0] if isinstance(value, tuple) and len(value) == 1 else value
    if len(numbers) < 2 or any(not is_number(each) for each in numbers):
        return False
    bounds = bounds_of(type(recipe)).get(name)
    ends = () if bounds is None else (bounds.low, bounds.high)
    return number in (min(numbers), max(numbers)) and number not in ends


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
