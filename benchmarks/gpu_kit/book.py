"""What a part has found, as lines of JSON that are on disk as soon as they are known.

Imports no torch.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


class Book:
    """Written by one part, line by line."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def write(self, kind: str, **values: Any) -> None:
        with self.file.open("a") as out:
            out.write(json.dumps({"kind": kind} | values) + "\n")

    def begin(self, what: str) -> None:
        """What is to be named if the process ends without a word."""
        print(f"-- {what}", flush=True)
        self.write("begin", what=what)

    def row(self, table: str, **cells: str | float | None) -> None:
        """A line of a table; its columns are those of its first line."""
        self.write("row", table=table, cells=cells)

    def goal(self, name: str, value: float | None, least: float, unit: str) -> None:
        """A number that is to be `least` or more; None: it could not be measured."""
        self.write("goal", name=name, value=value, least=least, unit=unit)

    def fact(self, name: str, value: Any) -> None:
        """What other parts and the report go by."""
        self.write("fact", name=name, value=value)

    def note(self, text: str) -> None:
        self.write("note", text=text)

    def missing(self, what: str, why: str) -> None:
        """Something that was not measured because the machine lacks it."""
        self.write("missing", what=what, why=why)

    def failed(self, what: str, why: str) -> None:
        self.write("failed", what=what, why=why)


@dataclass
class Found:
    """The lines of a part's book."""

    rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """cells by table"""
    goals: list[dict[str, Any]] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    missing: list[dict[str, str]] = field(default_factory=list)
    failed: list[dict[str, str]] = field(default_factory=list)
    last: str = "its start"
    """begun last"""


def read(file: Path) -> Found:
    """A book, of which the last line may be cut off."""
    found = Found()
    for line in file.read_text().splitlines() if file.exists() else []:
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue
        match entry.pop("kind"):
            case "row":
                found.rows.setdefault(entry["table"], []).append(entry["cells"])
            case "goal":
                found.goals.append(entry)
            case "fact":
                found.facts[entry["name"]] = entry["value"]
            case "note":
                found.notes.append(entry["text"])
            case "missing":
                found.missing.append(entry)
            case "failed":
                found.failed.append(entry)
            case "begin":
                found.last = entry["what"]
    return found
