"""From the start of reading to a data set in memory, next to what else reads it.

    python benchmarks/startup.py FOLDER            # prints the tables; FOLDER gets the data
    python benchmarks/startup.py FOLDER --write    # and writes them to benchmarks/startup.md
    python benchmarks/startup.py FOLDER --share 0.1

Made-up data of the official sizes: COCO's annotation files (`large_coco.py`), the images of
ImageNet, iNaturalist 2018 and ADE20K as empty files. Each reading is a process of its own, from the
page cache; imports are not counted. The readers take turns, and ratios are of one round: the
machine's speed cancels out. What is read is compared: pycocotools' images, annotations and boxes,
names and classes of ImageFolder and mmsegmentation, and fingerprints of first and later starts.
`--write` leaves what stands below the table.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import side_by_side
from large_coco import write_data_set

CLASSES, PER_CLASS, VAL = 1000, 1281, 50
"""of ImageNet: classes, and images of each in both splits (1,281,000 and 50,000)"""
SPECIES, INAT = 8142, {"train": 437_513, "val": 24_426}
ADE = {"training": 20_210, "validation": 2_000}

MEASURE = """
import json, sys, time
from pathlib import Path

def most_memory():
    # MB; not resource's ru_maxrss, which counts the process that started this one
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))

{imports}
wall, cpu = time.perf_counter(), time.process_time()
{read}
found = [time.perf_counter() - wall, time.process_time() - cpu,
         most_memory()]
{tell}
print(json.dumps(found))
"""

COCO = {
    "imports": "from tasks.coco.layout import read",
    "read": "data = read(sys.argv[1])",
    "tell": """splits = (data.all_train, data.val)
found += [data.fingerprint, [len(each) for each in splits], [len(each.table.labels) for each in
          splits], [round(float(each.table.boxes.sum())) for each in splits]]""",
}
PYCOCOTOOLS = {
    "imports": "import contextlib, io\nfrom pycocotools.coco import COCO",
    "read": """with contextlib.redirect_stdout(io.StringIO()):
    files = [f"{sys.argv[1]}/annotations/instances_{s}2017.json" for s in ("train", "val")]
    splits = [COCO(file) for file in files]""",
    "tell": """found += [None, [len(each.imgs) for each in splits], [len(each.anns) for each in
          splits], [round(sum(sum(a["bbox"]) for a in each.anns.values())) for each in splits]]""",
}
LISTS = {
    "imports": "from tasks.classification.layout import read",
    "read": "data = read(sys.argv[2], Path(sys.argv[1]))",
    "tell": """import hashlib
found += [data.fingerprint, [len(data.train), len(data.val)], list(data.classes[:3]), [
          hashlib.sha256("".join(s.names).encode() + s.targets.tobytes()).hexdigest()
          for s in (data.train, data.val)]]""",
}
IMAGE_FOLDER = {
    "imports": "from torchvision.datasets import ImageFolder",
    "read": "splits = [ImageFolder(f'{sys.argv[1]}/{s}') for s in ('train', 'val')]",
    "tell": """import hashlib, numpy as np
found += [None, [len(s) for s in splits], splits[0].classes[:3], [hashlib.sha256("".join(
          path[len(sys.argv[1]) + 1:] for path, _ in s.samples).encode()
          + np.array(s.targets).tobytes()).hexdigest() for s in splits]]""",
}
JSON_ALONE = {
    "imports": "",
    "read": "data = [json.loads(Path(f'{sys.argv[1]}/{s}2018.json').read_bytes()) for s in "
    "('train', 'val')]",
    "tell": "found += [None, [len(each['images']) for each in data], None, None]",
}


UNLABELLED = {
    "imports": "from tasks.images import UnlabelledImages",
    "read": """data = UnlabelledImages([Path(sys.argv[1])], 224)
notes, fingerprint = data.notes(), data.fingerprint""",
    "tell": """import hashlib
found += [data.fingerprint, [len(data)], None, hashlib.sha256("".join(
          path[len(sys.argv[1]) + 1:] for path in data.all_names).encode()).hexdigest()]""",
}
ONE_IMAGE_FOLDER = {
    "imports": "from torchvision.datasets import ImageFolder",
    "read": "data = ImageFolder(sys.argv[1])",
    "tell": """import hashlib
found += [None, [len(data)], None, hashlib.sha256("".join(
          path[len(sys.argv[1]) + 1:] for path, _ in data.samples).encode()).hexdigest()]""",
}
ADE20K = {
    "imports": "from tasks.ade20k.layout import read",
    "read": "data = read(sys.argv[1])",
    "tell": """import hashlib
found += [data.fingerprint, [len(each) for each in (data.train, data.val)], None, hashlib.sha256(
          "".join([*data.train.names, *data.val.names]).encode()).hexdigest()]""",
}
MMSEGMENTATION = {
    "imports": "import warnings\nwarnings.simplefilter('ignore')\n"
    "from mmseg.datasets import ADE20KDataset",
    "read": """data = [ADE20KDataset(data_root=sys.argv[1], pipeline=[], data_prefix={"img_path":
        f"images/{s}", "seg_map_path": f"annotations/{s}"}) for s in ("training", "validation")]""",
    "tell": """import hashlib
