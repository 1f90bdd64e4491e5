"""Trained networks as programs for others, in a file that torch alone reads or as ONNX."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tasks.errors import TaskError

Run = Callable[..., Any]
"""tensors to a tensor, or several"""
FILES = {"torch": "model.pt2", "onnx": "model.onnx"}
PREPROCESSING_FILE = "preprocessing.json"


def write_program(program: torch.export.ExportedProgram, to: str, folder: Path) -> tuple[str, Run]:
    """Write a program into a folder as "torch" or "onnx"; how to read it, and it as it was read.

    Raises `TaskError` for a library that is missing.
    """
    file = folder / FILES[to]
    if to == "torch":
        torch.export.save(program, file)
        return f'torch.export.load("{FILES[to]}").module()', torch.export.load(file).module()
    try:
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise TaskError(
            f"--to onnx: {error}; expected onnxscript to write it and onnxruntime to compare it: "
            "pip install 'mae-bench[onnx]'"
        ) from None
    written = torch.onnx.export(program, dynamo=True, verbose=False)
    assert written is not None
    written.save(file)
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]

    def run(*inputs: Tensor) -> Any:
        given = {name: each.numpy() for name, each in zip(names, inputs, strict=True)}
        found = tuple(map(torch.from_numpy, session.run(None, given)))
        return found if len(found) > 1 else found[0]

    return f'onnxruntime.InferenceSession("{FILES[to]}")', run


def write_json(file: Path, content: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def refuse_other(to: str, ours: Tensor, theirs: Tensor, tolerance: float) -> None:
    """Raise `TaskError` unless logits are the same, by their largest magnitude, at least 1."""
    error = float((ours - theirs).abs().max() / ours.abs().max().clamp(min=1))
    if not error < tolerance:
        raise TaskError(
            f"what was written as {to} gives other logits, by {error:.1e}; expected at most "
            f"{tolerance:.0e}: nothing is kept"
        )
