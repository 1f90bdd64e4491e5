"""What a call is given: contradictions and slips are refused at once, by Python calls as well."""

import math
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_runs import SMALL, flags

import mae_bench
from mae_bench.arguments import refuse_label
from mae_bench.cli import call
from mae_bench.errors import RunError
from mae_bench.execution import Execution

TRANSFER = "transfer --data /nowhere"
WRONG = [
    # weights that are given and random ones that are asked for
    (f"{TRANSFER} --checkpoint x --init scratch", "--init scratch is the name of random weights"),
    (f"{TRANSFER} --checkpoint x --init Scratch --protocol linear", "the name of random weights"),
    (f"{TRANSFER} --checkpoint x --init scratch --protocol partial:all", "name of random weights"),
    (f"{TRANSFER} --checkpoint x --protocol scratch", "leave out --checkpoint"),
    (f"{TRANSFER} --init scratch", "--data /nowhere: no such folder"),
    (f"{TRANSFER} --init scratch --protocol linear", "--init scratch is the name of random"),
    (f"{TRANSFER} --task coco --protocol scratch --init mae", "leave out --init mae"),
    (f"{TRANSFER} --init mae --protocol scratch", "leave out --init mae"),
    (f"{TRANSFER} --init mine --protocol scratch", "leave out --init mine"),
    (f"{TRANSFER} --task coco --checkpoint x --init scratch", "leave out --checkpoint"),
    (f"{TRANSFER} --task coco --init mine", "needs --checkpoint FILE: there is no"),
    (f"{TRANSFER} --task ade20k --init SCRATCH", "is the name of random weights"),
    (f"{TRANSFER} --protocol knn --checkpoint x --init scratch", "leave out --checkpoint"),
    (f"{TRANSFER} --protocol scratch --format mae", "--format: there is no checkpoint to read"),
    (f"{TRANSFER} --task coco --init scratch --allow-pickle", "--allow-pickle: there is no check"),
    (f"{TRANSFER} --protocol knn --init scratch --compile", "--compile: --protocol knn trains no"),
    (f"{TRANSFER} --protocol knn --init scratch --epochs 3", "does not take --epochs 3"),
    # words
    (f"{TRANSFER} --protocol=", "--protocol is empty"),
    (f"{TRANSFER} --init  --checkpoint x", "--init is empty"),
    (f"{TRANSFER} --backbone ", "--backbone is empty"),
    (f"{TRANSFER} --task=", "--task is empty"),
    ("pretrain --out ", "--out is empty"),
    ("pretrain --data=", "--data is empty"),
    ("pretrain --name ", "run name '': expected the name of one folder"),
    ("report --runs=", "--runs is empty"),
    ("report --output ", "--output is empty"),
    ("runs show ", "a word is empty"),
    ("quickstart --out ", "--out is empty"),
    # names
    ("pretrain --name features", "run name 'features' is the folder of the features that probes"),
    ("pretrain --name .hidden", "begins with a dot"),
    (f"{TRANSFER} --protocol scratch --name x.zip", "ends as a file of a report or of a packed"),
    (f"{TRANSFER} --protocol scratch --name a/b", "expected the name of one folder"),
    # numbers of a call
    (f"{TRANSFER} --protocol scratch --limit 0", "limit is 0; expected at least 1 image"),
    (f"{TRANSFER} --protocol scratch --limit -5", "limit is -5; expected at least 1 image"),
    (f"{TRANSFER} --protocol scratch --limit 9999999999999", "limit is 9999999999999; expected"),
    ("pretrain --seed -1", "seed is -1; expected a whole number from 0"),
    ("pretrain --seed 4294967296", "seed is 4294967296; expected"),
    ("pretrain --workers -1", "workers is -1; expected a whole number, 0 or more"),
    ("pretrain --workers 99999999", "workers is 99999999; expected"),
    ("pretrain --save-minutes nan", "save_minutes is nan; expected 0 or more"),
    ("pretrain --save-minutes inf", "save_minutes is inf; expected 0 or more"),
    ("pretrain --max-bad-images -1", "max_bad_images is -1; expected a whole number"),
    # numbers of a recipe
    ("pretrain --epochs 99999999999999999999", "epochs is 99999999999999999999; expected"),
    ("pretrain --base-lr 0", "base_lr is 0.0; expected above 0"),
    ("pretrain --base-lr -1e-3", "base_lr is -0.001; expected above 0"),
    ("pretrain --weight-decay inf", "recipe field weight_decay is inf"),
    ("pretrain --image-size 99999999", "image_size is 99999999; expected"),
    ("pretrain --batch-size 0", "batch_size is 0; expected"),
    (f"{TRANSFER} --task coco --init scratch --patch-size 0", "patch_size is 0; expected"),
    (
        f"{TRANSFER} --task coco --init scratch --anchor-sizes -8 16 32 64 128",
        "anchor_sizes is (-8",
    ),
    (f"{TRANSFER} --task coco --init scratch --window-size 0", "window_size is 0; expected"),
    (f"{TRANSFER} --task coco --init scratch --min-scale 0", "min_scale is 0.0; expected"),
    (f"{TRANSFER} --task ade20k --init scratch --stride 0", "stride is 0; expected"),
    (f"{TRANSFER} --task ade20k --init scratch --test-scales 0", "test_scales is (0.0,); expected"),
    (f"{TRANSFER} --protocol scratch --label-smoothing 1", "label_smoothing is 1.0; expected"),
    (f"{TRANSFER} --protocol scratch --rand-augment rand-n99999", "rand_augment is"),
    (f"{TRANSFER} --protocol scratch --trained-blocks 9", "a whole number of blocks up to 4"),
    # what contradicts itself, or says nothing
    ("runs prune --yes --no-yes --runs /nowhere", "--yes and --no-yes contradict each other"),
    ("pretrain --norm_pix --no-norm-pix", "--norm-pix and --no-norm-pix contradict each other"),
    ("report --compare a", "--compare: expected ONE OTHER"),
    ("report --formats --runs /nowhere", "--formats names none"),
    ("evaluate /nowhere --on imagenet_a --limit 0", "limit is 0; expected at least 1 image"),
    ("evaluate /nowhere --on imagenet_a --name features", "run name 'features' is the folder"),
    ("quickstart --seed -1", "seed is -1; expected"),
    (f"{TRANSFER} --protocol partial:01 --checkpoint x", "protocol partial:01: expected partial:K"),
    (f"{TRANSFER} --protocol partial:2.0 --checkpoint x", "protocol partial:2.0: expected"),
    (f"{TRANSFER} --protocol partial:1e0 --checkpoint x", "protocol partial:1e0: expected"),
    # files and folders
    ("transfer --checkpoint /nowhere/x.pth", "checkpoint /nowhere/x.pth: no such file"),
    ("pretrain --data /nowhere", "--data /nowhere: no such folder"),
    (f"{TRANSFER} --protocol scratch", "--data /nowhere: no such folder"),
]


