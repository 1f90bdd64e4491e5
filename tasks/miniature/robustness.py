"""The layouts of ImageNet-A, -R, -Sketch and -C: validation images of ImageNet-1k's classes.

    imagenet_a/<wnid>/0.<6 digits>_<class> _ <class>_0.<digit>.jpg, README.txt
    imagenet_r/<wnid>/<style>_<number>.jpg, README.txt
    imagenet_sketch/sketch/<wnid>/sketch_<number>.JPEG
    imagenet_c/<corruption>/<severity>/<wnid>/ILSVRC2012_val_<number>.JPEG

As in the originals: the first two hold some of the classes only, and a file name in ImageNet-A
names classes that a network took the image for, never its own (here they are drawn by lot, and
the numbers count). ImageNet-C shows the first images of the validation set, as the test
transform cuts them, in every corruption and severity.
"""

from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from tasks.miniature.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from tasks.miniature.imagenet import CLASSES, IMAGENET, SIDE, val_name, wnid
from tasks.miniature.pictures import by_turns, open_image
from tasks.miniature.renditions import RENDITIONS, line_drawing
from tasks.miniature.scene import DIFFICULTIES, draw_hard_portrait, draw_portrait
from tasks.miniature.stuff import Rng
from tasks.miniature.twin import Facts, Records, Row, Twin, encode_jpeg, save_jpeg

CLASSES_A = ("ring", "triangle", "star", "crescent", "arrow")
CLASSES_R = ("disc", "star", "cross", "heart", "arrow")

CROP = 32
"""height and width in pixels of ImageNet-C's images: the input of vit_mini, 224 in the original"""


def _folder(shape: str) -> str:
    return wnid(CLASSES.index(shape))


def write_a(folder: Path, split: str, index: int, rng: Rng) -> None:
    """Image `index` shows class `index` modulo 5; four difficulties take turns."""
    number, label = divmod(index, len(CLASSES_A))
    shape = CLASSES_A[label]
    scene = draw_hard_portrait(rng, SIDE, shape, DIFFICULTIES[number % len(DIFFICULTIES)])
    first, second = rng.choice([other for other in CLASSES if other != shape], 2)
    name = f"0.{index + 1:06d}_{first} _ {second}_0.5.jpg"
    save_jpeg(folder / _folder(shape) / name, scene.image)


def write_r(folder: Path, split: str, index: int, rng: Rng) -> None:
    """Image `index` shows class `index` modulo 5; the styles take turns."""
    number, label = divmod(index, len(CLASSES_R))
    turn, style = divmod(number, len(RENDITIONS))
    name, rendition = list(RENDITIONS.items())[style]
    scene = draw_portrait(rng, SIDE, CLASSES_R[label])
    path = folder / _folder(CLASSES_R[label]) / f"{name}_{turn}.jpg"
    save_jpeg(path, rendition(rng, scene))


def write_sketch(folder: Path, split: str, index: int, rng: Rng) -> None:
    """Image `index` shows class `index` modulo 10."""
    number, label = divmod(index, len(CLASSES))
    image = line_drawing(rng, draw_portrait(rng, SIDE, CLASSES[label]))
    save_jpeg(folder / "sketch" / wnid(label) / f"sketch_{number}.JPEG", image)


def input_crop(image: np.ndarray) -> np.ndarray:
    """The view of a square image (S, S, 3) uint8 that a test at CROP pixels has of it.

    Resize(CROP * 256 / 224, bicubic), then CenterCrop(CROP): tasks.images.eval_crop.
    """
    side = int(CROP * 256 / 224)
    edge = round((side - CROP) / 2)
    resized = Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC)
    return np.asarray(resized.crop((edge, edge, edge + CROP, edge + CROP)))


def write_c(folder: Path, split: str, index: int, rng: Rng) -> None:
    """Write validation image `index` of ImageNet-1k's twin in 15 corruptions x 5 severities.

    The severities of a corruption share their randomness: they differ in strength alone.
    """
    label = index % len(CLASSES)
    scene = draw_portrait(rng, SIDE, CLASSES[label])
    on_disk = np.asarray(Image.open(BytesIO(encode_jpeg(scene.image))))
    clean = input_crop(on_disk)
    seeds = rng.integers(2**63, size=len(CORRUPTIONS))
    for corruption, seed in zip(CORRUPTIONS, seeds, strict=True):
        for severity in SEVERITIES:
            image = corrupt(clean, corruption, severity, np.random.default_rng(seed))
            save_jpeg(folder / corruption / str(severity) / wnid(label) / val_name(index), image)


def finish_a(folder: Path, records: Records) -> None:
    _write_readme(folder, "ImageNet-A", CLASSES_A)


def finish_r(folder: Path, records: Records) -> None:
    _write_readme(folder, "ImageNet-R", CLASSES_R)


def _write_readme(folder: Path, original: str, classes: tuple[str, ...]) -> None:
    lines = [f"The miniature twin of {original}. It holds these classes of ImageNet-1k's twin:", ""]
    lines += [f"{_folder(shape)} {shape}" for shape in classes]
    (folder / "README.txt").write_text("\n".join(lines) + "\n")


def rows_a(folder: Path, facts: Facts) -> list[Row]:
    """Difficulties take turns within a class, so the first of each class show them all."""
    images = [open_image(path) for path in by_turns(folder.glob("n*"), "*.jpg")]
    return [("", images[:12]), ("", images[12:24])]


def rows_r(folder: Path, facts: Facts) -> list[Row]:
    return [
        (style, [open_image(path) for path in by_turns(folder.glob("n*"), f"{style}_*.jpg")[:12]])
        for style in RENDITIONS
    ]


def rows_sketch(folder: Path, facts: Facts) -> list[Row]:
    paths = by_turns((folder / "sketch").glob("n*"), "*.JPEG")
    return [("", [open_image(path) for path in paths[:12]])]


def rows_c(folder: Path, facts: Facts) -> list[Row]:
    """Per corruption, two images at each severity, enlarged: the same two in all rows."""
    rows = []
    for name in CORRUPTIONS:
        severities = [
            [
                open_image(path)
                for path in by_turns((folder / name / str(level)).glob("n*"), "*")[-2:]
            ]
            for level in SEVERITIES
        ]
        images = [image for each in zip(*severities, strict=True) for image in each]
        enlarged = [image.resize((SIDE, SIDE), Image.Resampling.NEAREST) for image in images]
        rows.append((name.replace("_", "\n"), enlarged))
    return rows


ROBUSTNESS = (
    Twin(
        name="imagenet_a",
        sizes={"val": 200},
        classes=CLASSES_A,
        write=write_a,
        finish=finish_a,
        title="ImageNet-A",
        remark="hard to tell: small, cut off, hidden or camouflaged; half of the classes",
        rows=rows_a,
    ),
    Twin(
        name="imagenet_r",
        sizes={"val": 200},
        classes=CLASSES_R,
        write=write_r,
        finish=finish_r,
        title="ImageNet-R",
        remark="renditions in other styles; half of the classes",
        rows=rows_r,
    ),
    Twin(
        name="imagenet_sketch",
        sizes={"val": 200},
        classes=CLASSES,
        write=write_sketch,
        title="ImageNet-Sketch",
        remark="black outlines on white",
        rows=rows_sketch,
    ),
    Twin(
        name="imagenet_c",
        sizes={"val": 20},  # clean images: each is written in 75 corrupted versions
        classes=CLASSES,
        write=write_c,
        stream=IMAGENET.name,
        title="ImageNet-C",
        remark="validation images in 15 corruptions, severities 1 to 5",
        rows=rows_c,
    ),
)
