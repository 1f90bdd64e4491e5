"""Runs of COCO and ADE20K scored again: as they are, interrupted, on other test images."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import mae_bench
from mae_bench.errors import RunError
from mae_bench.execution import Execution
from results import Record
from tasks import TaskError
from tasks.ade20k.task import Ade20k
from tasks.coco.task import Coco
from tasks.task import Scored

ALONE = Execution(workers=0, device="cpu", save_minutes=0)
COMMON: dict[str, Any] = {
    "epochs": 1, "warmup_epochs": 0.5, "device_batch": 4, "init": "scratch", "name": "run",
    "execution": ALONE,
}  # fmt: skip
COCO: dict[str, Any] = COMMON | {
    "task": "coco", "batch_size": 8, "image_size": 64, "pyramid_channels": 8, "box_head_dim": 16,
    "rpn_batch": 16, "roi_batch": 8, "rpn_candidates": (20, 20), "proposals": 10,
}  # fmt: skip
ADE20K: dict[str, Any] = COMMON | {
    "task": "ade20k", "batch_size": 8, "image_size": 32, "stride": 21, "head_channels": 8,
    "aux_channels": 8,
}  # fmt: skip


@pytest.fixture(scope="module")
def coco(coco_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data to read and the finished run `run` beside them; for reading only."""
    root = tmp_path_factory.mktemp("again_coco")
    shutil.copytree(coco_world / "coco", root / "data")
    mae_bench.transfer(data=root / "data", out=root, **COCO)
    return root


def again(run: Path, out: Path, **how: Any) -> Record | None:
    return mae_bench.evaluate(run, out=out, execution=ALONE, **how)


