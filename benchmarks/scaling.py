"""Hours, memory and traffic of ViT-L and ViT-H on 8, 64 and 512 GPUs, derived on paper.

    python benchmarks/scaling.py            # prints the tables
    python benchmarks/scaling.py --write    # and writes them to scaling.md

Operations, weights and activations are counted by torch on shapes; the formulas are in growth.py;
rates of devices are stated beside their source. What a CPU can check is measured here: memory that
torch holds, bytes that two processes send. No GPU was at hand: utilisation is assumed.
"""

import argparse
import platform
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import growth_counted as counted
import torch
from growth import FLOAT, MOMENTS, Growth, Job, Machine, Network
from growth_traffic import traffic

from mae_bench.mae import MaskedAutoencoder
from mae_bench.recipes import recipe
from mae_bench.suite.cost import DEVICES, UTILISATION
from results.published import published
from tasks.classification.datasets import IMAGENET_1K

GPUS = (8, 64, 512)
GIB = 2**30
H100 = DEVICES["h100-80gb"]
IMAGE_BYTES = 1e9 * IMAGENET_1K.gigabytes / (IMAGENET_1K.num_train + IMAGENET_1K.num_val)
MACHINE = Machine(
    flops=1e12 * H100.tflops["bf16"],
    utilisation=UTILISATION,
    memory=H100.gib * GIB,
    launch_seconds=5e-6,
    inside_node=450e9,
    between_nodes=400e9,
    hop_seconds=10e-6,
    node=8,
    cores=16,
    images_per_core=507,
    image_bytes=IMAGE_BYTES,
    disk=5e9,
    write=1e9,
    save_seconds=600,
)
SOURCES = {
    "operations of an H100 in bf16, dense": (
        f"{H100.tflops['bf16']:g} x 10^12 a second",
        "NVIDIA's data sheet of the H100 SXM",
    ),
    "utilisation": (f"{UTILISATION:.0%}", "ASSUMED until measured by benchmarks/gpu.py"),
    "memory": (f"{H100.gib:g} GiB", "the same data sheet"),
    "host's time for an operator": ("5 µs", "ASSUMED"),
    "link inside a node": ("450 GB/s each way", "NVLink 4: 900 GB/s both ways (data sheet)"),
    "link between nodes": (
        "400 GB/s each way and node",
        "8 adapters of 400 Gbit/s (NVIDIA's data sheet of the DGX H100); each carries a ring",
    ),
    "latency of a message": ("10 µs", "ASSUMED"),
    "cores for each GPU": ("16", "ASSUMED"),
    "images a second of a core": (
        "507",
        "measured on an older AMD EPYC that others used too: benchmarks/data_loading.md",
    ),
    "bytes of an image file": (
        f"{IMAGE_BYTES / 1e3:.0f} kB",
        "ImageNet-1k: about 145 GB of training and test images",
    ),
    "disk of a node": ("5 GB/s", "ASSUMED: one NVMe drive, or a good shared file system"),
    "writing of a state": ("1 GB/s", "ASSUMED: one process, a shared file system"),
    "time between states": ("10 min", "--save-minutes"),
}
TPU_CORE = 123e12 / 2
"""operations in bf16 of a core of a TPU v3: Google's documentation says 123 x 10^12 for a chip,
which has two cores"""
TPU_CORES = 128
TABLE_2 = (  # MAE (2111.06377), Table 2: 800 epochs
    ("vit_l", {"encoder_mask_tokens": True}, "encoder w/ [M], decoder depth 8"),
    ("vit_l", {}, "encoder w/o [M], decoder depth 8"),
    ("vit_l", {"decoder_depth": 1}, "encoder w/o [M], decoder depth 1"),
    ("vit_h", {}, "encoder w/o [M], decoder depth 8"),
    ("vit_h", {"decoder_depth": 1}, "encoder w/o [M], decoder depth 1"),
)


def jobs() -> list[tuple[Network, Job]]:
    """Pre-training and fine-tuning by their recipes."""
    found = []
    for backbone in ("vit_l", "vit_h"):
        setup: Any = recipe("pretrain", backbone, "mae")
        with torch.device("meta"):
            made = counted.pretraining(backbone)
        network = counted.count(f"{backbone}, MAE pre-training", *made)
        found.append((network, Job(IMAGENET_1K.num_train, setup.epochs, setup.batch_size)))
    for backbone in ("vit_l", "vit_h"):
        setup = recipe("imagenet1k", backbone, "finetune")
        with torch.device("meta"):
            made = counted.finetuning(backbone)
        network = counted.count(f"{backbone}, fine-tuning", *made)
        job = Job(IMAGENET_1K.num_train, setup.epochs, setup.batch_size, IMAGENET_1K.num_val)
        found.append((network, job))
    return found


