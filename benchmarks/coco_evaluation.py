"""How long COCO's evaluation takes at its real size, next to pycocotools and faster-coco-eval.

    python benchmarks/coco_evaluation.py            # prints the table
    python benchmarks/coco_evaluation.py --write    # and writes it to coco_evaluation.md
    python benchmarks/coco_evaluation.py --images 500 --rounds 5

Drawn are as many images, objects and detections as COCO's val2017 has with a hundred detections
an image: objects are polygons, a few of them crowds, and detections are copies of objects, some
nearly right and some not, among others that are wrong; scores are rounded, so that many are equal.
Everybody gets the same annotations and results, parsed already, and computes AP of boxes and of
masks. The six figures and the AP of each class are compared before a time is printed.
"""

import contextlib
import io
import math
import pickle
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import side_by_side
from faster_coco_eval import COCO as FasterCOCO
from faster_coco_eval import COCOeval_faster
from pycocotools import mask as mask_api
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from side_by_side import OURS

from tasks.coco.evaluation import KINDS, average_precision, index_truth

IMAGES, DETECTIONS = 5000, 100
OBJECTS = 7.3
"""of an image, on average, as in val2017"""
CROWDS = 0.012
CORNERS = 24
SIDES = (8, 300)
"""pixels of an object, evenly spread on a logarithmic scale"""
TOLERANCE = 1e-9
"""points: pycocotools adds 2e-16 to each denominator, the others do not"""

Blob = tuple[float, float, float, float]
"""centre x, centre y, width, height"""


def outline(rng: np.random.Generator, blob: Blob, size: tuple[int, int]) -> dict[str, Any]:
    """A ragged ellipse cut to the image: its polygon, run lengths, box and area."""
    x, y, width, height = blob
    angle = np.arange(CORNERS) * 2 * math.pi / CORNERS
    radius = 0.5 * (1 + 0.2 * rng.standard_normal(CORNERS))
    across = (x + width * radius * np.cos(angle)).clip(0, size[1])
    down = (y + height * radius * np.sin(angle)).clip(0, size[0])
    polygon = np.stack([across, down], axis=1).round(2).ravel().tolist()
    (rle,) = mask_api.frPyObjects([polygon], *size)
    return {
        "polygon": polygon,
        "rle": {"size": list(size), "counts": rle["counts"].decode()},
        "bbox": mask_api.toBbox(rle).tolist(),
        "area": float(mask_api.area(rle)),
    }


def somewhere(rng: np.random.Generator, size: tuple[int, int]) -> Blob:
    side = math.exp(rng.uniform(*map(math.log, SIDES)))
    width, height = side * rng.uniform(0.5, 1, 2)
    return rng.uniform(0, size[1]), rng.uniform(0, size[0]), width, height


def beside(rng: np.random.Generator, blob: Blob) -> Blob:
    """The same place and extent, missed by 2, 10 or 30 percent."""
    x, y, width, height = blob
    share = rng.choice([0.02, 0.1, 0.3])
    dx, dy, dw, dh = share * rng.standard_normal(4)
    return x + width * dx, y + height * dy, width * math.exp(dw), height * math.exp(dh)


def draw(images: int, detections: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Annotations as in COCO's file, and results."""
    rng = np.random.default_rng(0)
    classes = range(1, 81)
    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    sizes = [(480, 640) if rng.random() < 0.7 else (640, 427) for _ in range(images)]
    for number, size in enumerate(sizes, start=1):
        objects = []
        for _ in range(rng.poisson(OBJECTS)):
            # Half of the objects are of the first class, as a third of COCO's are persons.
            blob, label = somewhere(rng, size), 1 + int(rng.integers(80) * (rng.random() < 0.5))
            found = outline(rng, blob, size)
            crowd = rng.random() < CROWDS
            if found["area"]:
                objects.append((blob, label))
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": number,
                        "category_id": label,
                        "iscrowd": int(crowd),
                        "segmentation": found["rle"] if crowd else [found["polygon"]],
                        "bbox": found["bbox"],
                        "area": found["area"],
                    }
                )
        for _ in range(detections):
            if objects and rng.random() < 0.5:
                blob, label = objects[rng.integers(len(objects))]
                blob, score = beside(rng, blob), rng.beta(3, 2)
                label = label if rng.random() < 0.9 else int(rng.integers(1, 81))
            else:
                blob, label = somewhere(rng, size), int(rng.integers(1, 81))
                score = rng.beta(1, 5)
            found = outline(rng, blob, size)
            if found["area"]:
                results.append(
                    {
                        "image_id": number,
                        "category_id": label,
                        "bbox": found["bbox"],
                        "score": round(float(score), 3),
                        "segmentation": found["rle"],
                    }
                )
    listed = [{"id": i, "height": h, "width": w} for i, (h, w) in enumerate(sizes, start=1)]
    names = [{"id": number, "name": str(number)} for number in classes]
    truth = {"info": {}, "images": listed, "annotations": annotations, "categories": names}
    return truth, results


