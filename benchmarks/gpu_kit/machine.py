"""The machine, its packages, and the rates of its matrix products."""

import importlib.metadata
import os
import platform
import shutil
import subprocess

import torch

from gpu_kit.part import GIB, Bench
from gpu_kit.timing import matmul_rate

WANTED = {
    "timm": "everything",
    "torchvision": "loading and detection",
    "safetensors": "everything",
    "accelerate": "training",
    "simplejpeg": "loading",
    "pycocotools": "detection",
    "onedl-mmsegmentation": "segmentation",
    "pytest": "the tests",
    "transformers": "Hugging Face's ViTMAE, as a peer",
    "detectron2": "detectron2, as a peer",
}
"""packages and what needs them"""


def run(bench: Bench) -> None:
    bench.book.fact("machine", sentence(bench))
    for name, use in WANTED.items():
        try:
            importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            bench.book.missing(name, f"not installed; it is for {use}")
    tf32 = torch.backends.cudnn.allow_tf32 or torch.backends.cuda.matmul.allow_tf32
    bench.book.note(f"TF32 is {'ON' if tf32 else 'off'} but where a line says otherwise.")
    for precision in ("bf16", "fp16", "tf32", "fp32"):
        bench.attempt(f"products in {precision}", rates, bench, precision)


def rates(bench: Bench, precision: str) -> None:
    for size in bench.choose((4096, 8192), (64, 128)):
        rate = matmul_rate(bench, precision, size)
        bench.book.row(
            "Matrix products", precision=precision, size=f"{size} x {size}", TFLOPs=rate / 1e12
        )


def sentence(bench: Bench) -> str:
    """Card, driver, versions."""
    where = f"{platform.machine()} CPU"
    if bench.device == "cuda":
        card = torch.cuda.get_device_properties(0)
        where = (
            f"{card.name}, {card.total_memory / GIB:.0f} GiB, compute capability "
            f"{card.major}.{card.minor}, driver {driver()}, CUDA {torch.version.cuda}, "
            f"cuDNN {torch.backends.cudnn.version()}"
        )
    packages = ", ".join(
        f"{name} {importlib.metadata.version(name)}"
        for name in ("torchvision", "timm", "transformers", "detectron2")
        if any(importlib.metadata.Distribution.discover(name=name))
    )
    return (
        f"{where}; {len(os.sched_getaffinity(0))} cores. Python {platform.python_version()}, torch "
        f"{torch.__version__}, {packages}."
    )


def driver() -> str:
    """The version of the driver, as its own tool says it."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return "unknown (no nvidia-smi)"
    command = [tool, "--query-gpu=driver_version", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    return done.stdout.strip().partition("\n")[0] or "unknown"
