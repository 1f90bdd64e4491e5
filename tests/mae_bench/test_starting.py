"""From one command to the next: the weights, the backbone and the protocol that a user leaves open.

The three commands of the front page in a row, and what each says of what it chose.
"""

import inspect
import json
import multiprocessing
import shutil
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from small_runs import SMALL, SMALL_MAE, flags

import mae_bench
from mae_bench.cli import COMMANDS, call, parse
from mae_bench.commands.pretrain import transfer_data
from mae_bench.errors import RunError
from mae_bench.starting import located, settle
from results import parse_record

FEW = {**SMALL, "epochs": 1}
SMALL_T = {**SMALL_MAE, "image_size": 32, "min_crop_area": 0.5}


@pytest.fixture
def out(pretrained: Path, tmp_path: Path) -> Path:
    """A folder of runs with one finished pre-training, in the place of the user's."""
    shutil.copytree(pretrained, tmp_path / "runs" / "pre")
    return tmp_path / "runs"


def finished_at(folder: Path, year: int, backbone: str | None = None) -> Path:
    """A run that finished on another day."""
    file = folder / "record.json"
    record = json.loads(file.read_text())
    record["started"] = record["finished"] = datetime(year, 1, 1, tzinfo=UTC).isoformat()
    file.write_text(json.dumps(record | ({"backbone": backbone} if backbone else {})))
    return folder


def last_line(capsys) -> str:
    return capsys.readouterr().out.splitlines()[-1]


def test_the_three_commands_of_the_front_page(world, tmp_path, capsys, monkeypatch) -> None:
    """Each ends with the next one, and the second trains what the first has made."""
    out, common = tmp_path / "runs", {"out": tmp_path / "runs", "backbone": "vit_t", "workers": 0}
    assert call(["pretrain", *flags(data=world / "unlabelled", **common, **SMALL_T)]) == 0
    pre = out / "pretrain-vit_t-seed0"
    assert last_line(capsys).startswith(f"next       mae-bench transfer --checkpoint {pre} --data ")
    argv = ["transfer", *flags(data=world / "imagenet1k", **common, **FEW, image_size=32)]
    monkeypatch.setattr(sys, "argv", ["mae-bench", *argv])
    assert call(argv) == 0
    said = capsys.readouterr().out
    line = f"weights: {pre}/backbone.safetensors (the newest finished pre-training of vit_t in"
    assert line in said
    assert f"--checkpoint {pre}/backbone.safetensors  (seed 0, recipe" in said
    assert said.splitlines()[-1] == f"next       mae-bench report --runs {out}"
    (run,) = out.glob("imagenet1k-*")
    record = parse_record((run / "record.json").read_bytes())
    assert (record.backbone, record.init) == ("vit_t", "mae")
    before = parse_record((pre / "record.json").read_bytes())
    assert record.checkpoint.recipe_hash == before.recipe_hash
    start = load_file(pre / "backbone.safetensors")
    trained = load_file(run / "model.safetensors")
    drift = (trained["backbone.cls_token"] - start["cls_token"]).abs().max()
    assert drift < 1e-2  # it did start there, after so few steps
    assert call(["report", *flags(runs=out)]) == 0
    assert last_line(capsys) == f"next       mae-bench runs list --runs {out}"


def test_the_newest_finished_pretraining_of_a_backbone(out: Path) -> None:
    finished_at(out / "pre", 2020)
    finished_at(Path(shutil.copytree(out / "pre", out / "later")), 2022)
    finished_at(Path(shutil.copytree(out / "pre", out / "other")), 2024, "vit_t")
    broken = Path(shutil.copytree(out / "pre", out / "broken"))
    (broken / "record.json").write_text("{")
    emptied = finished_at(Path(shutil.copytree(out / "pre", out / "emptied")), 2025)
    (emptied / "backbone.safetensors").unlink()
    found = settle("coco", None, "vit_mini", None, None, out)
    assert found.checkpoint == out / "later" / "backbone.safetensors"
    assert found.said == (
        f"weights: {found.checkpoint} (the newest finished pre-training of vit_mini in {out})",
    )
    assert settle("coco", None, None, None, None, out).checkpoint.parent.name == "other"
    labelled = settle("coco", None, "vit_mini", None, "mine", out)
    assert (labelled.checkpoint, labelled.init) == (found.checkpoint, "mine")
    assert labelled.said[-1].startswith("--init mine: their label in tables (released are mae, ")
    assert settle("coco", None, "vit_mini", None, "scratch", out).checkpoint is None


