"""Imports run one way: mae_bench -> tasks -> backbones, and mae_bench -> results."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ALLOWED = {
    "mae_bench": {"mae_bench", "tasks", "backbones", "results"},
    "tasks": {"tasks", "backbones"},
    "backbones": {"backbones"},
    "results": {"results"},
}


def imported(file: Path) -> set[str]:
    """Top-level names that a file imports, wherever in the file it does."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            names.add((node.module or "").partition(".")[0])
    return names


@pytest.mark.parametrize("package", ALLOWED)
def test_import_direction(package):
    files = list((ROOT / package).rglob("*.py"))
    assert files
    for file in files:
        against = (imported(file) & set(ALLOWED)) - ALLOWED[package]
        assert not against, f"{file.relative_to(ROOT)} imports {against}"


@pytest.mark.parametrize(
    "place",
    ["commands/*.py", "cli.py", "flags.py", "partial_curve.py", "recipes.py", "suite/e*.py"],
)
def test_the_command_line_asks_faces_and_not_the_tasks_behind_them(place):
    behind = {file.parent.name for file in (ROOT / "tasks").glob("*/face.py")}
    assert behind == {"classification", "coco", "ade20k"}
    files = list((ROOT / "mae_bench").glob(place))
    assert files
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tasks."):
                assert node.module.split(".")[1] not in behind, f"{file}: {node.module}"


def test_every_folder_is_a_package():
    for package in ALLOWED:
        for file in (ROOT / package).rglob("*.py"):
            assert (file.parent / "__init__.py").exists(), file.parent


def test_packages_come_from_this_tree():
    for package in ALLOWED:
        module = __import__(package)
        assert Path(module.__file__).parent == ROOT / package


@pytest.mark.parametrize(
    "module",
    [
        "mae_bench.cli",
        "mae_bench.recipes",
        "mae_bench.report",
        "backbones",
        "tasks",
        "tasks.classification.datasets",
        "tasks.classification.recipes",
        "mae_bench.data",
        "mae_bench.words",
        "mae_bench.runs",
        "mae_bench.suite.running",
        "mae_bench.weights",
        "tasks.coco.recipes",
        "tasks.ade20k.recipes",
        "tasks.miniature",
        "tasks.images",
        "tasks.classification.layout",
        "tasks.coco.layout",
        "tasks.ade20k.layout",
    ],
)
def test_light_modules_do_not_import_torch(module):
    """What --help and report need answers at once; torch alone takes seconds."""
    code = f"import {module}, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
