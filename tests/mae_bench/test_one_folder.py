"""Few images of one's own, from the folder to a score, and numbers that work where they are few."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from small_runs import flags

import mae_bench
from mae_bench.batches import MicroBatches, fitting
from mae_bench.cli import call
from mae_bench.errors import RunError
from mae_bench.recipes import override, recipe
from results import parse_record


@pytest.fixture
def photos(world: Path) -> Path:
    """One folder of class folders, without a test set."""
    return world / "imagenet1k" / "train"


@pytest.mark.parametrize("images", [1, 2, 3, 7, 24, 321, 1000])
@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize("named", [("pretrain", "vit_b", "mae"), ("coco", "vit_b", None)])
def test_the_proposed_numbers_work(images: int, processes: int, named) -> None:
    base = recipe(named[0], named[1], named[2] or "mask_rcnn-vitdet")
    if images >= base.batch_size:
        return
    with pytest.raises(RunError, match="fewer than the batch") as refused:
        MicroBatches(images, base, 0, 0, processes)
    proposed = str(refused.value).rpartition(": ")[2]
    if images < processes:
        assert "an image for each of" in proposed
        return
    words = proposed.split()
    numbers = {
        flag[2:].replace("-", "_"): int(n) for flag, n in zip(words[::2], words[1::2], strict=True)
    }
    changed = override(base, numbers)
    plan = MicroBatches(images, changed, 0, 0, processes)
    assert plan.steps_per_epoch >= 1
    assert changed.device_batch <= base.device_batch


def test_a_folder_without_its_flag(photos: Path, capsys) -> None:
    assert call(["transfer", "--task", "folder", str(photos)]) == 2
    said = capsys.readouterr().err
    assert f"does not take {photos}; did you mean --data {photos}?" in said


def test_a_folder_of_ones_own_classes_without_its_task(photos: Path, capsys) -> None:
    for task in ([], ["--task", "coco"]):
        argv = ["transfer", *task, "--data", str(photos), "--init", "scratch"]
        assert call(argv) == 2
        assert re.search(
            r"; if n\d+ and n\d+ are classes of your own: --task folder$",
            capsys.readouterr().err.strip(),
        )
    assert call(["transfer", "--data", str(next(photos.iterdir())), "--init", "scratch"]) == 2
    assert "--task folder" not in capsys.readouterr().err


def test_few_images_are_told_of_their_own_protocol() -> None:
    told = fitting(321, recipe("folder", "vit_b", "finetune"), 1)
    assert told == "--protocol small, or --batch-size 64 --device-batch 32"
    assert fitting(321, recipe("imagenet1k", "vit_b", "finetune"), 1).startswith("--batch-size")


def test_one_folder_is_split_trained_and_scored_again(photos: Path, tmp_path, capsys) -> None:
    argv = ["transfer", *flags(task="folder", data=photos, out=tmp_path, protocol="small")]
    argv += flags(init="scratch", epochs=2, batch_size=8, device_batch=8, workers=0)
    assert call(argv) == 0
    said = capsys.readouterr().out
    assert "note: one folder without train/ and val/: split by mae-bench" in said
    (folder,) = tmp_path.glob("folder-small-*")
    record = parse_record((folder / "record.json").read_bytes())
    assert record.protocol == "folder/small@1"
    assert any("split by mae-bench" in note for note in record.data_notes)
    tested = {
        line.split(",")[0] for line in (folder / "predictions.csv").read_text().splitlines()[1:]
    }
    assert len(tested) == record.data.val_images < record.data.train_images
    identity = json.loads((folder / "run.json").read_text())
    assert identity["data"]["fingerprint"] == record.data.fingerprint
    # Again, on the same images: never on those that it was trained on.
    again = mae_bench.evaluate(folder)
    assert again.data.val_images == len(tested)
    assert np.isclose(again.metrics["top1"], record.metrics["top1"])
    explicit = mae_bench.evaluate(folder, data=photos, name="explicit")
    assert explicit.data.val_images == len(tested)