@pytest.mark.parametrize(("line", "said"), WRONG)
def test_refused_before_anything_is_done(line, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert call(line.split(" ")) == 2
    told = capsys.readouterr().err
    assert told.startswith("mae-bench: error: ")
    assert said in told
    assert told.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_refused_before_torch_is_imported():
    """All of them in one process, which is quick because of that."""
    code = (
        "import sys; from mae_bench.cli import call\n"
        f"codes = [call(line.split(' ')) for line in {[line for line, _ in WRONG]!r}]\n"
        "sys.exit(codes != [2] * len(codes) or 'torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"protocol": "scratch", "limit": 0}, "limit is 0"),
        ({"protocol": "scratch", "limit": True}, "limit is True"),
        ({"protocol": "scratch", "limit": 1.5}, "limit is 1.5"),
        ({"protocol": "scratch", "seed": True}, "seed is True"),
        ({"protocol": "scratch", "name": "features"}, "features"),
        ({"protocol": "scratch", "name": ""}, "one folder"),
        ({"protocol": "scratch", "out": ""}, "--out is empty"),
        ({"protocol": "scratch", "data": " "}, "--data is empty"),
        ({"checkpoint": ""}, "--checkpoint is empty"),
        ({"checkpoint": "x", "init": ""}, "--init is empty"),
        ({"checkpoint": "x", "init": "two\nlines"}, "a short name on one line"),
        ({"checkpoint": "x", "init": "scratch"}, "name of random weights"),
        ({"protocol": "scratch", "epochs": 10**20}, "epochs is 1000"),
        ({"protocol": "scratch", "epochs": True}, "epochs is True"),
        ({"protocol": "scratch", "base_lr": 0}, "base_lr is 0"),
    ],
)
def test_the_python_call_refuses_the_same(given, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunError, match=said) as refused:
        mae_bench.transfer(**given)
    assert "\n" not in str(refused.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("given", [{"name": ".x"}, {"out": " "}, {"seed": -1}, {"epochs": 0}])
def test_pretraining_refuses_the_same(given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunError, match=r"expected|is empty|begins with"):
        mae_bench.pretrain(**given)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "given",
    [
        {"workers": True},
        {"workers": 1.5},
        {"workers": -1},
        {"save_minutes": math.inf},
        {"save_minutes": "3"},
        {"max_bad_images": 10**12},
        {"compile": 1},
        {"device": "gpu"},
    ],
)
def test_execution(given):
    ((name, _),) = given.items()
    with pytest.raises(RunError, match=f"{name} is .*; expected"):
        Execution(**given)


