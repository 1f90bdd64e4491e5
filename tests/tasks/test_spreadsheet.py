import pytest

from tasks.spreadsheet import harmless


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(1)", "\t=1", "\r=1"])
def test_what_would_run_is_text(text: str) -> None:
    assert harmless(text) == f"'{text}"


@pytest.mark.parametrize("text", ["cat", "n01440764", "a=b", "ä", ""])
def test_other_names_stay(text: str) -> None:
    assert harmless(text) == text
