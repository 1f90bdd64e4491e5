"""Where and how a run happened: the parts of a record that no task knows."""

import importlib.metadata
import os
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from mae_bench.calls import called, chosen, is_interactive
from results import Earlier, Environment
from tasks.images.walk import plural

LIBRARIES = (
    "torchvision",
    "timm",
    "accelerate",
    "numpy",
    "pillow",
    "simplejpeg",
    "pycocotools",
    "faster-coco-eval",
    "onedl-mmsegmentation",
    "opencv-python",
)


OPTIONAL = ("pillow-heif",)
"""which decode images where they are installed"""


def is_installed(name: str) -> bool:
    try:
        return bool(importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return False


def device_name(device: torch.device) -> str:
    """Of a GPU, or of the processor with the threads that torch takes."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{cpu_name()}, {plural(torch.get_num_threads(), 'thread')}"


def environment(
    accelerator: Accelerator,
    sharded: bool = False,
    precision: str | None = None,
    earlier: Sequence[Earlier] = (),
) -> Environment:
    """Versions, device, processes, commit and command of this process.

    `precision`: of the run's recipe; `earlier`: where it was trained, of which what was here is no
    other place.
    """
    here = (device_name(accelerator.device), accelerator.num_processes, sharded)
    return Environment(
        python=platform.python_version(),
        torch=torch.__version__,
        versions={name: importlib.metadata.version(name) for name in LIBRARIES}
        | {name: importlib.metadata.version(name) for name in OPTIONAL if is_installed(name)},
        device=here[0],
        bf16=bf16_of_cpu() if precision == "bf16" and accelerator.device.type == "cpu" else None,
        processes=accelerator.num_processes,
        sharded=sharded,
        earlier=[e for e in earlier if (e.device, e.processes, e.sharded) != here],
        commit=commit(),
        command=command(accelerator.num_processes),
    )


def command(processes: int) -> str:
    """What was typed, as it can be typed again: the program, the user's own script, or the call."""
    call = called.get()
    if call is not None and is_interactive():
        return call
    program = Path(sys.argv[0])
    as_module = program.parts[-2:] == ("mae_bench", "__main__.py")
    own = as_module or program.stem in ("mae-bench", "cli")
    words = ["mae-bench" if own else program.name, *sys.argv[1:]]
    weights = chosen.get()  # the newest by now, and later perhaps another
    if own and words[1:2] == ["transfer"] and "--checkpoint" not in words and weights is not None:
        words += ["--checkpoint", weights]
    if processes > 1:
        alone = ["--no-python"] if own else []
        words = ["torchrun", f"--nproc_per_node={processes}", *alone, *words]
    return shlex.join(words)


def commit() -> str | None:
    """Commit of the checkout that this package runs from, "+" if files differ; None if none."""
    home = Path(__file__).parent.parent
    if not (home / ".git").exists() or shutil.which("git") is None:
        return None

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(home), *arguments], capture_output=True, text=True, check=False
        )
        return done.stdout.strip()

    head = git("rev-parse", "HEAD")
    return head + ("+" if git("status", "--porcelain", "-uno") else "") if head else None


def num_cores() -> int:
    """CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_name() -> str:
    """The processor's model name where the system tells it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


BF16 = {"amx_bf16": "AMX", "avx512_bf16": "AVX512-BF16"}
"""capability of a CPU, as torch calls it -> name of its instructions for bfloat16"""
EMULATED = "float32 instructions"


def bf16_of_cpu() -> str:
    """What oneDNN multiplies bfloat16 with on this processor, as far as torch tells."""
    told: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    if not told:
        return "instructions that this torch does not tell"
    return next((name for key, name in BF16.items() if told.get(key)), EMULATED)


def peak_memory(accelerator: Accelerator) -> int:
    """Bytes: the device's peak on a GPU, this process's peak resident memory on a CPU."""
    if accelerator.device.type == "cuda":
        return torch.cuda.max_memory_allocated(accelerator.device)
    return resident_peak()


def resident_peak() -> int:
    """Bytes of memory that this process has had at most."""
    try:
        import resource
    except ImportError:  # Windows
        import psutil

        used = psutil.Process().memory_info()
        return int(getattr(used, "peak_wset", used.rss))
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale
