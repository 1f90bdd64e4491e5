"""mIoU against mmsegmentation's metric and a count by hand; each image once over processes."""

import csv
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from ade20k_world import draw, few_images
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from tasks.ade20k import evaluation, layout
from tasks.ade20k.data import EvalImages
from tasks.ade20k.evaluation import Scored, Views, areas, figures, score
from tasks.task import Scoring

SCALE = (384, 96)
COUNT = 5
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = draw(tmp_path_factory.mktemp("drawn"), COUNT)
    return few_images(source, tmp_path_factory.mktemp("few") / "ade20k", COUNT)


class Oracle:
    """The truth, of which a share of the pixels is moved to another class."""

    def __init__(self, data: layout.SegmentationData, spoilt: float) -> None:
        self.data, self.spoilt = data, spoilt
        images = EvalImages(data, SCALE)
        items = [images[index] for index in range(len(images))]
        self.known = {item["image"].long().sum().item(): item["index"] for item in items}
        self.labels = [item["label"] for item in items]

    def __call__(self, views: list[Tensor], size: tuple[int, ...]) -> Tensor:
        index = self.known[views[0].long().sum().item()]
        return self.predicted(index)

    def predicted(self, index: int) -> Tensor:
        rng = np.random.default_rng(index)
        labels = self.labels[index].numpy().copy()
        labels[labels == 255] = 3
        moved = rng.random(labels.shape) < self.spoilt
        labels[moved] = (labels[moved] + 1) % len(self.data.classes)
        return torch.from_numpy(labels)


def run(data: layout.SegmentationData, spoilt: float, **changes: Any) -> Scored:
    how = Scoring(**{"workers": 0} | changes)
    return score(Oracle(data, spoilt), Views([EvalImages(data, SCALE)]), data, CPU, how)


def test_the_truth_itself_scores_100(folder):
    assert run(layout.read(folder), 0.0).metrics == {"miou": 100, "macc": 100, "aacc": 100}


def test_metrics_are_those_of_mmsegs_iou_metric(folder, monkeypatch):
    """Its whole class, from predictions to the rounded summary."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mmseg.evaluation.metrics import IoUMetric
    monkeypatch.setattr("mmseg.evaluation.metrics.iou_metric.print_log", lambda *_, **__: None)
    data = layout.read(folder)
    oracle = Oracle(data, 0.3)
    metric = IoUMetric()
    metric.dataset_meta = {"classes": data.classes}
    for index, labels in enumerate(oracle.labels):
        maps = {"pred_sem_seg": oracle.predicted(index)[None], "gt_sem_seg": labels[None]}
        metric.process({}, [{name: {"data": value} for name, value in maps.items()}])
    expected = metric.compute_metrics(metric.results)
    found = run(data, 0.3).metrics
    assert {name: round(value, 2) for name, value in found.items()} == pytest.approx(
        {name.lower(): float(value) for name, value in expected.items()}, abs=0.0101
    )
    assert 20 < found["miou"] < 90


def test_figures_by_hand():
    """Class 2 is only predicted, class 3 occurs nowhere: its figures are not defined."""
    areas = torch.tensor([[6, 2, 0, 0], [10, 4, 1, 0], [8, 2, 1, 0], [8, 4, 0, 0]]).double()
    metrics, per_class = figures(areas)
    assert metrics["miou"] == pytest.approx(100 * (0.6 + 0.5 + 0) / 3)
    assert metrics["macc"] == pytest.approx(100 * (0.75 + 0.5) / 2)
    assert metrics["aacc"] == pytest.approx(100 * 8 / 12)
    assert np.isnan(per_class["iou"][3])
    assert np.isnan(per_class["acc"][2:]).all()
    assert figures(torch.zeros(4, 3).double())[0] == {}


class Blank(Dataset):
    """Two images of one class: 2^24 pixels, and one."""

    def __len__(self):
        return 2

    def __getitem__(self, index):
        label = torch.zeros((4096, 4096) if index == 0 else (1, 1), dtype=torch.uint8)
        return {"images": [], "label": label, "index": torch.tensor([index]), "skipped": []}


def test_counts_stay_exact_beyond_float32(folder, monkeypatch):
    """A sum in float32, which mmsegmentation's counts come in, would lose the last pixel."""
    kept = []

    def finish(parts, data, folder):
        kept.append(evaluation.total(parts))
        return Scored({"miou": 0.0})

    monkeypatch.setattr(evaluation, "finish", finish)
    score(
        lambda _, size: torch.zeros(size, dtype=torch.uint8), Blank(), layout.read(folder), CPU,
        Scoring(workers=0),
    )  # fmt: skip
    assert kept[0][:, 0].tolist() == [2**24 + 1] * 4


