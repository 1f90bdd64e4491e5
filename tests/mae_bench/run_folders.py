"""Folders of runs, finished and begun, for the tests of `mae-bench runs`."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from mae_bench.cli import call
from mae_bench.execution import Execution
from results import Record, write_record

ALONE = Execution(workers=0)


START = datetime(2026, 1, 1, tzinfo=UTC)


def record(**changes: Any) -> Record:
    fields: dict[str, Any] = {
        "schema_version": 1,
        "name": "one",
        "kind": "transfer",
        "protocol": "imagenet1k/finetune@1",
        "task": "imagenet1k",
        "backbone": "vit_b",
        "init": "mae",
        "checkpoint": {"file": "mae.pth", "sha256": "ab" * 32, "recipe_hash": None},
        "data": {
            "name": "imagenet1k",
            "fingerprint": "0123456789abcdef",
            "train_images": 1000,
            "val_images": 100,
            "classes": 10,
            "miniature": False,
            "standard": False,
        },
        "recipe": {"backbone": "vit_b", "epochs": 100, "clip_grad": None},
        "recipe_hash": "0123456789ab",
        "deviations": ["epochs 50 -> 100"],
        "seed": 0,
        "metrics": {"top5": 96.5, "top1": 83.5},
        "intervals": {"top1": [83.1, 83.9]},
        "cost": {"seconds": 3600.0, "images_per_second": None, "peak_memory_bytes": 2**31},
        "environment": {
            "python": "3.11.9",
            "torch": "2.15.0",
            "versions": {"timm": "1.0.31"},
            "device": "a GPU",
            "processes": 1,
            "commit": None,
            "command": "mae-bench transfer",
        },
        "started": START.isoformat(),
        "finished": (START + timedelta(hours=1)).isoformat(),
        "complete": True,
        "skipped_images": 0,
    }
    return Record.model_validate_json(json.dumps(fields | changes))


IDENTITY = {
    "task": "imagenet1k",
    "recipe": {
        "protocol": "imagenet1k/linear@1",
        "backbone": "vit_s",
        "epochs": 3,
        "batch_size": 10,
    },
    "data": {"train_images": 1005, "standard": False},
    "init": "dino",
    "seed": 0,
    "limit": None,
}


def finished(folder: Path, **changes: Any) -> Path:
    write_record(folder, record(name=folder.name, **changes))
    (folder / "run.json").write_text(json.dumps(IDENTITY))
    (folder / ".lock").touch()
    (folder / "model.safetensors").write_bytes(bytes(3000))
    (folder / "log.jsonl").write_text('{"step": 1, "loss": 2.5}\n')
    (folder / "predictions.csv").write_text("file,target,class_1,probability_1\na,0,0,1\nb,0,1,1\n")
    save_states(folder, 1000)
    return folder


def begun(folder: Path, *steps: int) -> Path:
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps(IDENTITY))
    (folder / ".lock").touch()
    (folder / "log.jsonl").write_text("".join(f'{{"step": {n}}}\n' for n in range(1, 18)))
    save_states(folder, *steps)
    return folder


def save_states(folder: Path, *steps: int) -> None:
    (folder / "state").mkdir()
    for step in steps:
        (folder / "state" / f"step-{step:08d}.pt").write_bytes(bytes(5000))


def files(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def lines(capsys) -> list[str]:
    return capsys.readouterr().out.splitlines()


def line_of(name: str, said: list[str]) -> str:
    (line,) = (line for line in said if line.startswith(f"{name} "))
    return " ".join(line.split())


def rescored(argv: list[str], capsys) -> tuple[int, str]:
    """Exit code of `runs rescore`, and all that it said."""
    capsys.readouterr()
    try:
        code = call(["runs", "rescore", *argv])
    except SystemExit as end:
        code = int(end.code or 0)
    told = capsys.readouterr()
    return code, told.out + told.err


def filled(root: Path) -> Path:
    """A folder of finished runs, a stopped one, broken ones, and what is no run."""
    finished(root / "one")
    finished(root / "study/other", init="moco_v3", seed=3, metrics={"top1": 84.25}, intervals={})
    begun(root / "half", 8, 16)
    (root / "broken").mkdir()
    (root / "broken/record.json").write_text('{"name": ')
    (root / "empty").mkdir()
    (root / "empty/run.json").write_text("[]")
    (root / "notes").mkdir()
    (root / "notes/thesis.txt").write_text("mine")
    return root