def test_where_there_are_no_weights_it_says_what_would_do(out: Path) -> None:
    shutil.copytree(out / "pre", out / "pretrain-vit_b-seed0")
    (out / "pretrain-vit_b-seed0" / "record.json").unlink()
    with pytest.raises(RunError) as refused:
        settle("coco", None, "vit_b", None, None, out)
    assert str(refused.value) == (
        f"--protocol mask_rcnn-vitdet needs --checkpoint FILE: there is no finished pre-training "
        f"of vit_b in {out} ({out}/pretrain-vit_b-seed0 is not finished); what would do: mae-bench "
        f"pretrain --backbone vit_b; --checkpoint {out}/pre (vit_mini); --init mae or moco_v3 or "
        "beit or dino or supervised (released weights); to start from random weights: "
        "--init scratch"
    )


def test_a_checkpoint_is_a_file_a_folder_or_a_name(out: Path, monkeypatch) -> None:
    file = out / "pre" / "backbone.safetensors"
    assert located(file, out) == (file, ())
    line = (f"weights: {file}",)
    assert located(out / "pre", "/nowhere") == (file, line)
    assert located("pre", out) == (file, line)
    assert located("pre", out, whole=True)[0] == out / "pre" / "mae.safetensors"
    assert located("hf:some/one", out) == ("hf:some/one", ())
    with pytest.raises(RunError, match=r"no such file, and no run in .*; did you mean pre\?"):
        located("prf", out)
    with pytest.raises(RunError, match=r"no such file$"):
        located(out / "x.pth", out)
    (out / "pre" / "record.json").unlink()
    with pytest.raises(RunError, match="is the folder of a run that is not finished"):
        located("pre", out)


def test_a_run_is_an_identity_as_its_file_is(out: Path, world: Path, tmp_path: Path) -> None:
    """By name or by file it is one run; what another file holds is another one."""
    common = {"data": world / "imagenet1k", "out": out, "protocol": "linear", "name": "x", **FEW}
    record = mae_bench.transfer(checkpoint="pre", **common)
    assert mae_bench.transfer(checkpoint=out / "pre" / "backbone.safetensors", **common) == record
    assert mae_bench.transfer(**common) == record
    again = {**SMALL_MAE, "epochs": 1, "checkpoint": "pre", "name": "pre2", "out": out}
    after = mae_bench.pretrain(data=world / "unlabelled", **again)
    assert after.checkpoint.file == "mae.safetensors"
    with pytest.raises(RunError, match=r"holds a different run \(.*sha256"):
        mae_bench.transfer(**common)  # the newest is another one now


def test_what_a_transfer_trained_is_a_checkpoint_too(out: Path, world: Path) -> None:
    common = {"data": world / "imagenet1k", "out": out, "protocol": "linear", **FEW}
    mae_bench.transfer(checkpoint="pre", name="first", **common)
    second = mae_bench.transfer(checkpoint="first", name="second", **common)
    assert (second.backbone, second.checkpoint.file) == ("vit_mini", "model.safetensors")


@pytest.mark.parametrize("kept", ["own word", "tensors alone"])
def test_a_checkpoint_says_its_backbone(kept: str, pretrained: Path, tmp_path: Path) -> None:
    file = pretrained / "backbone.safetensors"
    if kept == "tensors alone":
        torch.save({"model": load_file(file)}, tmp_path / "a.pth")
        file = tmp_path / "a.pth"
    begun = settle("ade20k", None, None, file, None, tmp_path)
    assert begun.backbone == "vit_mini"
    assert begun.said == ("backbone: vit_mini, as the checkpoint says",)


def test_a_backbone_that_nothing_tells(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"--init mae: of which size\? Give --backbone, one of vit_"):
        settle("coco", None, None, None, "mae", tmp_path)


@pytest.mark.parametrize(
    ("task", "words", "protocol", "init"),
    [
        ("imagenet1k", {"init": "scratch"}, "scratch", "scratch"),
        ("imagenet1k", {"init": "scratch", "protocol": "finetune"}, "scratch", "scratch"),
        ("imagenet1k", {"protocol": "scratch"}, "scratch", None),
        ("imagenet1k", {"protocol": "knn", "init": "scratch"}, "knn", "scratch"),
        ("coco", {"init": "scratch"}, "mask_rcnn-vitdet", "scratch"),
        ("coco", {"protocol": "scratch"}, "mask_rcnn-vitdet", "scratch"),
        ("ade20k", {"protocol": "scratch", "init": "scratch"}, "upernet-512-160k", "scratch"),
    ],
)
def test_scratch_is_one_word(task, words, protocol, init, tmp_path) -> None:
    given = {"protocol": None, "backbone": None, "checkpoint": None, "init": None} | words
    begun = settle(task, **given, out=tmp_path)
    assert begun.choice == (protocol, "vit_mini", None, init)


