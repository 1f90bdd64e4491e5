"""The bar in a terminal, lines elsewhere; text is printed as it is."""

import io

import pytest
from rich.console import Console

from mae_bench import progress
from mae_bench.progress import duration

ODD = "a [red]b[/] :smile: [/c]"


@pytest.fixture
def terminal(monkeypatch) -> io.StringIO:
    """What a terminal of 80 columns is sent."""
    sent = io.StringIO()
    narrow = Console(file=sent, force_terminal=True, width=80, emoji=False, color_system=None)
    monkeypatch.setattr(progress, "console", narrow)
    return sent


def test_a_bar_in_a_terminal(terminal):
    """Everything has room in 80 columns, of a long run too."""
    with progress.progress(ODD, total=250_000, start=100_000) as bar:
        bar.began -= 5000
        bar.update(200_000, "loss 0.4321  lr 1.50e-04  12,345 images/s")
        bar.live.refresh()
        bar.update(250_000, "loss 1.25 [x]")
    shown = terminal.getvalue()
    assert f"{ODD} ...\n" in shown
    assert "100000/250000" in shown
    assert "200000/250000 loss 0.4321  lr 1.50e-04  12,345 images/s  41 min 40 s left" in shown
    assert "250000/250000 loss 1.25 [x]" in shown


def test_text_is_said_as_it_is(terminal):
    progress.say(ODD)
    assert terminal.getvalue() == f"{ODD}\n"


def test_lines_elsewhere_come_seldom(monkeypatch, capsys):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with progress.progress(ODD, total=100, start=10) as bar:
        for done in range(11, 101):
            now[0] += 1.0
            bar.update(done, "loss 1")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{ODD} ..."
    assert lines[1] == f"{ODD}: 25/100  loss 1  1 min 15 s left"
    assert len(lines) == 1 + 5  # after 15, 30, 45, 60, 75 of 90 seconds


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0 s"), (59.4, "59 s"), (60, "1 min 00 s"), (190, "3 min 10 s"), (7500, "2 h 05 min")],
)
def test_duration(seconds, text):
    assert duration(seconds) == text
