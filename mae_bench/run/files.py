"""Files that are either whole or not there. Imports no torch."""

import json
from pathlib import Path
from typing import Any

from backbones.files import HALF_WRITTEN, atomic, naming

__all__ = ["HALF_WRITTEN", "atomic", "naming", "sweep", "write_json", "write_torch"]

RUN_FILE = "run.json"
RECORD_FILE = "record.json"
TORN_FILE = "record.json.torn"
"""a result that breaks off, put aside"""
FAILED_FILE = "failed.json"
"""why a candidate of a sweep has no score"""
BACKBONE_FILE = "backbone.safetensors"
"""the encoder that a pre-training has made"""
MAE_FILE = "mae.safetensors"
"""the whole autoencoder"""
TOKENIZER_FILE = "tokenizer.safetensors"
"""encoder and decoder of a tokenizer that was trained"""
MODEL_FILE = "model.safetensors"
"""weights that a transfer has trained"""
LOCK_FILE = ".lock"
LOG_FILE = "log.jsonl"
VALIDATION_FILE = "validation.jsonl"
"""scores while a run trained"""
STATE_FOLDER = "state"
STATES = "step-*.pt"
"""saved states in that folder"""


def write_json(file: Path, content: Any) -> None:
    """Write JSON atomically."""
    with atomic(file) as stream:
        stream.write((json.dumps(content, indent=2) + "\n").encode())


def write_torch(file: Path, content: Any) -> None:
    """Write a torch file atomically."""
    import torch

    with atomic(file) as stream:
        try:
            torch.save(content, stream)
        except RuntimeError as error:  # torch's own complaint about what is a full disk
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def sweep(folder: Path) -> None:
    """Remove what a killed process was in the middle of writing into `folder`."""
    for left in folder.glob(f"*{HALF_WRITTEN}"):
        left.unlink(missing_ok=True)
