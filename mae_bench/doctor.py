"""`mae-bench doctor`: whether this machine can run the benchmark, one line per finding."""

import importlib.metadata
import os
import platform
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from rich.markup import escape

from mae_bench.errors import first_line
from mae_bench.progress import console
from tasks.check import Finding, Status

EXTRAS = {
    "dev": "only the tests need it",
    "bench": "only benchmarks/ needs it",
    "docs": "only building the documentation needs it",
    "notebook": "only data frames and notebooks need it",
    "heif": "only HEIC images need it",
    "onnx": "only export --to onnx needs it",
    "slurm": "only suite --launcher slurm needs it",
    "wandb": "only --log wandb needs it",
}
GPU = re.compile(r"nvidia-|cuda-|triton")
"""distributions that only a GPU uses"""
CPU_ONLY = (
    "install torch and torchvision from PyTorch's index of CPU-only packages (pytorch.org names "
    "it) into a fresh environment, then mae-bench"
)
GIB = 2**30
FREE_GIB = 5.0
"""a ViT-L run keeps two states of 3.6 GB each; the miniature world needs far less"""


def doctor(out: str | Path = "runs") -> list[Finding]:
    """Check Python, the required and optional packages, torch with torchvision, GPU, disk."""
    findings = [python(), *packages(), installation()]
    findings += [torchvision_operators(), gpu(), cores(), disk(Path(out))]
    return findings


def python() -> Finding:
    version, wanted = platform.python_version(), Requirement("python>=3.11").specifier
    if version not in wanted:
        return Finding("problem", f"Python {version}, needs {wanted}", "use a newer Python")
    return Finding("ok", f"Python {version}")


def packages() -> list[Finding]:
    """Every requirement of the installed project."""
    try:
        lines = importlib.metadata.requires("mae-bench") or []
    except importlib.metadata.PackageNotFoundError:
        return [Finding("problem", "mae-bench is not installed", "pip install . in its checkout")]
    return list(dict.fromkeys(package(line) for line in lines))


def package(line: str) -> Finding:
    """Check one requirement of the installed project, extras included."""
    wanted = Requirement(line)
    marker = str(wanted.marker or "")
    extra = marker.partition("==")[2].strip(" \"'") if marker.startswith("extra") else ""
    if wanted.marker and not extra and not wanted.marker.evaluate():
        return Finding("ok", f"{wanted.name} is not needed on this system")
    group = f"mae-bench[{extra}]" if extra else "mae-bench"
    try:
        version = importlib.metadata.version(wanted.name)
    except importlib.metadata.PackageNotFoundError:
        use = EXTRAS.get(extra, "")
        fix = f"pip install '{group}'"
        if extra:
            return Finding("note", f"{wanted.name} is not installed ({use})", fix)
        return Finding("problem", f"{wanted.name} is not installed", fix)
    if not wanted.specifier.contains(Version(version).base_version, prereleases=True):
        fix = f"pip install '{wanted.name}{wanted.specifier}'"
        status: Status = "note" if extra else "problem"
        return Finding(status, f"{wanted.name} {version}, needs {wanted.specifier}", fix)
    return Finding("ok", f"{wanted.name} {version}")


def installation() -> Finding:
    """How large it is, and how to have less of it where there is no GPU."""
    sizes = {name: bytes_of(name) for name in required("mae-bench")}
    total, for_gpus = sum(sizes.values()), sum(sizes[name] for name in sizes if GPU.match(name))
    what = f"installed: mae-bench with what it needs, {total / GIB:.1f} GiB"
    if for_gpus < GIB / 2:
        return Finding("ok", f"{what}, without libraries for GPUs")
    more = f"{what}, of it {for_gpus / GIB:.1f} GiB for GPUs"
    if has_gpu():
        return Finding("ok", more)
    return Finding("note", more, f"nothing to do; or, for less: {CPU_ONLY}")


