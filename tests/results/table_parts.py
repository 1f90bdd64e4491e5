"""Data of small runs, and parts of a table, for the tests beside."""

from results import Data

MINIATURE = Data(
    name="miniature",
    fingerprint="aa" * 8,
    train_images=2000,
    val_images=500,
    classes=8,
    miniature=True,
    standard=False,
)


FOLDER = MINIATURE.model_copy(update={"name": "photos", "miniature": False})


def note(table, mark: str) -> str:
    (text,) = [note.text for note in table.notes if note.mark == mark]
    return text


def column(table, key: str) -> list:
    index = [column.key for column in table.columns].index(key)
    return [row[index] for row in table.rows]
