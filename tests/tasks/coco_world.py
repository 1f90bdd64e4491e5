"""Small COCO folders in the official layout, cut out of the miniature world."""

import json
import shutil
from collections import Counter
from pathlib import Path


def few_images(world: Path, folder: Path, count: int) -> Path:
    """`count` training images as train and as val split.

    Of those with two to five things and no crowd, the ones whose smallest thing is the largest.
    """
    source = world / "coco"
    content = json.loads((source / "annotations/instances_train2017.json").read_text())
    things = Counter(each["image_id"] for each in content["annotations"])
    crowds = {each["image_id"] for each in content["annotations"] if each["iscrowd"]}
    smallest: dict[int, float] = {}
    for each in content["annotations"]:
        image = each["image_id"]
        smallest[image] = min(smallest.get(image, each["area"]), each["area"])
    fit = [e for e in content["images"] if 2 <= things[e["id"]] <= 5 and e["id"] not in crowds]
    images = sorted(fit, key=lambda each: -smallest[each["id"]])[:count]
    assert len(images) == count, "the world is too small"
    kept = {each["id"] for each in images}
    content["images"] = images
    content["annotations"] = [e for e in content["annotations"] if e["image_id"] in kept]
    (folder / "annotations").mkdir(parents=True)
    for split in ("train", "val"):
        file = folder / "annotations" / f"instances_{split}2017.json"
        file.write_text(json.dumps(content))
        (folder / f"{split}2017").mkdir()
        for each in images:
            name = each["file_name"]
            shutil.copy(source / "train2017" / name, folder / f"{split}2017" / name)
    return folder
