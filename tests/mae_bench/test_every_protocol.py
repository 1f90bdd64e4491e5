"""Every classification task, by every protocol, from its miniature twin to the record."""

from pathlib import Path

import pytest
from small_runs import SMALL
from small_worlds import draw

import mae_bench
import tasks
from mae_bench.execution import Execution
from mae_bench.run.files import BACKBONE_FILE
from tasks.classification.datasets import DATASETS
from tasks.classification.layout import read
from tasks.classification.recipes import PROTOCOLS
from tasks.face import PARTIAL

TRAINING = {**SMALL, "epochs": 1}
CHANGES = {
    "knn": {"neighbours": (1, 3), "headline_neighbours": 3},
    "logistic": {"l2": (1e-2, 1e-3)},
}


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The twins of all data sets, each with two training images or more of each class."""
    sizes = {}
    for name, images in (("imagenet1k", 20), ("inat2017", 40), ("inat2018", 60), ("inat2019", 20)):
        sizes |= {f"{name}_train": images, f"{name}_val": 30}
    for name in ("places205", "places365"):
        sizes |= {f"{name}_train": 16, f"{name}_val": 16}
    world = draw(tmp_path_factory.mktemp("twins"), **sizes)
    (world / "folder").symlink_to(world / "imagenet1k")
    return world


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("task", DATASETS)
def test_every_task_by_every_protocol(task, protocol, twins, pretrained, tmp_path):
    asked = "partial:0.5" if protocol == PARTIAL else protocol
    record = mae_bench.transfer(
        task,
        protocol=asked,
        checkpoint=None if protocol == "scratch" else pretrained / BACKBONE_FILE,
        data=twins / task,
        out=tmp_path,
        execution=Execution(workers=0),
        **CHANGES.get(protocol, TRAINING),
    )
    data = read(task, twins / task)
    assert protocol in tasks.protocols(task)
    version = 2 if protocol == PARTIAL else 1
    assert record.protocol == f"{task}/{asked.replace(':', '-')}@{version}"
    assert record.data.classes == len(data.classes)
    assert {"top1", "top5", "per_class"} <= record.metrics.keys()
    assert record.intervals.keys() == record.metrics.keys()
    lines = (tmp_path / record.name / "predictions.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines[1:]] == list(data.val.names)
    named = (tmp_path / record.name / "classes.txt").read_text().splitlines()
    assert named == list(data.classes)