found += [None, [len(each) for each in data], None, hashlib.sha256("".join(data[s][row]["img_path"][
          len(sys.argv[1]) + 1:] for s in (0, 1) for row in range(len(data[s]))).encode(
          )).hexdigest()]""",
}

SAME = slice(4, 7)
"""of what a reader tells: the number of images, and what they are"""


def measure(script: dict[str, str], *arguments: str) -> list:
    """Wall seconds, CPU seconds, MB at most, and what was read."""
    code = MEASURE.format(**script)
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    found: list = json.loads(done.stdout.splitlines()[-1])
    return found


def rounds(
    count: int, ours: dict, theirs: dict, same: slice, *arguments: str
) -> list[dict[str, list]]:
    """Readers by name: a peer, a first start, and a later one; several rounds."""
    found = []
    for _ in range(count):
        shutil.rmtree(Path(os.environ["XDG_CACHE_HOME"]) / "mae-bench", ignore_errors=True)
        row = {
            "peer": measure(theirs, *arguments),
            "first": measure(ours, *arguments),
            "later": measure(ours, *arguments),
        }
        if row["first"][3:] != row["later"][3:] or row["first"][same] != row["peer"][same]:
            raise SystemExit(f"read otherwise: {row}")
        print({name: each[:3] for name, each in row.items()}, file=sys.stderr, flush=True)
        found.append(row)
    return found


def lines(what: str, peer: str, found: list[dict[str, list]]) -> list[str]:
    rows = []
    for name in ("peer", "first", "later"):
        seconds, cpu, memory = (
            statistics.median(row[name][at] for row in found) for at in range(3)
        )
        ratios = [
            statistics.median(row[name][at] / row["peer"][at] for row in found) for at in range(2)
        ]
        label = peer if name == "peer" else f"mae-bench, {name} start"
        rows.append(
            f"| {what} | {label} | {seconds:.2f} | {cpu:.2f} | {memory:,.0f} | {ratios[0]:.2f} | "
            f"{ratios[1]:.2f} |"
        )
    return rows


def make_imagenet(root: Path, share: float) -> Path:
    for number in range(CLASSES):
        name = f"n{1_000_000 + 37 * number:08d}"
        for split, count in (("train", PER_CLASS), ("val", VAL)):
            folder = root / split / name
            folder.mkdir(parents=True)
            for at in range(max(1, int(count * share))):
                (folder / f"{name}_{7 * at}.JPEG").touch()
    return root


def make_inaturalist(root: Path, share: float) -> Path:
    """Images of all species in turn, as 2018's JSON names them."""
    species = max(2, int(SPECIES * share))
    for split, total in INAT.items():
        count = max(species, int(total * share))
        images, annotations = [], []
        for number in range(count):
            folder = f"train_val2018/Aves/{number % species}"
            if number < species:
                (root / folder).mkdir(parents=True, exist_ok=True)
            name = f"{folder}/{split}{number:032x}.jpg"
            (root / name).touch()
            images.append({"id": number, "file_name": name, "width": 800, "height": 600})
            images[-1] |= {"license": 3, "rights_holder": f"observer {number}"}
            each = {"id": number, "image_id": number, "category_id": number % species}
            annotations.append(each)
        categories = [{"id": n, "name": f"Genus species{n}"} for n in range(species)]
        tables = {"images": images, "annotations": annotations, "categories": categories}
        (root / f"{split}2018.json").write_text(json.dumps(tables))
    return root


def make_ade20k(root: Path, share: float) -> Path:
    for split, total in ADE.items():
        for kind, suffix in (("images", "jpg"), ("annotations", "png")):
            folder = root / kind / split
            folder.mkdir(parents=True)
            for number in range(max(1, int(total * share))):
                (folder / f"ADE_{split[:-3]}_{number:08d}.{suffix}").touch()
    return root


def table(folder: Path, share: float, count: int) -> str:
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    made = {
        "coco": lambda root: write_data_set(root, share),
        "imagenet": lambda root: make_imagenet(root, share),
        "inat2018": lambda root: make_inaturalist(root, share),
        "ade20k": lambda root: make_ade20k(root, share),
    }
    for name, make in made.items():
        if not (folder / name).is_dir():
            make(folder / name)
    rows = lines("COCO", "pycocotools", rounds(count, COCO, PYCOCOTOOLS, SAME, f"{folder}/coco"))
    found = rounds(count, LISTS, IMAGE_FOLDER, SAME, f"{folder}/imagenet", "imagenet1k")
    rows += lines("ImageNet", "torchvision's ImageFolder", found)
    found = rounds(count, LISTS, JSON_ALONE, slice(4, 5), f"{folder}/inat2018", "inat2018")
    rows += lines("iNaturalist 2018", "json.loads alone", found)
    found = rounds(count, UNLABELLED, ONE_IMAGE_FOLDER, SAME, f"{folder}/imagenet/train")
    rows += lines("pre-training folder", "torchvision's ImageFolder", found)
    found = rounds(count, ADE20K, MMSEGMENTATION, SAME, f"{folder}/ade20k")
    rows += lines("ADE20K", "mmsegmentation's ADE20KDataset", found)
    head = [
        f"{count} rounds (medians), {share:g} of the official sizes; {side_by_side.processor()}, "
        f"load average {os.getloadavg()[1]:.1f} on {os.cpu_count()} processors; Python "
        f"{platform.python_version()}. Ratios are of one round, by wall time and by CPU time.",
        "",
        "| data | reader | s | CPU s | MB at most | wall ratio | CPU ratio |",
        "|---|---|---|---|---|---|---|",
    ]
    return "\n".join(head + rows) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--share", type=float, default=1.0, help="of the official sizes")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", action="store_true", help="to benchmarks/startup.md")
    given = parser.parse_args()
    text = table(given.folder.absolute(), given.share, given.rounds)
    print(text)
    if given.write:
        page = Path(__file__).with_suffix(".md")
        head = "# From the start of reading to a data set\n\n`python benchmarks/startup.py FOLDER`"
        _, _, below = page.read_text().rpartition("|\n")
        page.write_text(f"{head}\n\n{text}{below}")


if __name__ == "__main__":
    main()
