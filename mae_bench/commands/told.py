"""What --help says of tasks and methods, as their faces have it. Imports no torch."""

from collections.abc import Callable, Iterable, Mapping

import tasks
from mae_bench.pretraining.methods import METHODS
from tasks.face import Face


def named(names: Iterable[str], hints: Mapping[str, str], last: str = "or") -> str:
    """ "a, b (hint) or c"."""
    told = [f"{name} ({hints[name]})" if name in hints else name for name in names]
    return f" {last} ".join(filter(None, (", ".join(told[:-1]), *told[-1:])))


def all_tasks() -> str:
    hints = {name: hint for face in tasks.faces() for name, hint in face.hints.tasks.items()}
    return named(tasks.known(), hints)


def protocols() -> str:
    """Of each task or group of them; the usual one is marked."""
    return "; ".join(map(protocols_of, tasks.faces()))


def protocols_of(face: Face) -> str:
    usual, *others = face.recipes.PROTOCOLS
    hints = {**face.hints.protocols, usual: "default"}
    told = f"{face.group or next(iter(face.tasks))}: {named([usual, *others], hints, 'and')}"
    for task in face.tasks:
        own = tasks.own_protocols(task)
        told += f", and for {task} {named(own, {}, 'and')}" if own else ""
    return told


def sources() -> str:
    """What tasks take in place of a folder."""
    there = {name: form for face in tasks.faces() for name, form in face.hints.sources.items()}
    return "".join(f"; for {name} also {form}" for name, form in there.items())


def test_sources() -> str:
    """What tasks take as a test set alone."""
    there = {name: form for face in tasks.faces() for name, form in face.hints.tests.items()}
    return ", ".join(f"for {name} {form}" for name, form in there.items())


def test_sets() -> str:
    return ", ".join(name for face in tasks.faces() for name in face.only_test)


def methods() -> str:
    """Of pre-training."""
    return "; ".join(f"{name}: {method.title}" for name, method in METHODS.items())


def with_truth() -> str:
    """Tasks whose predictions alone do not tell the score."""
    there = [name for face in tasks.faces() if face.truth_with_data for name in face.tasks]
    return named(there, {}, "and")


TEXTS: dict[str, Callable[[], str]] = {
    "{tasks}": all_tasks,
    "{protocols}": protocols,
    "{sources}": sources,
    "{test sources}": test_sources,
    "{test sets}": test_sets,
    "{tasks with truth}": with_truth,
    "{methods}": methods,
}
"""what the help texts of flags hold in place of names"""


def told(help_text: str) -> str:
    """A help text with its names."""
    for place, text in TEXTS.items():
        if place in help_text:
            help_text = help_text.replace(place, text())
    return help_text
