"""User text on its way to a reader: one line, nothing invisible, not endless."""


def one_line(text: str, limit: int | None = None) -> str:
    """`text` without line breaks, control characters and marks that reverse the writing direction.

    Anything over `limit` characters ends in an ellipsis.
    """
    start = text if limit is None else text[: 2 * limit + 100]
    line = " ".join("".join(c if c.isprintable() else " " for c in start).split())
    return line if limit is None or len(line) <= limit else line[: limit - 1].rstrip() + "…"


def middle_cut(text: str, limit: int) -> str:
    """The same, with the ellipsis in the middle: names often differ at their ends alone."""
    line, start = one_line(text), (limit - 1) // 2
    return line if len(line) <= limit else f"{line[:start]}…{line[start + 1 - limit :]}"
