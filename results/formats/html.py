"""One page that needs no network: `results.page`."""

from results.formats import Content


def write(content: Content) -> str:
    return content.page()