def test_init_scratch_shows_and_trains_the_recipe_of_scratch(world, tmp_path, capsys) -> None:
    with pytest.raises(SystemExit):
        call(["transfer", "--init", "scratch", "--backbone", "vit_h", "--help"])
    assert "[MAE Table 11]" in capsys.readouterr().out
    argv = ["transfer", *flags(data=world / "imagenet1k", out=tmp_path, init="scratch", **FEW)]
    assert call(argv) == 0
    assert "--init scratch: protocol scratch of imagenet1k" in capsys.readouterr().out
    assert (tmp_path / "imagenet1k-scratch-vit_mini-scratch-seed0" / "record.json").exists()


def test_one_epoch_scales_the_warmup_and_says_so(world: Path, tmp_path: Path, capsys) -> None:
    argv = ["transfer", *flags(data=world / "imagenet1k", out=tmp_path, protocol="scratch")]
    assert call([*argv, *flags(epochs=1, batch_size=8, device_batch=4)]) == 0
    (record,) = (parse_record(file.read_bytes()) for file in tmp_path.rglob("record.json"))
    base = mae_bench.recipes.recipe("imagenet1k", "vit_mini", "scratch")
    assert record.recipe["warmup_epochs"] == base.warmup_epochs / base.epochs
    changed = next(line for line in record.deviations if line.startswith("warmup_epochs"))
    assert changed in capsys.readouterr().out.partition("differs from imagenet1k/scratch@1: ")[2]
    kept = mae_bench.recipes.override(base, {"epochs": base.epochs - 1})
    assert kept.warmup_epochs == base.warmup_epochs  # where it fits it stays


def test_forgotten_data_are_the_miniature_world_in_bold(monkeypatch, world, capsys) -> None:
    from mae_bench import data

    shown = []
    monkeypatch.setattr(data, "say", lambda text, style=None: shown.append((text, style)))
    assert data.announce(world / "imagenet1k")
    assert not data.announce(Path("/data/imagenet"))
    (first, bold), (_, plain) = shown
    assert "the built-in miniature world" in first
    assert "--data DIR" in first
    assert (bold, plain) == ("bold", None)


def test_plan_ends_with_the_suite_of_the_same_words() -> None:
    argv = ["table-4", "--backbone", "vit_b", "vit_l", "--data-root", "/data", "--seeds", "3"]
    argv += ["--pretrain-overrides", "epochs=5", "--released", "--workers", "4"]
    suite = parse(["suite", *argv])
    assert parse(["suite", *map(str, suite.words())]) == suite
    assert parse(["plan", "table-4"]).words() == ["table-4"]


def test_pretraining_on_class_folders_leads_to_their_task(world, tmp_path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
    assert transfer_data(str(tmp_path)) == ["--task", "folder", "--data", str(tmp_path)]
    official = str(world / "imagenet1k")
    assert transfer_data(official) == ["--data", official]
    assert transfer_data(str(world / "unlabelled")) == ["--data", "DIR"]
    assert transfer_data("mini") == []


def test_good_data_without_weights_lead_to_weights(world, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert call(["data", "check", "imagenet1k", "--root", str(world / "imagenet1k")]) == 0
    assert last_line(capsys) == "next       mae-bench weights get mae/vit_b"


def test_every_command_ends_with_the_next_one() -> None:
    """Each command's `run` says it; this one sees that none is forgotten."""
    groups = [[kind] if isinstance(kind, type) else kind[1].values() for kind in COMMANDS.values()]
    lacking = [
        f"{kind.__module__}.{kind.__name__}"
        for group in groups
        for kind in group
        if "go_on(" not in inspect.getsource(kind.run)
    ]
    assert lacking == []


@pytest.mark.parametrize("command", ["transfer", "pretrain", "suite", "plan"])
def test_a_folder_for_sockets_that_is_too_long_is_said(world, tmp_path, fork, command):
    """Loading processes would send nothing, for ever: 108 bytes are the most (unix(7))."""
    long = tmp_path / ("x" * 100)
    long.mkdir()

    def before():
        multiprocessing.current_process()._config.pop("tempdir", None)
        tempfile.tempdir = str(long)

    words = {
        "transfer": ["--protocol", "scratch", "--data", str(world / "imagenet1k")],
        "pretrain": ["--data", str(world / "unlabelled")],
        "suite": ["quickstart"],
        "plan": ["quickstart"],
    }
    out = tmp_path / "runs"
    begun = fork([command, *words[command], "--out", str(out), "--device", "cpu"], before)
    assert begun.exit_code() == 2
    complaint = begun.said().splitlines()[-1]
    assert f"TMPDIR {long} is too long" in complaint
    assert "set a shorter one" in complaint
    assert "Traceback" not in begun.said()
    assert not out.exists()
