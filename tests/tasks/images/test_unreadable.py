import pickle
from pathlib import Path

from tasks.images import UnreadableImage
from tasks.images.unreadable import Unreadable, by_reason


def test_reasons_are_grouped_with_counts_and_the_commonest_comes_first():
    items = [Unreadable("a.png", "16 bits a channel; expected 8")]
    items += [Unreadable(f"{i}.jpg", "truncated") for i in range(1200)]
    assert by_reason(items) == [
        "1,200 images: truncated (0.jpg, 1.jpg, 2.jpg, ...)",
        "1 image: 16 bits a channel; expected 8 (a.png)",
    ]
    assert by_reason([]) == []


def test_the_exception_keeps_path_and_reason_on_its_way_from_a_loading_process():
    error = pickle.loads(pickle.dumps(UnreadableImage(Path("a/b.png"), "is empty")))
    assert (str(error), error.path, error.reason) == (
        "a/b.png is empty",
        Path("a/b.png"),
        "is empty",
    )
