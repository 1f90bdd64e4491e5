"""`mae-bench export`: what a run has trained, head and pre-processing included, for others."""

import warnings
from pathlib import Path

import tasks
from mae_bench.again import build
from mae_bench.arguments import check_common
from mae_bench.errors import RunError
from mae_bench.predict import classes_of
from mae_bench.progress import say
from mae_bench.run.trained import read_trained
from mae_bench.run.unfinished import atomic_folder


def export(run: str | Path, to: str, output: str | Path | None = None) -> Path:
    """Write the network of a run as a folder that other programs read; the folder.

    `to` is a layout of the task's face: for classification "timm", "hf" (transformers), "torch" (a
    program that needs torch alone) or "onnx"; for segmentation "torch" or "onnx"; for detection
    "torch" (a program that needs torchvision, too). What is written is read back and compared with
    the network. `output` (default: <run>-<layout>) must not be there. Raises one-line errors.
    """
    check_common(run=run, output=output)
    trained = read_trained(Path(run))
    face = tasks.face_of(trained.identity.task)
    if not face.layouts:
        raise RunError(
            f"run {run}: networks of {trained.identity.task} are not exported; expected a run of "
            "classification, coco or ade20k"
        )
    if to not in face.layouts:
        raise RunError(
            f"--to {to}: networks of {trained.identity.task} are written as "
            f"{' or '.join(face.layouts)} alone; expected --to {face.layouts[0]}"
        )
    place = Path(f"{trained.name}-{to}" if output is None else output)
    if place.exists():
        raise RunError(f"--output {place}: is there already; name another, or delete it")
    if trained.step < trained.steps:
        say(f"note: training interrupted after step {trained.step} of {trained.steps}")
    classes = classes_of(trained)
    data = face.images_alone(Path(), [], classes, trained.weights)
    task = build(trained, data, None)
    with atomic_folder(place) as unfinished, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the libraries' own doings
        how = face.export(task, classes, to, unfinished)
    how = how.replace(unfinished.name, str(place))
    say(f"written to {place}; read back, it says what the run's network says. To read it: {how}")
    return place