def changed(root: Path, out: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    """The test json alone, changed, beside links to its images."""
    content = json.loads((root / "data/annotations/instances_val2017.json").read_text())
    change(content)
    out.mkdir(exist_ok=True)
    (out / "images").symlink_to(root / "data/val2017")
    (out / "own.json").write_text(json.dumps(content))
    return out / "own.json"


def changed_place(file: Path, out: Path) -> Path:
    """A copy of a test json beside a link to its images."""
    (out / "images").symlink_to(file.parent.parent / "val2017")
    return Path(shutil.copy(file, out / "own.json"))


def no_outlines(content: dict[str, Any]) -> None:
    for each in content["annotations"]:
        each.pop("segmentation")
        each["iscrowd"] = 0


def other_ids(content: dict[str, Any]) -> None:
    """The same classes by other ids, in another order."""
    for each in (*content["categories"], *content["annotations"]):
        key = "id" if "name" in each else "category_id"
        each[key] = 1000 - each[key]


def test_a_coco_test_file_alone_scores_as_the_whole_data(coco, tmp_path, capsys):
    own = again(coco / "run", tmp_path)
    assert own is not None
    assert "scored on" not in " ".join(own.deviations)  # unchanged data are no other test set
    file = changed(coco, tmp_path / "alone", other_ids)
    found = again(coco / "run", tmp_path, data=file)
    assert found is not None
    assert found.metrics == pytest.approx(own.metrics)
    assert (found.data.train_images, found.data.val_images) == (0, 8)
    assert found.deviations[-1] == "the weights of run, scored again"  # ids are no difference
    ids = {each["category_id"] for each in json.loads(predictions(tmp_path, found))}
    assert min(ids) > 900


def predictions(out: Path, record: Record) -> str:
    return (out / record.name / "predictions.json").read_text()


def test_coco_boxes_are_scored_by_a_network_with_masks(coco, tmp_path):
    found = again(coco / "run", tmp_path, data=changed(coco, tmp_path / "boxes", no_outlines))
    assert found is not None
    assert {name[:6] for name in found.metrics} == {"ap_box"}
    assert "boxes alone are scored: the test data lack outlines" in found.deviations


@pytest.mark.parametrize("lacking", ["key", "rows"])
def test_coco_without_annotations_gives_predictions_and_no_record(coco, tmp_path, capsys, lacking):
    def change(content: dict[str, Any]) -> None:
        content.pop("annotations") if lacking == "key" else content["annotations"].clear()

    assert again(coco / "run", tmp_path, data=changed(coco, tmp_path / "bare", change)) is None
    assert "not labelled: predictions without scores are in" in capsys.readouterr().out
    (kept,) = tmp_path.glob("*/predictions.json")
    assert isinstance(json.loads(kept.read_text()), list)
    assert not (kept.parent / "record.json").exists()


def test_coco_of_other_classes_is_refused(coco, tmp_path):
    def change(content: dict[str, Any]) -> None:
        content["categories"][0]["name"] = "stranger"

    with pytest.raises(TaskError, match="does not list 1 of the 10 classes that were learnt"):
        again(coco / "run", tmp_path, data=changed(coco, tmp_path / "other", change))


def test_coco_boxes_alone_learnt_are_no_match_for_outlines(coco, tmp_path):
    shutil.copytree(coco / "data", tmp_path / "data")
    for file in (tmp_path / "data/annotations").iterdir():
        content = json.loads(file.read_text())
        no_outlines(content)
        file.write_text(json.dumps(content))
    mae_bench.transfer(data=tmp_path / "data", out=tmp_path, **COCO)
    with pytest.raises(TaskError, match="has outlines, and the run was trained on boxes alone"):
        again(tmp_path / "run", tmp_path, data=coco / "data")


def test_a_changed_training_set_is_not_called_another_test_set(coco, tmp_path):
    shutil.copytree(coco / "data", tmp_path / "data")
    file = tmp_path / "data/annotations/instances_train2017.json"
    content = json.loads(file.read_text())
    content["annotations"].pop()
    file.write_text(json.dumps(content))
    found = again(coco / "run", tmp_path, data=tmp_path / "data")
    assert found is not None
    assert found.deviations[-1] == "the weights of run, scored again"


@pytest.mark.parametrize(("kind", "options"), [(Coco, COCO), (Ade20k, ADE20K)])
def test_interrupted_runs(kind, options, coco_world, ade20k_world, tmp_path, monkeypatch):
    """Scored as far as they came, and then, when all is trained, in their own folder."""
    world = coco_world if kind is Coco else ade20k_world
    data = {"data": world / options["task"], "out": tmp_path}
    with monkeypatch.context() as patch:
        patch.setattr(kind, "evaluate", lambda self, how: Scored({}))
        with pytest.raises(RunError, match="no score is defined"):
            mae_bench.transfer(**options, **data)
    file = max((tmp_path / "run/state").glob("step-*.pt"))
    state = torch.load(file, weights_only=True)
    torch.save({**state, "step": 1}, file)
    part = again(tmp_path / "run", tmp_path)
    assert part is not None
    assert not part.complete
    assert part.deviations[-1] == f"training interrupted after step 1 of {state['step']}"
    torch.save(state, file)
    if kind is Coco:  # whose record would not be that of the whole data
        alone = world / "coco/annotations/instances_val2017.json"
        beside = again(tmp_path / "run", tmp_path, data=changed_place(alone, tmp_path))
        assert beside is not None
        assert beside.name != "run"
    whole = again(tmp_path / "run", tmp_path)
    assert whole is not None
    assert whole.complete
    assert whole.name == "run"
    assert whole.metrics == part.metrics


def test_ade20k_finished_and_without_labels(ade20k_world, tmp_path, capsys):
    first = mae_bench.transfer(data=ade20k_world / "ade20k", out=tmp_path, **ADE20K)
    same = again(tmp_path / "run", tmp_path)
    assert same is not None
    assert same.metrics == first.metrics
    bare = tmp_path / "bare"
    shutil.copytree(
        ade20k_world / "ade20k/ADEChallengeData2016/images/validation", bare / "images/validation"
    )
    shutil.copy(ade20k_world / "ade20k/ADEChallengeData2016/objectInfo150.txt", bare)
    assert again(tmp_path / "run", tmp_path, data=bare, name="bare-run") is None
    assert "not labelled: predictions without scores are in" in capsys.readouterr().out
    kept = sorted(file.name for file in (tmp_path / "bare-run/predictions").iterdir())
    assert kept == sorted(file.name for file in (tmp_path / "run/predictions").iterdir())
    for name in kept:
        both = [(tmp_path / run / "predictions" / name).read_bytes() for run in ("run", "bare-run")]
        assert both[0] == both[1]
    assert not (tmp_path / "bare-run/record.json").exists()
