"""The one judgement of data: what `data check` calls ready is what `transfer` takes."""

from pathlib import Path

import pytest

from tasks.check import Check, Finding, images, refuse
from tasks.errors import TaskError
from tasks.images import UnreadableImage


class Numbered:
    """So many images, called by number; those in `bad` cannot be read."""

    def __init__(self, count: int, bad: set[int] = frozenset()) -> None:
        self.names = [f"{number}.jpg" for number in range(count)]
        self.bad = bad

    def __len__(self) -> int:
        return len(self.names)


def decode(split: Numbered, row: int) -> None:
    if row in split.bad:
        raise UnreadableImage(split.names[row], "is cut off" if row % 2 else "is empty")


def look(train: Numbered, test: Numbered, **how: int) -> list[Finding]:
    return images({"training": train, "test": test}, decode, None, **how)


def test_single_unreadable_images_are_noted_with_their_reasons():
    (found,) = look(Numbered(9, {1, 2, 3}), Numbered(4))
    assert found.status == "note"
    assert found.what == (
        "3 of 9 training images cannot be read: 2 images: is cut off (1.jpg, 3.jpg); "
        "1 image: is empty (2.jpg)"
    )
    assert "passed over" in found.fix


def test_it_is_a_problem_if_no_image_of_a_split_can_be_read():
    (found,) = look(Numbered(9), Numbered(3, {0, 1, 2}))
    assert found.status == "problem"
    assert found.what.startswith("3 of 3 test images cannot be read: 2 images: is empty")


@pytest.mark.parametrize(("limit", "status"), [(3, "note"), (2, "problem"), (0, "problem")])
def test_it_is_a_problem_if_more_cannot_be_read_than_may(limit, status):
    (found,) = look(Numbered(9, {1, 2, 3}), Numbered(4), max_bad_images=limit)
    assert found.status == status


def test_a_sample_says_what_to_expect_of_the_rest():
    (found,) = look(Numbered(10_000, {0}), Numbered(4), samples=200)
    assert found.what.startswith("1 of 100 training images looked at cannot be read")
    assert "about 100 in all, if the rest is alike, which would end a run" in found.fix


def test_all_well():
    done: list[tuple[int, int]] = []
    splits = {"training": Numbered(2), "test": Numbered(1)}
    found = images(splits, decode, lambda *step: done.append(step))
    assert found == [Finding("ok", "3 images, spread over both splits, decode")]
    assert done == [(1, 3), (2, 3), (3, 3)]


def test_the_first_problem_is_the_error():
    fine = Check((Finding("ok", "a"), Finding("note", "odd")), None)
    refuse(fine, "coco", "data")
    assert fine.notes() == ["odd"]
    bad = Check(
        (Finding("note", "odd"), Finding("problem", "b", "do c"), Finding("problem", "d")), 1
    )
    expected = r"^b; do c \(1 more: mae-bench data check coco --root data\)$"
    with pytest.raises(TaskError, match=expected):
        refuse(bad, "coco", Path("data"))
