"""The command line: help that tells, and bad input that ends in one line and exit code 2."""

import errno
import importlib
from pathlib import Path

import pytest
import torch
from small_runs import SMALL_MAE, assert_same_bits, flags

import mae_bench
from mae_bench.cli import call


def fails(argv: list[str], capsys) -> str:
    """The one line on standard error of a command that must end with exit code 2."""
    assert call(argv) == 2
    said = capsys.readouterr().err
    assert said.startswith("mae-bench: error: ")
    assert said.count("\n") == 1
    return said


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
    ("argv", "said"),
    [
        ("pretrian", "did you mean pretrain"),
        ("transfer --task imagnet1k", "did you mean imagenet1k"),
        ("transfer --backbone vit_bb", "did you mean vit_b"),
        ("transfer --protocol finetun", "did you mean finetune"),
        ("transfer --epoch 3", "did you mean --epochs"),
        ("pretrain --epochs many", "Error parsing --epochs: invalid literal for int()"),
        ("pretrain --precision fp16", "Expected one of ('fp32', 'bf16')"),
        ("report --runs", "Missing value for argument '--runs'"),
        ("data", "Missing from mae-bench data"),
        ("pretrain --epochs 0", "epochs is 0; expected at least 1"),
        ("pretrain --seed -1", "seed"),
        ("pretrain --data /no/such/folder", "/no/such/folder: no such folder"),
        ("pretrain --mask-ratio 1.5", "mask_ratio"),
        ("transfer", "needs --checkpoint"),
        ("transfer --protocol scratch --data /no/such/folder", "no such folder"),
        ("report --runs /no/such/folder", "no such folder"),
    ],
)
def test_bad_flags(argv, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert said in fails(argv.split(), capsys)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def checkpoints(pretrained: Path, tmp_path: Path) -> Path:
    """Files that are no backbone checkpoint."""
    whole = (pretrained / "backbone.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.pth").write_bytes(b"")
    (tmp_path / "text.pth").write_text("no checkpoint")
    torch.save({"model": {"a": torch.zeros(3)}}, tmp_path / "other.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    (tmp_path / "state.pt").write_bytes(max((pretrained / "state").glob("*.pt")).read_bytes())
    return tmp_path


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("missing.pth", "no such file"),
        ("cut.safetensors", "truncated"),
        ("empty.pth", "empty.pth"),
        ("text.pth", "text.pth"),
        ("other.pth", "missing blocks.0"),
        ("list.pth", "no state dict"),
        ("state.pt", "state.pt"),
    ],
)
def test_bad_checkpoints(name, said, checkpoints, world, tmp_path, capsys):
    argv = ["transfer", *flags(checkpoint=checkpoints / name, data=world / "imagenet1k")]
    assert said in fails([*argv, *flags(out=tmp_path / "runs")], capsys)
    assert not (tmp_path / "runs").exists()


def test_checkpoint_of_another_backbone(pretrained, world, tmp_path, capsys):
    argv = ["transfer", "--backbone", "vit_t", *flags(data=world / "imagenet1k", out=tmp_path)]
    said = fails([*argv, *flags(checkpoint=pretrained / "backbone.safetensors")], capsys)
    assert "holds a vit_mini; asked for vit_t" in said


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda root: None, "has no train/"),
        (lambda root: [(root / s).mkdir() for s in ("train", "val")], "no class folders"),
        (lambda root: (root / "train" / "a").mkdir(parents=True), "has no val/"),
        (
            lambda root: [(root / s / "a").mkdir(parents=True) for s in ("train", "val")],
            "train/a",
        ),
    ],
)
def test_bad_data_folders(build, said, tmp_path, capsys):
    root = tmp_path / "data with ä space"
    root.mkdir()
    build(root)
    argv = ["transfer", "--protocol", "scratch", *flags(data=root, out=tmp_path / "runs")]
    assert said in fails(argv, capsys)
    assert not (tmp_path / "runs").exists()


def test_a_folder_without_images(tmp_path, capsys):
    (tmp_path / "data").mkdir()
    argv = ["pretrain", *flags(data=tmp_path / "data", out=tmp_path / "runs")]
    assert str(tmp_path / "data") in fails(argv, capsys)
    assert not (tmp_path / "runs").exists()


def test_an_out_that_is_a_file(world, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    argv = ["pretrain", *flags(data=world / "unlabelled", out=tmp_path / "file", **SMALL_MAE)]
    assert str(tmp_path / "file") in fails(argv, capsys)


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".."])
def test_a_name_stays_inside_out(name, world, tmp_path, capsys):
    argv = ["pretrain", *flags(data=world / "unlabelled", out=tmp_path / "runs", name=name)]
    assert "name of one folder" in fails(argv, capsys)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_full_or_read_only_disk_loses_nothing(number, world, tmp_path, capsys, monkeypatch):
    """Saving fails in the middle of a run; later the same command ends as an undisturbed one."""
    argv = ["pretrain", *flags(data=world / "unlabelled", name="run", save_minutes=0)]
    argv += flags(**SMALL_MAE)
    assert call([*argv, *flags(out=tmp_path / "undisturbed")]) == 0
    save, calls = torch.save, []

    def full(*arguments, **options):
        calls.append(1)
        if len(calls) == 3:
            raise OSError(number, "disk trouble", "state")
        return save(*arguments, **options)

    monkeypatch.setattr(torch, "save", full)
    capsys.readouterr()
    disturbed = [*argv, *flags(out=tmp_path / "disturbed")]
    assert "disk trouble" in fails(disturbed, capsys)
    folder = tmp_path / "disturbed" / "run"
    assert [file.name for file in sorted((folder / "state").iterdir())] == [
        "step-00000001.pt",
        "step-00000002.pt",
    ]
    assert not list(folder.rglob("*.partial"))
    monkeypatch.undo()
    assert call(disturbed) == 0
    assert_same_bits(folder, tmp_path / "undisturbed" / "run", "backbone.safetensors")


def test_a_missing_package_points_to_the_doctor(capsys, monkeypatch):
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(importlib.import_module("mae_bench.pretrain"), "pretrain", broken)
    assert "mae-bench doctor" in fails(["pretrain"], capsys)


def test_python_functions_have_the_names_of_the_commands():
    for name in mae_bench.__all__:
        assert callable(getattr(mae_bench, name))
