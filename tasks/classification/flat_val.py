"""Labels of ImageNet's test images where these lie in no folders: Kaggle's list, or the devkit."""

import csv
import io
from pathlib import Path

from tasks.classification.datasets import WNID
from tasks.errors import TaskError
from tasks.stores import read

KAGGLE_LIST = "LOC_val_solution.csv"
DEVKIT = ("ILSVRC2012_devkit_t12/data", "data", "")
GROUND_TRUTH, META = "ILSVRC2012_validation_ground_truth.txt", "meta.mat"
MOST_BYTES = 2**26
"""of such a list; Kaggle's has 2.6 MB"""
UP = 4
"""folders around train/ and val/ in which the list is looked for, these included"""


def places(root: Path) -> list[Path]:
    absolute = root.absolute()
    return [absolute, *absolute.parents][:UP]


def flat_labels(root: Path) -> tuple[Path, dict[str, str]] | None:
    """The list and stem of an image -> its wnid; None if there is no list.

    Raises TaskError for a list that is none.
    """
    for place in places(root):
        file = place / KAGGLE_LIST
        if file.exists():
            return file, read_kaggle(file)
        for folder in DEVKIT:
            file = place / folder / GROUND_TRUTH
            if file.exists():
                return file, read_devkit(file)
    return None


def text_of(path: Path) -> str:
    try:
        return read(path, MOST_BYTES).decode("utf-8-sig", "replace")
    except OSError as error:
        raise TaskError(f"{path} cannot be read: {error.strerror}; get it again") from error


def read_kaggle(path: Path) -> dict[str, str]:
    """Rows "ILSVRC2012_val_00000001,n01440764 1 2 3 4 ...": a wnid and corners for each object.

    All objects of an image are of its class.
    """
    found: dict[str, str] = {}
    rows = csv.reader(io.StringIO(text_of(path)))
    for number, row in enumerate(rows, start=1):
        if number == 1 or not row:
            continue  # ImageId,PredictionString
        wnid = row[1].split(maxsplit=1)[0] if len(row) == 2 and row[1].strip() else ""
        if not WNID.fullmatch(wnid) or found.setdefault(row[0], wnid) != wnid:
            raise TaskError(
                f"{path}, line {number}: {','.join(row)!r:.80}; expected an image once, a comma, "
                "and its wnid: get the file again"
            )
    return found


def read_devkit(path: Path) -> dict[str, str]:
    """A line for each image, the number of its class in meta.mat of the same folder."""
    from scipy.io import loadmat

    meta = path.parent / META
    try:
        file = io.BytesIO(read(meta, MOST_BYTES))
        synsets = loadmat(file, squeeze_me=True)["synsets"]
        rows = [(int(row[0]), str(row[1]), int(row[4])) for row in synsets]
    except OSError as error:
        raise TaskError(f"{meta} cannot be read: {error.strerror}; get the devkit again") from error
    except (ValueError, KeyError, TypeError, IndexError, NotImplementedError) as error:
        raise TaskError(f"{meta} is not the devkit's ({error}); get the devkit again") from error
    wnid_of = {number: wnid for number, wnid, children in rows if children == 0}
    found = {}
    for number, line in enumerate(text_of(path).split(), start=1):
        wnid = wnid_of.get(int(line)) if line.isascii() and line.isdigit() else None
        if wnid is None:
            raise TaskError(
                f"{path}, line {number}: {line!r:.80}; expected the number of a class in {meta}: "
                "get the devkit again"
            )
        found[f"ILSVRC2012_val_{number:08d}"] = wnid
    return found


def how_to_sort(root: Path) -> str:
    """What to say about flat test images without a list."""
    return (
        f" (the official val archive is flat and unsorted), or put {KAGGLE_LIST} of Kaggle or "
        f"ILSVRC2012_devkit_t12/ of image-net.org into {root}, and they are read as they lie"
    )
