"""`mae-bench export` of detectors and of segmentation networks, read and used by others."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torchvision  # noqa: F401 (its operators are in the detector's program)
from PIL import Image
from test_again_dense import ADE20K, ALONE, COCO

import mae_bench
from mae_bench.cli import call
from mae_bench.errors import RunError
from tasks.errors import TaskError


def fitted(image: Image.Image, longest: int, shortest: int, antialias: bool) -> np.ndarray:
    """Resized until a side is as long as it may be. Pillow antialiases, OpenCV does not."""
    factor = min(longest / max(image.size), shortest / min(image.size))
    width, height = (int(side * factor + 0.5) for side in image.size)
    if antialias:
        return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
    return cv2.resize(np.asarray(image), (width, height), interpolation=cv2.INTER_LINEAR)


def window(pixels: np.ndarray, side: int, padding: tuple[int, int, int]) -> torch.Tensor:
    """uint8 (1, 3, side, side) of (h, w, 3)."""
    whole = np.empty((side, side, 3), np.uint8)
    whole[:] = padding
    whole[: pixels.shape[0], : pixels.shape[1]] = pixels
    return torch.from_numpy(whole).permute(2, 0, 1)[None].contiguous()


@pytest.mark.slow
def test_a_program_finds_the_runs_objects(coco_world: Path, tmp_path: Path, capsys) -> None:
    mae_bench.transfer(data=coco_world / "coco", out=tmp_path, **COCO)
    run, place = tmp_path / "run", tmp_path / "out"
    assert call(["export", str(run), "--to", "torch", "--output", str(place)]) == 0
    assert "import torchvision" in capsys.readouterr().out
    how = json.loads((place / "preprocessing.json").read_text())
    names = (place / "classes.txt").read_text().splitlines()
    program, side = torch.export.load(place / "model.pt2").module(), how["resize_longer_side"]
    images = sorted((coco_world / "coco" / "val2017").iterdir())[:3]
    rows = mae_bench.predict(run, images, tmp_path / "new", ALONE)
    assert sum(len(row["objects"]) for row in rows) > 10
    for row in rows:
        image = Image.open(row["file"]).convert("RGB")
        pixels = fitted(image, side, side, how["antialias"])
        size = torch.tensor(pixels.shape[:2])
        threshold = torch.tensor(how["score_threshold"])
        boxes, scores, labels, masks = program(window(pixels, side, (0, 0, 0)), size, threshold)
        count = int((scores > 0).sum())
        assert masks.shape == (len(scores), 28, 28)
        scale = torch.tensor([image.width / size[1], image.height / size[0]] * 2)
        boxes = (boxes * scale)[:count]
        kept = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
        found = [each["score"] for each in row["objects"]]
        assert scores[:count][kept].tolist() == pytest.approx(found, abs=1e-4)
        corners = torch.cat([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], dim=1)[kept]
        assert corners.numpy() == pytest.approx(
            np.array([each["bbox"] for each in row["objects"]]), abs=1e-2
        )
        assert [names[i] for i in labels[:count][kept]] == [e["class"] for e in row["objects"]]
    with pytest.raises(RunError, match="of coco are written as torch alone; expected --to torch"):
        mae_bench.export(run, "onnx", tmp_path / "no")
    refuse_what_finds_others(run, tmp_path)


def refuse_what_finds_others(run: Path, tmp_path: Path) -> None:
    from tasks.coco import exporting

    def nothing(*given: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return torch.zeros(100, 4), torch.zeros(100), torch.zeros(100).long(), torch.zeros(100, 1)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.export, "export", lambda *given, **more: None)
        patch.setattr(exporting, "write_program", lambda *given: ("", nothing))
        with pytest.raises(TaskError, match="finds other objects"):
            mae_bench.export(run, "torch", tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.mark.slow
@pytest.mark.parametrize("to", ["torch", "onnx"])
def test_a_program_gives_the_runs_label_maps(to, ade20k_world: Path, tmp_path: Path) -> None:
    mae_bench.transfer(data=ade20k_world / "ade20k", out=tmp_path, **ADE20K)
    place = mae_bench.export(tmp_path / "run", to, tmp_path / "out")
    how = json.loads((place / "preprocessing.json").read_text())
    if to == "torch":
        program = torch.export.load(place / "model.pt2").module()
    else:
        import onnxruntime

        session = onnxruntime.InferenceSession(place / "model.onnx")
        name = session.get_inputs()[0].name
        program = lambda x: torch.from_numpy(session.run(None, {name: x.numpy()})[0])  # noqa: E731
    (image,) = sorted((ade20k_world / "ade20k").rglob("validation/*.jpg"))[:1]
    (row,) = mae_bench.predict(tmp_path / "run", image, tmp_path / "new", ALONE)
    expected = np.asarray(Image.open(tmp_path / "new" / row["labels"]))
    opened = Image.open(image).convert("RGB")
    longest, shortest = how["resize_longest_side_at_most"], how["resize_shortest_side_at_most"]
    pixels = fitted(opened, longest, shortest, how["antialias"])
    side, stride = how["window"], how["stride"]
    height, width = (max(side, each) for each in pixels.shape[:2])
    count = torch.zeros(height, width)
    logits = torch.zeros(len((place / "classes.txt").read_text().splitlines()), height, width)
    for top in starts(height, side, stride):
        for left in starts(width, side, stride):
            part = pixels[top : top + side, left : left + side]
            found = program(window(part, side, (124, 116, 104)))[0]
            logits[:, top : top + side, left : left + side] += found
            count[top : top + side, left : left + side] += 1
    logits = (logits / count)[:, : pixels.shape[0], : pixels.shape[1]]
    wide = torch.nn.functional.interpolate(logits[None], expected.shape, mode="bilinear")
    assert (wide[0].argmax(0).numpy() == expected).mean() > 0.999


def starts(length: int, side: int, stride: int) -> list[int]:
    return sorted({min(first, length - side) for first in range(0, length, stride)})
