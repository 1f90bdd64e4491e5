"""A whole LaTeX article."""

from results.formats import Content
from results.latex import to_latex


def write(content: Content) -> str:
    return to_latex(content.tables, document=True)