Found = dict[str, tuple[list[float], list[float | None]]]
"""by kind: six figures, and the AP of each class"""


class Bench:
    """Truth and results, new for each job: evaluating writes into them."""

    def __init__(self, images: int, detections: int) -> None:
        drawn = draw(images, detections)
        self.kept = pickle.dumps(drawn)
        self.objects, self.results = len(drawn[0]["annotations"]), len(drawn[1])

    def renew(self) -> None:
        self.truth, self.found = pickle.loads(self.kept)

    def peer(self, index: type, evaluator: type) -> Found:
        """As the documentation of pycocotools has it; faster-coco-eval has the same names."""
        figures: Found = {}
        with contextlib.redirect_stdout(io.StringIO()):
            truth = index()
            truth.dataset = self.truth
            truth.createIndex()
            for kind in KINDS.values():
                other = "bbox" if kind == "segm" else "segmentation"
                own = [{k: v for k, v in each.items() if k != other} for each in self.found]
                evaluation = evaluator(truth, truth.loadRes(own), kind)
                evaluation.evaluate()
                evaluation.accumulate()
                evaluation.summarize()
                precision = evaluation.eval["precision"][:, :, :, 0, -1]
                classes = [
                    100 * float(each[each > -1].mean()) if (each > -1).any() else None
                    for each in np.moveaxis(precision, 2, 0)
                ]
                figures[kind] = [100 * float(value) for value in evaluation.stats[:6]], classes
        return figures

    def ours(self) -> Found:
        truth = index_truth(self.truth)
        return {kind: average_precision(truth, self.found, kind) for kind in KINDS.values()}


def check(found: dict[str, Found]) -> str:
    """The largest difference of any figure from pycocotools'; stops if one is too large."""
    expected = found["pycocotools"]
    gap = 0.0
    for name, each in found.items():
        for kind, parts in expected.items():
            for theirs, right in zip(each[kind], parts, strict=True):
                if [a is None for a in theirs] != [a is None for a in right]:
                    raise SystemExit(f"{name}: other figures of {kind} are undefined")
                pairs = zip(theirs, right, strict=True)
                gap = max(gap, *(abs(a - b) for a, b in pairs if b is not None and a is not None))
        if gap > TOLERANCE:
            raise SystemExit(f"{name}: a figure differs by {gap:.1e} points; no time counts")
    box, mask = (expected[kind][0][0] for kind in KINDS.values())
    return (
        f"Box AP {box:.1f}, mask AP {mask:.1f}; no figure, nor AP of a class, differs from "
        f"pycocotools' by more than {gap:.0e} points."
    )


def keep(found: dict[str, Found], name: str, evaluate: Callable[[], Found]) -> None:
    found[name] = evaluate()


def measure(images: int, detections: int, rounds: int) -> str:
    bench = Bench(images, detections)
    found: dict[str, Found] = {}
    evaluations: dict[str, Callable[[], Found]] = {
        "pycocotools": lambda: bench.peer(COCO, COCOeval),
        "faster-coco-eval": lambda: bench.peer(FasterCOCO, COCOeval_faster),
        OURS: bench.ours,
    }
    jobs = {name: partial(keep, found, name, each) for name, each in evaluations.items()}
    # These take so long that nothing needs to warm up.
    spent = side_by_side.take_turns(jobs, rounds, time.process_time, 0, bench.renew)
    said = check(found)
    return "\n".join(
        [
            f"### {images:,} images, {bench.objects:,} objects, {bench.results:,} detections",
            "",
            f"{said} Rounds: {rounds}.",
            "",
            side_by_side.rows(spent),
        ]
    )


def main() -> None:
    parser = side_by_side.parser(__doc__, 3, __file__)
    parser.add_argument("--images", type=int, default=IMAGES, help=f"default {IMAGES}")
    parser.add_argument("--detections", type=int, default=DETECTIONS, help="of an image")
    arguments = parser.parse_args()
    table = measure(arguments.images, arguments.detections, arguments.rounds)
    machine = side_by_side.machine("pycocotools", "faster-coco-eval", "numpy")
    title = "COCO's evaluation next to pycocotools'"
    side_by_side.publish(__file__, title, [table, machine, EXPLANATION], arguments.write)


EXPLANATION = (
    "Times are of boxes and masks together, from parsed annotations and results to all figures, "
    "in CPU time. The last column is the median over the rounds of (implementation / mae-bench) "
    "in the same round. pycocotools adds 2e-16 to each precision's denominator; the others do not."
)


if __name__ == "__main__":
    main()
