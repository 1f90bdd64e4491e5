"""Each script of benchmarks/ whose peers are installed, in its smallest size.

A script compares results before it prints a table, and ends with an error where they differ.
"""

import ast
import importlib
import re
import sys
import tomllib
from pathlib import Path

import pytest
import side_by_side

SCRIPTS = {
    "coco_evaluation": (["--images", "10", "--rounds", "2"], []),
    "finetune_step": (["--backbone", "vit_mini", "--batch", "2", "--rounds", "2"], []),
    "neighbours": (["--training", "8000", "--queries", "8", "--rounds", "2"], ["faiss", "sklearn"]),
    "pretrain_step": (
        ["--method", "mae", "--backbone", "vit_mini", "--batch", "2", "--threads", "1"],
        ["lightly", "transformers"],
    ),
    "segmentation_step": (["--backbone", "vit_mini", "--crop", "64", "--rounds", "2"], []),
}


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_prints_a_ratio_for_each_peer(script, monkeypatch, capsys, tmp_path):
    flags, needed = SCRIPTS[script]
    for package in needed:
        pytest.importorskip(package)
    module = importlib.import_module(script)
    monkeypatch.setattr(module, "__file__", str(tmp_path / f"{script}.py"))
    monkeypatch.setattr(sys, "argv", [script, *flags, "--write"])
    module.main()
    table = (tmp_path / f"{script}.md").read_text()
    assert capsys.readouterr().out.strip() in table
    rows = [line.strip("|").split("|") for line in table.splitlines() if line.startswith("|")]
    ours = [row for row in rows if any(cell.strip() == side_by_side.OURS for cell in row)]
    assert ours
    assert all(row[-1].strip() == "1.00" for row in ours)
    assert any(re.fullmatch(r" \d+\.\d\d( \(.*\))? ", row[-1]) for row in rows if row not in ours)


HERE = Path(side_by_side.__file__).parent
CALLED = {"PIL": "pillow", "faiss": "faiss-cpu", "mmseg": "onedl-mmsegmentation"}
CALLED |= {"sklearn": "scikit-learn"}
"""packages whose distribution has another name"""
BY_HAND = {"detectron2"}
"""which has no release that could be asked for"""


def imported(file: Path) -> set[str]:
    tree = ast.walk(ast.parse(file.read_text()))
    whole = {each.name for node in tree if isinstance(node, ast.Import) for each in node.names}
    tree = ast.walk(ast.parse(file.read_text()))
    return whole | {str(node.module) for node in tree if isinstance(node, ast.ImportFrom)}


def test_all_that_the_scripts_import_can_be_asked_for():
    project = tomllib.loads((HERE.parent / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *project["optional-dependencies"]["bench"]]
    there = {re.split("[<>=; ]", each)[0] for each in asked} | BY_HAND
    found = {each.partition(".")[0] for file in HERE.rglob("*.py") for each in imported(file)}
    own = {file.stem for file in HERE.rglob("*.py")} | {each.name for each in HERE.iterdir()}
    own |= {"backbones", "mae_bench", "results", "tasks", *sys.stdlib_module_names}
    named = {CALLED.get(each, each.replace("_", "-")) for each in found - own}
    assert named - there == set()


def defined(file: Path) -> set[str]:
    """Names that a module has, read without importing it."""
    names: set[str] = set()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {each.id for one in targets for each in ast.walk(one) if hasattr(each, "id")}
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {each.asname or each.name for each in node.names}
    return names


def missing(module: str, names: set[str]) -> set[str] | None:
    """Names that a module of this repository does not have; None of any other module.

    Packages are imported, whose names may come when they are asked for; modules are only read.
    """
    for root in (HERE, HERE.parent):
        place = root / module.replace(".", "/")
        if place.with_suffix(".py").exists():
            return names - defined(place.with_suffix(".py"))
        if (place / "__init__.py").exists():
            package = importlib.import_module(module)
            submodules = {each.stem for each in place.iterdir()}
            return {each for each in names - submodules if not hasattr(package, each)}
    return None


def test_what_the_scripts_take_from_each_other_and_from_here_is_there():
    wrong, looked = [], 0
    for file in HERE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.ImportFrom):
                continue
            found = missing(str(node.module), {each.name for each in node.names})
            looked += found is not None
            wrong += [f"{file.name}: {name} of {node.module}" for name in sorted(found or ())]
    assert wrong == []
    assert looked > 100


def test_everybody_takes_turns_and_the_warm_up_is_not_counted():
    called = []
    now = iter(range(1000))
    jobs = {name: lambda name=name: called.append(name) for name in "abc"}
    spent = side_by_side.take_turns(jobs, 2, lambda: float(next(now)))
    assert called == ["a", "b", "c", "b", "c", "a", "c", "a", "b"]
    assert spent == {name: [1.0, 1.0] for name in "abc"}


def test_ratios_are_of_the_same_round():
    spent = {"mae-bench": [1.0, 2.0, 4.0], "peer": [2.0, 4.0, 12.0]}
    assert side_by_side.paired(spent, "peer", "mae-bench") == [2.0, 2.0, 3.0]
    assert side_by_side.ratio(spent, "peer", "mae-bench") == 2.0
    assert side_by_side.rows(spent).splitlines()[-1].endswith("| 2.00 (2.00 to 2.50) |")


def test_notes_below_a_table_are_kept(tmp_path, capsys):
    script = tmp_path / "speed.py"
    (tmp_path / "speed.md").write_text("# Speed\n\nold\n\n### a\n\n## What was tried\n\nmuch\n")
    side_by_side.publish(str(script), "Speed", ["new"], write=True)
    written = Path(tmp_path / "speed.md").read_text()
    assert (
        written == "# Speed\n\n`python benchmarks/speed.py`\n\nnew\n\n## What was tried\n\nmuch\n"
    )
    assert capsys.readouterr().out == "new\n\n"
