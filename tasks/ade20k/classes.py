"""What the values of a label image mean: ADE20K's rule, or that of one's own classes.json."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks import TaskError
from tasks.ade20k.datasets import CLASS_LIST, IGNORED, NUM_CLASSES, OWN_CLASSES

MOST_CLASSES = 255
"""labels are bytes, and one value is that of unlabelled pixels"""
EXAMPLE = '{"classes": ["road", "car"], "ignore_index": 255, "zero_is_unlabelled": false}'
KEYS = ("classes", "ignore_index", "zero_is_unlabelled")


@dataclass(frozen=True)
class ClassRule:
    """Which values of a label image stand for which class."""

    classes: tuple[str, ...]
    """names by class index"""
    ignore_index: int = IGNORED
    """the value of pixels that count nowhere, in the files"""
    zero_is_unlabelled: bool = True
    """whether 0 counts nowhere either and the classes begin at 1"""

    @property
    def first(self) -> int:
        """The value of class 0."""
        return int(self.zero_is_unlabelled)

    def describe(self) -> str:
        """The values that are expected, in words."""
        last = self.first + len(self.classes) - 1
        zero = "0 for unlabelled, " if self.zero_is_unlabelled else ""
        return f"{zero}{self.first} to {last} for the {len(self.classes)} classes, " + (
            f"{self.ignore_index} for pixels to ignore"
        )


def read_rule(root: Path) -> ClassRule:
    """The rule of classes.json in `root`; without that file the official one.

    Official: 0 unlabelled, then the classes from 1 on; names are those of objectInfo150.txt, as
    many as it has rows, or else "class 1" to "class 150". Raises TaskError for a broken file.
    """
    own, official = root / OWN_CLASSES, root / CLASS_LIST
    if own.exists():
        return parse_rule(own, read_json(own))
    if official.exists():
        return ClassRule(read_names(official))
    return ClassRule(tuple(f"class {number}" for number in range(1, NUM_CLASSES + 1)))


def read_text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise TaskError(f"{file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise TaskError(f"{file} is not text in UTF-8; write or get it again") from error


def read_names(file: Path) -> tuple[str, ...]:
    """The first of each class's synonyms, from the official list."""
    names = []
    for number, line in enumerate(read_text(file).strip().splitlines()[1:], start=1):
        columns = [column.strip() for column in line.split("\t")]
        name = columns[-1].partition(",")[0].strip()
        if len(columns) < 2 or columns[0] != str(number) or not name:
            raise TaskError(
                f"{file}, line {number + 1}: expected class {number} as its number, ..., its name,"
                f" tab separated, found {line[:60]!r}; get the file again or remove it"
            )
        names.append(name)
    check_count(file, len(names))
    return tuple(names)


def read_json(file: Path) -> Any:
    try:
        return json.loads(read_text(file))
    except json.JSONDecodeError as error:
        raise TaskError(
            f"{file} is no JSON (line {error.lineno}: {error.msg}); expected {EXAMPLE}"
        ) from error


def parse_rule(file: Path, content: Any) -> ClassRule:
    """The content of a classes.json, checked; only "classes" has to be there."""
    if not isinstance(content, dict):
        raise TaskError(f"{file} holds no object; expected {EXAMPLE}")
    unknown = sorted(set(content) - set(KEYS))
    if unknown:
        raise TaskError(f"{file} has the unknown key {unknown[0]!r}; expected {', '.join(KEYS)}")
    names = content.get("classes")
    if not isinstance(names, list) or not all(isinstance(n, str) and n.strip() for n in names):
        raise TaskError(f'{file}: expected "classes" to list names by class index, as {EXAMPLE}')
    check_count(file, len(names))
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise TaskError(f"{file} names {twice[0]!r} twice; expected names that differ")
    ignored = content.get("ignore_index", IGNORED)
    if type(ignored) is not int or not 0 <= ignored <= 255:
        raise TaskError(f"{file}: ignore_index is {ignored!r}; expected a whole number 0 to 255")
    zero = content.get("zero_is_unlabelled", False)
    if not isinstance(zero, bool):
        raise TaskError(f"{file}: zero_is_unlabelled is {zero!r}; expected true or false")
    rule = ClassRule(tuple(names), ignored, zero)
    if 0 <= ignored - rule.first < len(names):
        raise TaskError(
            f"{file}: ignore_index {ignored} is also the value of {names[ignored - rule.first]!r};"
            " expected a value that no class has: correct it, or set zero_is_unlabelled if the "
            "classes begin at 1"
        )
    return rule


def check_count(file: Path, count: int) -> None:
    if not 2 <= count <= MOST_CLASSES:
        raise TaskError(f"{file} names {count} classes; expected 2 to {MOST_CLASSES}")
