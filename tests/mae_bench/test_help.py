"""Help that tells what there is, and what a shell completes."""

import os
import re
import subprocess
import sys

import pytest

from mae_bench.cli import call


def helped(argv: list[str], capsys) -> str:
    """A help text with its boxes and line breaks taken out."""
    with pytest.raises(SystemExit) as end:
        call([*argv, "--help"])
    assert end.value.code == 0
    return " ".join(capsys.readouterr().out.replace("│", " ").split())


@pytest.mark.parametrize(
    ("argv", "shown"),
    [
        ("transfer --backbone vit_b", ["--base-lr", "[mae FINETUNE.md] (default: 0.0005)"]),
        ("transfer --backbone vit_l", ["--epochs", "[mae FINETUNE.md] (default: 50)"]),
        ("transfer --backbone vit_l --protocol linear", ["lars", "(default: 16384)"]),
        ("transfer --backbone vit_h --protocol scratch", ["[MAE Table 11] (default: 0.3)"]),
        ("pretrain --backbone vit_b", ["[MAE Table 8] (default: 0.00015)", "(default: 800)"]),
        ("pretrain", ["[ours: tuned on the miniature world]"]),
        ("report", ["published numbers", "--runs"]),
        ("quickstart", ["--out", "--seed"]),
        ("data", ["make"]),
        ("doctor", ["--out"]),
        ("", ["quickstart", "pretrain", "transfer", "report", "data", "doctor"]),
    ],
)
def test_help_shows_the_effective_recipe_and_its_sources(argv, shown, capsys):
    text = helped(argv.split(), capsys)
    for each in shown:
        assert each in text


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        ("evaluate", "such a file is tested as it says, and else as flags say (required)"),
        ("pretrain", "compute them again in the backward pass: less memory for one more forward"),
        ("pretrain", "by BEiT's blocks, or three of every four in a fixed pattern (mask_ratio"),
        ("transfer --task coco", "TRAIN.json,VAL.json, your own annotations (default: mini)"),
        ("weights convert", "confirmed; mae-bench weights inspect says what they tell"),
    ],
)
def test_help_breaks_lines_where_they_are_full_alone(argv, sentence):
    """Not where the source breaks them: in a wide terminal each flag takes one line."""
    command = [sys.executable, "-m", "mae_bench.cli", *argv.split(), "--help"]
    wide = {**os.environ, "COLUMNS": "500"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=wide)
    assert sentence in done.stdout
    assert not re.search(r"\(default: [^│]*\(default: None\)", done.stdout)


@pytest.mark.parametrize(
    ("argv", "shown"),
    [
        ("report", ("--output PATH", "--compare ONE OTHER")),
        ("transfer", ("--limit INT", "--checkpoint STR")),
        ("transfer --task coco", ("--clip-grad {None}|FLOAT",)),
    ],
)
def test_help_names_what_a_flag_takes(argv, shown, capsys):
    """None is told of where it says something: in a recipe, it switches something off."""
    text = helped(argv.split(), capsys)
    assert all(each in text for each in shown)
    assert "{None}|PATH" not in text


SLOW_TO_IMPORT = ("torch", "numpy", "pandas", "pydantic", "PIL", "matplotlib", "timm", "accelerate")


@pytest.mark.parametrize("command", ["", "pretrain", "transfer", "report", "quickstart", "doctor"])
def test_help_imports_nothing_slow(command):
    code = (
        "import sys; from mae_bench.cli import call\n"
        "try: call(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        f"print(*[name for name in sys.modules if name in {SLOW_TO_IMPORT!r}], file=sys.stderr)"
    )
    argv = [sys.executable, "-c", code, *command.split(), "--help"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert "usage: mae-bench" in done.stdout
    assert done.stderr.split() == []


READING = {"--format", "--allow-pickle", "--key", "--prefix", "--heads", "--grid"}


@pytest.mark.parametrize(
    ("command", "flags"),
    [
        ("runs list", {"--runs", "--task", "--protocol", "--json"}),
        ("runs show", {"--runs"}),
        ("runs rescore", {"--data"}),
        ("data make", {"--out"}),
        ("data list", {"--json"}),
        ("data check", {"--root"}),
        ("weights inspect", READING | {"--json"}),
        ("weights list", {"--json"}),
        ("doctor", {"--out", "--json"}),
    ],
)
def test_a_command_has_its_own_flags_alone(command, flags, capsys):
    shown = set(re.findall(r"(?<![\w-])--(?!no-)[a-z][a-z-]*", helped(command.split(), capsys)))
    assert shown - {"--help"} - ({"--data"} if command == "data make" else set()) == flags


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell, capsys):
    with pytest.raises(SystemExit) as end:
        call(["--tyro-print-completion", shell])
    assert end.value.code in (None, 0)
    script = capsys.readouterr().out
    assert "mae-bench" in script
    for offered in ("rescore", "base-lr", "mask-ratio", "allow-pickle"):
        assert offered in script


def test_completion_in_bash(tmp_path, capsys):
    """A real shell asks the script what may follow."""
    with pytest.raises(SystemExit):
        call(["--tyro-print-completion", "bash"])
    (tmp_path / "script").write_text(capsys.readouterr().out)
    ask = (
        f"source {tmp_path / 'script'}; set -- $(complete -p mae-bench); "
        "COMP_WORDS=(mae-bench runs p); COMP_CWORD=2; $3; echo ${COMPREPLY[@]}"
    )
    told = subprocess.run(["bash", "-c", ask], capture_output=True, text=True, check=True).stdout
    assert sorted(told.split()) == ["pack", "prune"]


@pytest.mark.parametrize("command", ["suite", "predict", "transfer", "pretrain --method beit"])
def test_help_says_none_of_an_empty_default(command, capsys):
    text = helped(command.split(), capsys)
    assert "(default: )" not in text
    assert ("(required)" if command == "predict" else "(default: none)") in text
