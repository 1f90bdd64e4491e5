"""Where and how a run happened: the parts of a record that no task knows."""

import importlib.metadata
import os
import platform
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import torch
from accelerate import Accelerator

from mae_bench.calls import called, chosen, is_interactive
from results import Environment
from tasks.images.walk import plural

LIBRARIES = (
    "torchvision",
    "timm",
    "accelerate",
    "numpy",
    "pillow",
    "simplejpeg",
    "pycocotools",
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


def environment(accelerator: Accelerator, sharded: bool = False) -> Environment:
    """Versions, device, processes, commit and command of this process."""
    if accelerator.device.type == "cuda":
        device = torch.cuda.get_device_name(accelerator.device)
    else:
        device = f"{cpu_name()}, {plural(torch.get_num_threads(), 'thread')}"
    return Environment(
        python=platform.python_version(),
        torch=torch.__version__,
        versions={name: importlib.metadata.version(name) for name in LIBRARIES}
        | {name: importlib.metadata.version(name) for name in OPTIONAL if is_installed(name)},
        device=device,
        processes=accelerator.num_processes,
        sharded=sharded,
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
