from pathlib import Path

import pytest

from tasks.errors import TaskError
from tasks.learnt import read_classes, write_classes


def test_classes_are_lines(tmp_path: Path) -> None:
    write_classes(tmp_path / "classes.txt", ["n1", "a b", "two\nlines", "\udcff", "\x85"])
    assert read_classes(tmp_path / "classes.txt") == [
        "n1", "a b", r"two\nlines", r"\udcff", "\x85"
    ]  # fmt: skip
    with pytest.raises(TaskError, match=r"none.txt: No such file or directory; expected the names"):
        read_classes(tmp_path / "none.txt")
