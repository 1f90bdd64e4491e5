"""Records of runs that never were."""

from datetime import UTC, datetime, timedelta
from typing import Any

from results import Checkpoint, Cost, Data, Environment, Named, Record
from results.record import read_changes

START = datetime(2026, 1, 1, tzinfo=UTC)

OFFICIAL = Data(
    name="imagenet1k",
    fingerprint="0123456789abcdef",
    train_images=1_281_167,
    val_images=50_000,
    classes=1000,
    miniature=False,
    standard=True,
)


def pretrained(seed: int = 0, digits: str | None = None, **changes: Any) -> Checkpoint:
    """Weights of a pre-training of ours that say how they came about; a file for each seed."""
    fields = {
        "file": "backbone.safetensors",
        "sha256": (digits or f"{10 + seed}") * 32,
        "recipe_hash": "0123456789ab",
        "data": Named(name="photos", fingerprint="fedcba9876543210"),
        "seed": seed,
    }
    return Checkpoint(**{**fields, **changes})


def make(**changes: Any) -> Record:
    """A complete, comparable fine-tuning run of ViT-B from MAE weights."""
    fields = {
        "name": "run",
        "kind": "transfer",
        "protocol": "imagenet1k/finetune@1",
        "task": "imagenet1k",
        "backbone": "vit_b",
        "init": "mae",
        "checkpoint": Checkpoint(file="mae_vit_base.pth", sha256="ab" * 32),
        "data": OFFICIAL,
        "recipe": {"epochs": 100, "betas": (0.9, 0.999), "clip_grad": None},
        "recipe_hash": "0123456789ab",
        "deviations": [],
        "seed": 0,
        "metrics": {"top1": 83.5},
        "cost": Cost(seconds=3600.0, images_per_second=812.5, peak_memory_bytes=17_179_869_184),
        "environment": Environment(
            python="3.11.9",
            torch="2.15.0",
            versions={"timm": "1.0.31"},
            device="cpu",
            processes=1,
            commit=None,
            command="mae-bench transfer --task imagenet1k",
        ),
        "started": START,
        "finished": START + timedelta(hours=1),
        "complete": True,
        "skipped_images": 0,
    }
    told = {"changed": read_changes(changes.get("deviations", ()))}
    return Record(**{**fields, **told, **changes})