def test_table_pictures_and_submission(folder, tmp_path):
    data = layout.read(folder)
    found = run(data, 0.3, folder=tmp_path)
    with (tmp_path / "per_class.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["class"] for row in rows] == list(data.classes)
    assert [int(row["value"]) for row in rows] == list(range(1, len(data.classes) + 1))
    values = [float(row["iou"]) for row in rows if row["iou"]]
    assert np.mean(values) == pytest.approx(found.metrics["miou"])
    oracle = Oracle(data, 0.3)
    files = sorted((tmp_path / "predictions").iterdir())
    assert [file.stem for file in files] == [Path(name).stem for name in data.val.names]
    for index, file in enumerate(files):
        written = np.asarray(Image.open(file))
        assert written.dtype == np.uint8
        assert (written == oracle.predicted(index).numpy() + 1).all()
    with Image.open(tmp_path / "predictions.png") as picture:
        assert (picture.format, picture.mode) == ("PNG", "RGB")


def test_an_unreadable_image_is_left_out_and_named(folder, tmp_path):
    broken = few_images(folder_as_source(folder, tmp_path), tmp_path / "broken", 3)
    name = layout.read(broken).val.names[1]
    (broken / name).write_bytes(b"no image")
    data = layout.read(broken)
    views = Views([EvalImages(data, SCALE)])
    found = score(
        lambda images, size: torch.zeros(size, dtype=torch.uint8), views, data, CPU,
        Scoring(workers=0, folder=tmp_path),
    )  # fmt: skip
    (left_out,) = found.unreadable
    assert left_out.name == name
    assert left_out.reason.startswith("is not an image in any known format")
    assert found.metrics["miou"] >= 0


def folder_as_source(folder: Path, tmp_path: Path) -> Path:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "ADEChallengeData2016").symlink_to(folder)
    return tmp_path / "source"


def score_in_process(rank: int, folder: str, store: str, out: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{store}", rank=rank, world_size=2)
    done: list[int] = []
    found = run(
        layout.read(folder), 0.3,
        folder=Path(out) / "files", on_progress=done.append,
    )  # fmt: skip
    (Path(out) / f"{rank}").write_text(repr((found.metrics, done)))
    dist.destroy_process_group()


def test_two_processes_predict_each_image_once(folder, tmp_path):
    """An odd number of images, which would be padded with one of them elsewhere."""
    alone, together = tmp_path / "alone", tmp_path / "files"
    alone.mkdir(), together.mkdir()
    expected = run(layout.read(folder), 0.3, folder=alone).metrics
    arguments = (str(folder), str(tmp_path / "store"), str(tmp_path))
    mp.start_processes(score_in_process, arguments, nprocs=2, start_method="fork")
    done = {0: [2, 4, 5], 1: [2, 4]}
    for rank in (0, 1):
        assert (tmp_path / f"{rank}").read_text() == repr((expected, done[rank]))
    names = sorted(str(file.relative_to(alone)) for file in alone.rglob("*.*"))
    assert len(names) == COUNT + 2
    for name in names:
        assert (together / name).read_bytes() == (alone / name).read_bytes(), name


def test_one_image_of_more_pixels_than_float32_counts():
    """2^24 + 96 pixels of one class in one image, of which mmsegmentation counts 2^24."""
    label = torch.zeros(2**24 + 96, dtype=torch.uint8).view(16, -1)
    label[0, :7] = 1
    found = areas(torch.zeros_like(label), label, 2)
    assert found[:, 0].tolist() == [2**24 + 89, 2**24 + 96, 2**24 + 96, 2**24 + 89]
    assert found[:, 1].tolist() == [0, 7, 0, 7]
