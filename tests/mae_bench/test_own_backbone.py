"""The walk through one's own backbone: the page's file and its commands, on a few images."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import flags

import backbones
from mae_bench.cli import call
from results import parse_record

PAGE = (Path(__file__).parents[2] / "docs" / "own_backbone.md").read_text()
COMMANDS = re.findall(r"^\$ mae-bench (transfer .*)$", PAGE, re.MULTILINE)
FEW: dict[str, Any] = {"epochs": 1, "batch_size": 4, "device_batch": 4, "workers": 0, "limit": 4}
DENSE = {**FEW, "image_size": 64, "epoch_images": "None"}
SMALL = {
    "imagenet1k": {**FEW, "image_size": 32},
    "coco": {**DENSE, "pyramid_channels": 8, "box_head_dim": 16, "proposals": 10, "roi_batch": 8},
    "ade20k": {**DENSE, "stride": 42, "head_channels": 8, "aux_channels": 8},
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch) -> Path:
    """A folder with the page's file and weights for images of 32 pixels."""
    (code,) = re.findall(r"```python title=\"my_vits.py\"\n(.*?)```", PAGE, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    Path("my_vits.py").write_text(code)
    torch.manual_seed(0)
    state = backbones.create("my_vits.py:my_vit", 32).state_dict()
    torch.save({f"module.{key}": value for key, value in state.items()}, "my_weights.pth")
    return tmp_path


def test_the_page_has_commands_for_each_kind_of_task() -> None:
    assert [re.findall("--task ([a-z0-9]+)", each) for each in COMMANDS] == [
        [], [], ["coco"], ["ade20k"]
    ]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_page(command, place, world, coco_world, ade20k_world, capsys) -> None:
    (task,) = re.findall("--task ([a-z0-9]+)", command) or ["imagenet1k"]
    data = {"imagenet1k": world, "coco": coco_world, "ade20k": ade20k_world}[task] / task
    changes = SMALL[task] | ({"image_size": 64} if "448" in command else {})
    assert call([*shlex.split(command), *flags(data=data, **changes)]) == 0
    said = capsys.readouterr().out
    assert "100% of the parameters of my_vit" in " ".join(said.split())
    assert ("by its resize_tensor()" in said) == (changes["image_size"] != 32)
    (file,) = Path("runs").glob("*/record.json")
    record = parse_record(file.read_bytes())
    assert record.backbone == "my_vits.py:my_vit"
    assert "my_vits-my_vit" in file.parent.name


@pytest.mark.parametrize("flag", ["--compile", "--checkpoint-activations"])
def test_what_is_for_our_own_blocks_is_refused(flag, place: Path, world: Path, capsys) -> None:
    argv = [*shlex.split(COMMANDS[0]), *flags(data=world / "imagenet1k", **SMALL["imagenet1k"])]
    assert call([*argv, flag]) == 2
    said = capsys.readouterr().err
    assert f"{flag}: the blocks of my_vits.py:my_vit are its own (Block)" in said
    assert said.count("\n") == 1
    assert not Path("runs").exists()


def test_changed_code_is_another_run(place: Path, world: Path, capsys) -> None:
    argv = [*shlex.split(COMMANDS[0]), *flags(data=world / "imagenet1k", **SMALL["imagenet1k"])]
    assert call(argv) == 0
    file = Path("my_vits.py")
    file.write_text(file.read_text() + "# another thought\n")
    from backbones import plugin

    plugin.FILES.clear()
    assert call(argv) == 2
    assert "holds a different run (backbone_code" in capsys.readouterr().err