def required(name: str) -> set[str]:
    """A distribution and all that it needs, without extras, by their names."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        each = canonicalize_name(waiting.pop())
        if each in found:
            continue
        try:
            lines = importlib.metadata.requires(each) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        found.add(each)
        wanted = map(Requirement, lines)
        waiting += [w.name for w in wanted if not w.marker or w.marker.evaluate({"extra": ""})]
    return found


def bytes_of(name: str) -> int:
    """Of all files that were installed with a distribution."""
    files = importlib.metadata.files(name) or []
    return sum(file.size or 0 for file in files)


def has_gpu() -> bool:
    try:
        import torch
    except (ImportError, OSError):
        return False
    return torch.cuda.is_available()


def torchvision_operators() -> Finding:
    """A CPU-only torch next to the ordinary torchvision, or vice versa, fails when it is used."""
    try:
        import torch
    except (ImportError, OSError) as error:  # OSError: a shared library that is missing
        fix = "pip install --force-reinstall torch"
        return Finding("problem", f"torch does not import: {first_line(error)}", fix)
    try:
        import torchvision
        from torchvision.ops import nms
    except (ImportError, OSError, RuntimeError) as error:
        return mismatch(torch.__version__, error)
    try:
        nms(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.tensor([1.0]), 0.5)
    except (RuntimeError, NotImplementedError) as error:
        return mismatch(torch.__version__, error)
    return Finding("ok", f"torchvision {torchvision.__version__} fits torch {torch.__version__}")


def mismatch(torch_version: str, error: Exception) -> Finding:
    """torch and torchvision were built for each other, or they do not work together."""
    return Finding(
        "problem",
        f"torchvision does not work with torch {torch_version} ({first_line(error)})",
        "pip install --force-reinstall 'torch>=2.11,<2.16' torchvision, both from the same index: "
        "the ordinary pair, which runs on CPU too, or a CPU-only pair",
    )


def gpu() -> Finding:
    try:
        import torch
    except (ImportError, OSError):
        return Finding("problem", "GPU unknown, because torch does not import", "see above")
    if not torch.cuda.is_available():
        return Finding(
            "note",
            "no GPU: the miniature world runs on CPU, the full data sets would take months",
            "nothing to do for quickstart; else run on a machine with an NVIDIA GPU and its driver",
        )
    memory = torch.cuda.get_device_properties(0).total_memory / 2**30
    bf16 = torch.cuda.is_bf16_supported()
    name = f"{torch.cuda.get_device_name(0)}, {memory:.0f} GiB"
    if not bf16:
        return Finding("note", f"{name}, without bf16", "add --precision fp32 to the commands")
    return Finding("ok", name)


def cores() -> Finding:
    return Finding("ok", f"{os.cpu_count()} CPU cores")


def disk(out: Path) -> Finding:
    """Free space where runs are written."""
    folder = out.absolute()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free / 2**30
    what = f"{free:.1f} GiB free for {out}"
    if not folder.is_dir():
        return Finding("problem", f"{folder} is a file", "choose another --out")
    if not os.access(folder, os.W_OK):
        return Finding("problem", f"{folder} is not writable", "choose another --out")
    if free < FREE_GIB:
        fix = f"free some space, or choose another --out (about {FREE_GIB:.0f} GiB for a ViT-L)"
        return Finding("problem", what, fix)
    return Finding("ok", what)


def examine(out: str | Path = "runs") -> bool:
    """`mae-bench doctor`: print every finding; whether there is no problem."""
    return show(doctor(out))


def show(findings: Sequence[Finding]) -> bool:
    """Print a line for each finding, and a verdict; whether there is no problem."""
    sign = {"ok": "[green]ok     [/]", "note": "[yellow]note   [/]", "problem": "[red]PROBLEM[/]"}
    for each in findings:
        fix = f"  ->  {escape(each.fix)}" if each.fix else ""
        console.print(f"{sign[each.status]} {escape(each.what)}{fix}")
    problems = sum(each.status == "problem" for each in findings)
    console.print(f"{problems} problem{'s' * (problems != 1)}" if problems else "ready")
    return not problems
