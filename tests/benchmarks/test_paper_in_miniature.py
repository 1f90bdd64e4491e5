"""The paper in miniature: which run stands in which cell, and what is made of the numbers."""

from types import SimpleNamespace

import miniature_tables as tables
import paper_in_miniature as paper
import pytest

from mae_bench.suite.expansion import expand

METRICS = ("top1", "ap_box", "ap_mask", "miou")


@pytest.fixture(scope="module")
def runs():
    spec = paper.suite_spec(tables.LAYOUTS, paper.SEEDS, paper.ABLATION_SEEDS, short=False)
    return expand(spec).runs


def test_every_cell_has_its_runs_and_every_run_its_cell(runs):
    """A run's score is its place in the list, so that no two cells can be taken for each other."""
    done = [
        (run, SimpleNamespace(metrics=dict.fromkeys(METRICS, float(number))))
        for number, run in enumerate(runs)
    ]
    groups = paper.grouped(tables.LAYOUTS, done)
    shown, by_scores = set(), {}
    for layout in tables.LAYOUTS:
        for column in layout.columns.values():
            for name in layout.rows:
                scores = groups[column][name]
                least = paper.ABLATION_SEEDS if layout.ablates else paper.SEEDS
                assert len(scores) == len(set(scores)) == least, (layout.number, name)
                key = (*column[:2], name)
                assert by_scores.setdefault(tuple(scores), key) == key
                shown |= set(scores)
    transfers = {float(n) for n, run in enumerate(runs) if run.command == "transfer"}
    assert shown == transfers


def test_a_row_is_pre_trained_by_what_it_says(runs):
    changed = {paper.row_of(run): dict(run.needs.overrides) for run in runs if run.needs}
    for _, cases in tables.CASES.values():
        for each in cases:
            found = changed[each.weights]
            assert found.items() >= {**each.changes, **paper.ABLATED}.items()
            assert found.keys() - each.changes.keys() - paper.ABLATED.keys() <= {
                "norm_pix",
                "codebook",
            }
    for method in (tables.MAE, tables.MOCO, tables.BEIT, tables.SUPERVISED):
        assert changed[method] == {}


def test_findings_speak_of_rows_that_their_tables_have():
    by_number = {layout.number: layout for layout in tables.LAYOUTS}
    for each in tables.FINDINGS:
        layout = by_number[each.table]
        assert each.column in layout.columns.values()
        known = {*layout.rows, tables.RANDOM}
        assert {each.first, each.second} <= known, each.text


@pytest.mark.parametrize(
    ("first", "second", "alike", "said"),
    [
        ((10, 11, 12), (1, 2, 3), False, "holds"),
        ((1, 2, 3), (10, 11, 12), False, "does not hold"),
        ((1, 2, 3), (1.5, 2.5, 2), False, "cannot be told from noise"),
        ((5, 5.1, 4.9), (5.05, 4.95, 5), True, "holds"),
        ((5, 5.1, 4.9), (8, 8.1, 7.9), True, "does not hold"),
        ((1, 9, 5), (2, 8, 5), True, "cannot be told from noise"),
    ],
)
def test_verdicts(first, second, alike, said):
    finding = tables.Finding("3", "", tables.TUNED, tables.MAE, tables.RANDOM, alike)
    assert paper.verdict(finding, first, second)[0] == said


def test_what_is_missing_is_counted(runs, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["paper_in_miniature.py", "--out", str(tmp_path), "--finished"])
    paper.main()
    said = capsys.readouterr().out
    assert f"{len(runs)} of {len(runs)} runs are missing" in said
    assert f"{len(tables.FINDINGS)} more findings wait" in said
    assert "### Table" not in said
