"""What the values of a label image mean: ADE20K's rule, or that of one's own classes.json."""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tasks import stores
from tasks.ade20k.datasets import CLASS_LIST, IGNORED, NUM_CLASSES, OWN_CLASSES
from tasks.errors import TaskError

MOST_CLASSES = 255
"""labels are bytes, and one value is that of unlabelled pixels"""
EXAMPLE = '{"classes": ["road", "car"], "ignore_index": 255, "zero_is_unlabelled": false}'
KEYS = ("classes", "ignore_index", "zero_is_unlabelled")
MOST_BYTES = 2**20
"""of a list of classes; 255 names take a few thousand"""
LONGEST_NAME = 200
"""characters"""


@dataclass(frozen=True)
class ClassRule:
    """Which values of a label image stand for which class."""

    classes: tuple[str, ...]
    """names by class index"""
    ignore_index: int = IGNORED
    """the value of pixels that count nowhere, in the files"""
    zero_is_unlabelled: bool = True
    """whether 0 counts nowhere either and the classes begin at 1"""
    ignore_is_given: bool = field(default=True, repr=False, compare=False)
    """whether it is the file that says `ignore_index`, and not the default"""

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
    if has_own_classes(root):
        return parse_rule(own, read_json(own))
    if stores.find(official) or os.path.lexists(official):
        return ClassRule(read_names(official))
    return ClassRule(tuple(f"class {number}" for number in range(1, NUM_CLASSES + 1)))


def has_own_classes(root: Path) -> bool:
    """Whether classes.json lies in `root`, be it a link that leads nowhere.

    Raises TaskError where it is there in other letters (Classes.json).
    """
    if stores.find(root / OWN_CLASSES) or os.path.lexists(root / OWN_CLASSES):
        return True
    for file in sorted(root.iterdir()):
        if file.name.lower() == OWN_CLASSES:
            raise TaskError(f"{file}: expected the name {OWN_CLASSES}; rename it")
    return False


def read_text(file: Path) -> str:
    """The text of a small file, in UTF-8 with or without a byte order mark. Raises TaskError."""
    try:
        return stores.read(file, MOST_BYTES).decode("utf-8-sig")
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
        if len(columns) < 2 or columns[0] != str(number) or not is_name(name):
            raise TaskError(
                f"{file}, line {number + 1}: expected class {number} as its number, ..., its name,"
                f" tab separated, found {line[:60]!r}; get the file again or remove it"
            )
        names.append(name)
    check_count(file, len(names))
    return tuple(names)


def is_name(name: Any) -> bool:
    """Whether a class may be called so: characters that can be written and shown, not too many."""
    return (
        isinstance(name, str)
        and bool(name.strip())
        and (
            len(name) <= LONGEST_NAME and name.isprintable()  # no control characters, no surrogates
        )
    )


def read_json(file: Path) -> Any:
    """What a JSON file holds. Raises TaskError unless it is sound, each key given once."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        twice = sorted({key for key in keys if keys.count(key) > 1}) if len(keys) < 1000 else []
        if twice:
            raise TaskError(f"{file} gives {twice[0][:60]!r} twice; expected {EXAMPLE}")
        return dict(pairs)

    try:
        return json.loads(read_text(file), object_pairs_hook=once)
    except json.JSONDecodeError as error:
        raise TaskError(
            f"{file} is no JSON (line {error.lineno}: {error.msg}); expected {EXAMPLE}"
        ) from error
    except (ValueError, RecursionError) as error:  # a number of 10,000 digits, or [[[[...
        if isinstance(error, TaskError):
            raise
        raise TaskError(f"{file} holds what no list of classes does; expected {EXAMPLE}") from error


def parse_rule(file: Path, content: Any) -> ClassRule:
    """The content of a classes.json, checked; only "classes" has to be there."""
    if not isinstance(content, dict):
        raise TaskError(f"{file} holds no object; expected {EXAMPLE}{proposal(content)}")
    unknown = sorted(set(content) - set(KEYS))
    if unknown:
        raise TaskError(
            f"{file} has the unknown key {unknown[0][:60]!r}; expected {', '.join(KEYS)}"
            f"{proposal(content.get('classes', content))}"
        )
    names = read_classes(file, content.get("classes"))
    ignored = content.get("ignore_index", IGNORED)
    if type(ignored) is not int or not 0 <= ignored <= 255:
        raise TaskError(
            f"{file}: ignore_index is {shown(ignored)}; expected a whole number 0 to 255"
        )
    zero = content.get("zero_is_unlabelled", False)
    if not isinstance(zero, bool):
        raise TaskError(f"{file}: zero_is_unlabelled is {shown(zero)}; expected true or false")
    rule = ClassRule(tuple(names), ignored, zero, "ignore_index" in content)
    if 0 <= ignored - rule.first < len(names):
        raise TaskError(
            f"{file}: ignore_index {ignored} is also the value of {names[ignored - rule.first]!r};"
            " expected a value that no class has: correct it, or set zero_is_unlabelled if the "
            "classes begin at 1"
        )
    return rule


def read_classes(file: Path, names: Any) -> list[str]:
    """The names of classes, checked."""
    if not isinstance(names, list) or not all(isinstance(n, str) and n.strip() for n in names):
        raise TaskError(
            f'{file}: expected "classes" to list names by class index, as {EXAMPLE}'
            f"{proposal(names)}"
        )
    for index, name in enumerate(names):
        if not is_name(name):
            raise TaskError(
                f"{file}: the name of class {index}, {ascii(name)[:60]}, cannot be used; expected "
                f"at most {LONGEST_NAME} printable characters"
            )
    check_count(file, len(names))
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise TaskError(f"{file} names {twice[0]!r} twice; expected names that differ")
    return names


def shown(value: Any) -> str:
    """A value from a JSON file, in few letters."""
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "an object"
    return ascii(value)[:60]


def proposal(content: Any) -> str:
    """What to write instead of a map of values to names or a list of objects; "" for others.

    `content`: {"0": name, ...}, {name: 0, ...}, [{"id": 0, "name": name}, ...].
    """
    try:
        if isinstance(content, list):
            named = {int(row.get("id", row.get("value"))): row["name"] for row in content}
        elif all(type(value) is int for value in content.values()):
            named = {value: name for name, value in content.items()}
        else:
            named = {int(value): name for value, name in content.items()}
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError):
        return ""
    values = sorted(named)
    if not all(map(is_name, named.values())) or not 2 <= len(values) <= MOST_CLASSES:
        return ""
    if values not in (list(range(len(values))), list(range(1, len(values) + 1))):
        return "; values must follow each other, from 0 or 1 on: write the label images anew"
    written: dict[str, Any] = {"classes": [named[value] for value in values]}
    if values[0] == 1:
        written["zero_is_unlabelled"] = True
    return f"; for what is there write {json.dumps(written, ensure_ascii=False)}"


def check_count(file: Path, count: int) -> None:
    if count == 1:
        raise TaskError(
            f"{file} names 1 class; expected 2 to {MOST_CLASSES}: the mIoU of a single class says "
            'nothing, so name the rest as one too, "background", and give it a value of its own'
        )
    if not 2 <= count <= MOST_CLASSES:
        raise TaskError(f"{file} names {count} classes; expected 2 to {MOST_CLASSES}")
