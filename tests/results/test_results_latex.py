import re
import shutil
import subprocess
from pathlib import Path

import pytest

from results import (
    Cell,
    Column,
    Note,
    Table,
    comparison_table,
    paper_tables,
    published,
    to_latex,
)
from results.formats.latex import PREAMBLE, escape

MEASURED = Column("ours", "top-1", "measured", "%")
PUBLISHED = Column("paper", "top-1", "published", "%", "MAE paper", ("1",))
DIFFERENCE = Column("difference", "top-1", "difference", "points", "MAE paper")
TABLE = Table(
    "ImageNet-1k: fine-tuning",
    (Column("backbone", "backbone", "label"), MEASURED, PUBLISHED, DIFFERENCE),
    (
        (
            Cell("vit_b"),
            Cell(83.534, std=0.102, n=3, marks=("a",), best=True),
            Cell(83.6, decimals=1, source="MAE paper, Table 3"),
            Cell(-0.066, decimals=1, marks=("≈",), interval=(-0.2, 0.1)),
        ),
        (Cell("vit_l"), Cell(85.9, n=1), Cell(), Cell()),
    ),
    (
        Note("About all."),
        Note("near.", "≈"),
        Note("MAE paper, Table 3.", "1"),
        Note("x -> 1.", "a"),
    ),
)
LATEX = r"""% needs \usepackage{booktabs,graphicx,textcomp}

\begin{table}[htbp]
\centering
\caption{ImageNet-{}1k: fine-{}tuning}
\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%
\begin{tabular}{lrrr}
\toprule
 & ours & published & difference \\
 &  & MAE paper & to MAE paper \\
backbone & top-{}1 (\%) & top-{}1 (\%)\textsuperscript{1} & top-{}1 (points) \\
\midrule
vit\_b & \textbf{83.53 $\pm$ 0.10 (n=3)}\textsuperscript{a} & 83.6 & $-$0.1 {[}$-$0.2, $+$0.1{]}\textsuperscript{$\approx$} \\
vit\_l & 85.90 (n=1) & -- & -- \\
\bottomrule
\end{tabular}}
\par\smallskip
{\raggedright\footnotesize
About all.\par
\textsuperscript{$\approx$}near.\par
\textsuperscript{1}MAE paper, Table 3.\par
\textsuperscript{a}x~$\rightarrow$~1.\par
}
\end{table}
"""  # noqa: E501

HOSTILE = [
    r"\input{/etc/passwd} \write18{ls} \end{tabular} \def\x{",
    r"\\ & \hline % comment { } } # $x^2$ a_b ~ ^ ^^41",
    "--epochs --- ''quotes'' `ticks` \"double\" ?` !` <<less>> |bar|",
    "[1ex] * [",
    "two\nlines\r\nand\ttabs \x1b[31mred\x1b[0m \x00",
    "é ü ñ ç š ő ł ø Å ß œ ï ǰ ‘single’ “double” … – — ± × √ → °",
    "中文 русский ελληνικά עברית \u202eoverride 🙂 \u0301 ‰ \U0010ffff",
    "w" * 5000,
    "中" * 5000,
    "",
]
needs_latex = pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")


def hostile_table(text: str) -> Table:
    columns = (
        Column("a", text, "label"),
        Column("b", text, "label"),
        Column("c", text, "measured", "%"),
    )
    rows = ((Cell(text), Cell("end"), Cell(1.5, n=1, best=True)), (Cell("[x]"), Cell("*"), Cell()))
    return Table(text, columns, rows, (Note(text), Note(f"- {text}")))


def compiled(text: str, folder: Path) -> str:
    """What pdflatex says; stops at the first error."""
    (folder / "paper.tex").write_text(text)
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "-no-shell-escape"]
    done = subprocess.run(
        [*command, "paper.tex"], cwd=folder, capture_output=True, text=True, errors="replace"
    )
    assert done.returncode == 0, done.stdout[-2000:]
    return done.stdout