@pytest.mark.parametrize(
    ("init", "told"),
    [
        ("mae", "moco_v3"),
        ("MAE", "beit"),
        ("MoCo v3", "mae"),
        ("supervised", "mae_full"),
        ("dino", "hf_mae"),
        ("scratch", "timm"),
        ("Scratch", None),
    ],
)
def test_a_label_that_the_file_contradicts(init, told):
    with pytest.raises(RunError, match=rf"^x\.pth: its run would be called '{init}'.*--init"):
        refuse_label(init, told, "x.pth")


@pytest.mark.parametrize(
    ("init", "told"),
    [("mae", "mae"), ("mae", "timm"), ("mae", None), ("mae-800ep", "beit"), ("MoCo-v3", "moco_v3")],
)
def test_a_label_that_nothing_contradicts(init, told):
    refuse_label(init, told, "x.pth")


def test_a_classifier_may_be_trained_from_scratch():
    refuse_label("scratch", "timm", "x.pth", classifier=True)


@pytest.mark.parametrize(
    ("named", "init"), [("mae.pth", "moco_v3"), ("dino_deitsmall16_pretrain.pth", None)]
)
def test_weights_of_one_method_under_the_name_of_another(
    named, init, pretrained: Path, world, tmp_path, capsys
):
    """Fixed positions tell MAE's weights, whatever the file is called."""
    torch.save({"model": load_file(pretrained / "backbone.safetensors")}, tmp_path / named)
    argv = ["transfer", *flags(data=world / "imagenet1k", out=tmp_path / "runs", **SMALL)]
    argv += flags(checkpoint=tmp_path / named, **({"init": init} if init else {}))
    assert call(argv) == 2
    said = capsys.readouterr().err
    assert f"its run would be called '{init or 'dino'}'" in said
    assert "it is mae" in said
    assert not (tmp_path / "runs").exists()


def test_a_file_called_scratch(pretrained: Path, world, tmp_path, capsys):
    shutil.copy(pretrained / "backbone.safetensors", tmp_path / "scratch.safetensors")
    vit = load_file(tmp_path / "scratch.safetensors")
    save_file(vit, tmp_path / "scratch.safetensors")  # without a word about its origin
    argv = ["transfer", *flags(data=world / "imagenet1k", out=tmp_path / "runs", **SMALL)]
    assert call([*argv, *flags(checkpoint=tmp_path / "scratch.safetensors")]) == 2
    assert "scratch.safetensors: its run would be called 'scratch'" in capsys.readouterr().err
