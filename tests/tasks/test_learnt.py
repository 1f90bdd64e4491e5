from pathlib import Path

import pytest

from tasks.errors import TaskError
from tasks.learnt import read_classes, read_listed, write_classes


def test_classes_are_lines(tmp_path: Path) -> None:
    write_classes(tmp_path / "classes.txt", ["n1", "a b", "two\nlines", "\udcff", "\x85"])
    assert read_classes(tmp_path / "classes.txt") == [
        "n1", "a b", r"two\nlines", r"\udcff", "\x85"
    ]  # fmt: skip
    with pytest.raises(TaskError, match=r"none.txt: No such file or directory; expected the names"):
        read_classes(tmp_path / "none.txt")


def test_lists_that_users_write(tmp_path: Path) -> None:
    file = tmp_path / "classes.txt"
    file.write_bytes(b"\xef\xbb\xbfn1\r\na b\r\n\r\n")  # as an editor on Windows
    assert read_listed(file) == ["n1", "a b"]
    write_classes(file, ["n1", "\x85"])
    assert read_listed(file) == ["n1", "\x85"]
    file.write_text("n1\nn2\nn1\n")
    with pytest.raises(TaskError, match=r"line 3 has 'n1' in line 1, too; expected .* each once"):
        read_listed(file)
    file.write_text("n1\n\nn2\n")
    with pytest.raises(TaskError, match="line 2 is empty"):
        read_listed(file)