def table(rows: Iterable[dict[str, str]]) -> str:
    rows = list(rows)
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(list(row.values()) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def networks_table(networks: list[Network]) -> str:
    return table(
        {
            "network": each.name,
            "GFLOP of an image": f"{each.flops / 1e9:.1f}",
            "numbers that train": f"{each.trained / 1e6:.1f} M",
            "activations of an image": f"{each.activations / 2**20:.0f} MiB",
            "weights in bf16 beside": f"{each.casts / 2**20:.0f} MiB",
            "operators of a step": f"{each.launches:,}",
        }
        for each in networks
    )


def time_row(growth: Growth) -> dict[str, str]:
    return {
        "GPUs": str(growth.gpus),
        "images of a GPU": f"{growth.per_gpu:g}",
        "step, ms": f"{1e3 * growth.step_seconds:.0f}",
        "images/s": f"{growth.images_per_second:,.0f}",
        "epochs": str(growth.job.epochs),
        "hours": f"{growth.hours:.1f}",
        "by arithmetic alone": f"{growth.ideal_hours:.1f}",
        "arithmetic's share": f"{growth.efficiency:.0%}",
        "scoring, s": f"{3600 * growth.scoring_hours:.1f}" if growth.job.scored else "",
    }


def memory_row(growth: Growth) -> dict[str, str]:
    network = growth.network
    return {
        "GPUs": str(growth.gpus),
        "weights": gib(FLOAT * (network.trained + network.fixed)),
        "gradients": gib(FLOAT * network.trained),
        "DDP's buckets": gib(FLOAT * network.trained),
        "moments": gib(FLOAT * MOMENTS * network.trained),
        "weights in bf16": gib(network.casts),
        "activations": gib(growth.activation_bytes),
        "sum, DDP": gib(growth.ddp_bytes),
        "sum, FSDP": gib(growth.fsdp_bytes),
    }


def traffic_row(growth: Growth) -> dict[str, str]:
    return {
        "GPUs": str(growth.gpus),
        "sent by a GPU, DDP": f"{growth.ddp_sent / 1e9:.2f} GB",
        "FSDP": f"{growth.fsdp_sent / 1e9:.2f} GB",
        "to hide DDP's": f"{growth.bandwidth_needed / 1e9:.1f} GB/s",
        "latency": f"{1e3 * growth.latency_seconds:.1f} ms",
        "cores of a GPU that load": f"{growth.cores_needed:.1f}",
        "read by a node": f"{growth.disk_needed / 1e6:,.0f} MB/s",
        "saved state": f"{growth.state_bytes / 1e9:.1f} GB",
        "all wait for it": f"{growth.save_seconds:.0f} s",
    }


def breaks_row(growth: Growth) -> dict[str, str]:
    order = sorted(growth.pressures().items(), key=lambda each: -each[1])
    (first, most), (second, next_most), (third, less) = order[:3]
    return {
        "GPUs": str(growth.gpus),
        "first": f"{first}: {most:.2f}",
        "second": f"{second}: {next_most:.2f}",
        "third": f"{third}: {less:.2f}",
    }


def worth_it(found: list[tuple[Network, Job]]) -> str:
    """The most GPUs, by powers of two, whose time is arithmetic for the larger part."""
    rows = []
    for network, job in found:
        row = {"network": network.name, "images of a step": f"{job.batch:,}"}
        for share in (0.9, 0.5):
            sizes = [2**power for power in range(11)]
            fine = [n for n in sizes if Growth(network, job, MACHINE, n).efficiency >= share]
            row[f"GPUs with {share:.0%} arithmetic"] = str(max(fine))
        rows.append(row)
    return table(rows)


def gib(number: float) -> str:
    return f"{number / GIB:.1f}"


def paper_table() -> str:
    """Utilisation that the paper's hours amount to, by our counts of its networks."""
    hours = {
        (row.backbone, row.note): row.value
        for row in published()
        if (row.source, row.locator, row.metric) == ("mae2021", "Table 2", "hours")
    }
    rows = []
    for backbone, options, setting in TABLE_2:
        (said,) = [
            value
            for (name, text), value in hours.items()
            if name == backbone and text.startswith(setting)
        ]
        with torch.device("meta"):
            mae = MaskedAutoencoder(backbone, norm_pix=True, **options)
        side = mae.encoder.image_size
        images, noise = torch.randn(2, 3, side, side), torch.rand(2, mae.num_patches)
        flops = (counted.training_flops(mae, images, noise) or 0.0) / 2
        total = flops * IMAGENET_1K.num_train * 800
        share = total / (said * 3600 * TPU_CORES * TPU_CORE)
        rows.append(
            {
                "network": f"{backbone}, {setting}",
                "hours (paper)": f"{said:g}",
                "GFLOP of an image (counted)": f"{flops / 1e9:.1f}",
                "utilisation that follows": f"{share:.0%}",
            }
        )
    return table(rows)


def checks() -> str:
    """Formulas beside what this machine measures, at sizes that it can compute."""
    small = {"image_size": 96, "decoder_dim": 64, "decoder_depth": 2, "decoder_heads": 2}
    rows = []
    for backbone, batch in (("vit_t", 8), ("vit_s", 8)):
        network, inputs = counted.pretraining(backbone, **small)
        size = counted.count(backbone, network, inputs)
        kept = size.casts + batch * size.activations
        states = FLOAT * (size.trained * (2 + MOMENTS) + size.fixed)
        where = f"MAE {backbone}, 96 x 96 pixels, batch {batch}"
        rows.append(
            check(f"{where}: activations", kept, counted.held_bytes(network, inputs(batch)))
        )
        measured = counted.state_bytes(network, inputs(2))
        rows.append(check(f"{where}: weights, gradients, moments", states, measured))
    found = traffic({**small, "image_size": 32}, "vit_t")
    rows.append(check("MAE vit_t, 2 processes: reduced", FLOAT * found.trained, found.reduced))
    if found.sent is not None:
        each = 2 * (2 - 1) / 2 * FLOAT * found.trained
        rows.append(check("sent by each, as the kernel counts", each, found.sent))
    rows.append(check("weights of each under --shard", found.whole / 2, found.part))
    matrices = 2 * found.matrices
    rows.append(check("weights in bf16 that each keeps under --shard", matrices, found.rounded))
    return table(rows)


def check(what: str, formula: float, measured: float) -> dict[str, str]:
    return {
        "what": what,
        "formula, MB": f"{formula / 1e6:.2f}",
        "measured, MB": f"{measured / 1e6:.2f}",
        "measured / formula": f"{measured / formula:.3f}",
    }


def text() -> str:
    found = jobs()
    parts = [
        "# Growth on paper",
        "`python benchmarks/scaling.py`",
        "Nothing in the tables of hours was measured on a GPU. Operations, weights and activations "
        "are counted by torch on shapes; the formulas are in growth.py; what is put in besides:",
        table(
            {"what": what, "number": number, "source": source}
            for what, (number, source) in SOURCES.items()
        ),
        "## What is counted",
        networks_table([network for network, _ in found]),
    ]
    kinds = {
        "Hours": time_row,
        "Memory of a GPU, GiB": memory_row,
        "Traffic of a step, and data": traffic_row,
        "What breaks first (need / supply)": breaks_row,
    }
    for heading, row in kinds.items():
        parts.append(f"## {heading}")
        for network, job in found:
            lines = (row(Growth(network, job, MACHINE, gpus)) for gpus in GPUS)
            parts += [f"### {network.name}", table(lines)]
    parts += ["## How many GPUs are worth it", worth_it(found)]
    parts += ["## Beside the paper", PAPER, paper_table()]
    parts += ["## Beside measurements", checks(), machine(), NOTES]
    return "\n\n".join(parts) + "\n"


def machine() -> str:
    return (
        f"On a CPU ({platform.machine()}), Python {platform.python_version()}, torch "
        f"{torch.__version__}. Memory is what torch's allocator holds."
    )


PAPER = (
    "MAE (2111.06377), Table 2: hours of 800 epochs on 128 cores of TPU v3. With 61.5 x 10^12 "
    "operations a second of a core (Google's documentation: 123 x 10^12 of a chip of two cores) "
    "the utilisation is:"
)
NOTES = (
    "Measured: activations, states, bytes of an all-reduce (above), images a second of a core. "
    "Counted: operations, weights, operators of a step. Assumed: all that the first table calls "
    "so; `plan` assumes the same utilisation, and the paper's hours amount to it.\n\n"
    "Activations are those of all images of a GPU at once; `--device-batch` takes fewer at a time. "
    "Under `--shard` the copies in bf16, which autocast makes and the backward pass keeps, stay "
    "whole in each process. A pressure of 1 and more costs time or does not fit; hours hold what "
    "operators and the all-reduce cost, not what loading and states do. A step that is shorter "
    "than its operators' calls is what `--compile` and larger batches are for."
)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--write", action="store_true", help="write scaling.md too")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    said = text()
    print(said)
    if arguments.write:
        Path(__file__).with_suffix(".md").write_text(said)


if __name__ == "__main__":
    main()
