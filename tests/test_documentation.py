"""The documentation says what is true: its commands are taken, its links lead somewhere."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from mae_bench import cli
from mae_bench.starting import DEFAULT

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMAND = re.compile(r"(?:^|\$ |--no-python |&& )mae-bench (?!shows)(\S.*)$")


def commands() -> list[tuple[str, str]]:
    """Page and command line of everything that a reader may type."""
    found = []
    for page in PAGES:
        text = page.read_text("utf-8").replace("\\\n", " ")
        blocks = re.findall(r"```(?:console|bash)\n(.*?)```", text, re.DOTALL)
        blocks += re.findall(r"(?:^    .*\n)+", text, re.MULTILINE)
        for line in "\n".join(blocks).splitlines():
            match = COMMAND.search(line.strip().partition("  #")[0])
            if match and "docker" not in line:
                found.append((page.name, match[1]))
    return found


def test_there_are_commands_to_look_at() -> None:
    found = [line for _, line in commands()]
    assert len(found) > 50
    kinds = {tuple(line.split()[:1]) for line in found}
    assert {("pretrain",), ("transfer",), ("report",), ("weights",), ("runs",)} <= kinds


@pytest.mark.parametrize(("page", "line"), commands())
def test_a_command_of_the_documentation_is_taken(page: str, line: str, monkeypatch) -> None:
    """As far as its words go: files and runs by other names are not there."""
    monkeypatch.setattr(cli, "likely_backbone", lambda *_: DEFAULT)
    words = shlex.split(line)
    if "my_vits.py:my_vit" in words:  # that file is the page's own; its tests run these
        words[words.index("my_vits.py:my_vit")] = DEFAULT
    if words == ["--version"]:
        return
    assert cli.parse(words)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text("utf-8")):
        if "://" in target or target.startswith("protocols/"):  # which the build makes
            continue
        assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.slow
def test_the_pages_are_built_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("material", reason="needs mae-bench[docs]")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    page = (tmp_path / "protocols" / "imagenet1k-finetune" / "index.html").read_text("utf-8")
    assert "mae FINETUNE.md" in page
    assert "83.6" in page
    reference = (tmp_path / "reference" / "python" / "index.html").read_text("utf-8")
    assert "newest finished pre-training" in reference
    text = (tmp_path / "checkpoints" / "index.html").read_text("utf-8")
    assert "<code>moco_v3</code>" in text
    assert "generated: formats" not in text


def test_the_front_door() -> None:
    """What a repository is looked at for; the licence in full."""
    licence = (ROOT / "LICENSE").read_text()
    assert "Apache License" in licence
    assert "END OF TERMS AND CONDITIONS" in licence
    project = (ROOT / "pyproject.toml").read_text()
    assert 'license = "Apache-2.0"' in project
    version = re.search(r'^version = "(.*)"', project, re.MULTILINE)
    citation = (ROOT / "CITATION.cff").read_text("utf-8")
    assert version
    assert f"version: {version[1]}" in citation
    assert version[1] in (ROOT / "CHANGELOG.md").read_text()
    assert len((ROOT / "README.md").read_text("utf-8").split()) < 1100
