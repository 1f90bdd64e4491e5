"""GitHub-flavoured Markdown, with pictures beside it."""

from results.formats import Content
from results.render import to_markdown, to_markdown_pictures


def write(content: Content) -> str:
    return to_markdown(content.tables) + to_markdown_pictures(content.pictures)