def shown(folder: Path) -> str:
    """The letters of the PDF without spaces and line breaks."""
    done = subprocess.run(["pdftotext", "paper.pdf", "-"], cwd=folder, capture_output=True)
    return re.sub(r"\s", "", done.stdout.decode())


def test_latex_is_exactly_this():
    assert to_latex([TABLE]) == LATEX
    assert to_latex([TABLE, TABLE]).count(r"\begin{table}") == 2
    document = to_latex([TABLE], document=True)
    assert document.startswith("\\documentclass{article}\n")
    assert PREAMBLE in document
    assert LATEX.partition("\n\n")[2] in document


def test_every_special_character_is_escaped():
    special = escape("\\ { } # $ % & _ ^ ~ < > | \" ' ` - [ ] *")
    assert special == (
        r"\textbackslash{} \{ \} \# \$ \% \& \_ \textasciicircum{} \textasciitilde{} \textless{} "
        r"\textgreater{} \textbar{} {\char34} '{} \textasciigrave{} -{} {[} {]} {*}"
    )
    assert escape("Å é ï ǰ 中\u202e") == r"\r{A} \'{e} \"{\i} \v{\j} \texttt{U+4E2D}"
    assert escape("e\u0301") == r"\'{e}"


@pytest.mark.parametrize("text", HOSTILE)
def test_only_what_we_wrote_is_a_command(text):
    """Take out what may stand in a cell, and no special character of LaTeX is left."""
    left = re.sub(
        r"\\text[a-z]+\{(U\+[0-9A-F]{4,6})?\}|\\[{}#$%&_]|\{(\\char34)?\}|\{[\[\]*]\}|--+|"
        r"\\(ss|ae|AE|oe|OE|o|O|l|L|i|ldots)\{\}|\\[`'^~=.\"urHvc]\{(\\?[a-zA-Z])\}|\$\\?[a-z-]+\$",
        "",
        escape(text),
    )
    assert not set(left) & set('\\{}#$%&_^~<>|"`[]*')
    assert left.isascii()


def test_long_tables_go_on_in_another_float_and_long_notes_below():
    rows = tuple((Cell(str(index)),) for index in range(100))
    table = Table("t", (Column("a", "a", "label"),), rows, (Note("n " * 900),) * 10)
    text = to_latex([table])
    assert text.count(r"\begin{table}") == text.count(r"\end{table}") == 3
    assert text.count("(continued)") == 2
    assert text.index(r"\clearpage") > text.rindex(r"\end{table}")
    assert text.count(r" \\") == 3 + 100  # a header in each


@needs_latex
def test_the_papers_tables_compile_and_show_what_they_say(make_record, tmp_path):
    runs = [make_record(seed=seed, metrics={"top1": 83.5 + seed / 10}) for seed in range(3)]
    tables = [*paper_tables("all", runs, published()), *comparison_table(runs, published())]
    said = compiled(to_latex(tables, document=True), tmp_path)
    assert "Overfull \\hbox" not in said
    if shutil.which("pdftotext"):
        text = shown(tmp_path)
        assert "83.60±0.10(n=3)" in text
        assert "imagenet1k/finetune@1" in text
        assert "reproducedwiththeofficialBEiTcode." in text


@needs_latex
def test_hostile_texts_compile_and_stay_texts(tmp_path):
    """In a plain article, as a part of it."""
    text = to_latex([hostile_table(each) for each in HOSTILE])
    begin = f"\\documentclass{{article}}\n{PREAMBLE}\n\\begin{{document}}\n"
    compiled(f"{begin}{text}\\end{{document}}\n", tmp_path)
    if shutil.which("pdftotext"):
        seen = shown(tmp_path)
        for literal in ("/etc/passwd", "write18{ls}", "%comment", "--epochs", "U+4E2D", "ˆˆ41"):
            assert literal in seen
