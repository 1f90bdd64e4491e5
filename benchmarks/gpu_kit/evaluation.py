"""What scoring takes: features, nearest neighbours, classes."""

import torch

import backbones
from backbones.vit import compile_blocks
from gpu_kit.part import Bench
from gpu_kit.timing import measure, seconds_of
from tasks.classification import knn

TABLE = "Scoring"


def run(bench: Bench) -> None:
    torch.manual_seed(0)
    bench.attempt("nearest neighbours", neighbours, bench)
    for compiled in (False, True):
        for backbone in bench.choose(("vit_b", "vit_l", "vit_h"), ("vit_mini",)):
            bench.attempt(f"features of {backbone}", features, bench, backbone, compiled)
            bench.release()


def features(bench: Bench, backbone: str, compiled: bool) -> None:
    side = backbones.SIZES[backbone].pretrain_image
    vit = backbones.create(backbone, side).to(bench.device).eval()
    if compiled:
        compile_blocks(vit, backend=bench.backend)
    batch = bench.choose(256, 2)
    images = torch.randn(batch, 3, side, side, device=bench.device)

    @torch.no_grad()
    def forward() -> None:
        with torch.autocast(bench.device, torch.bfloat16):
            vit(images)

    found = measure(bench, forward)
    bench.book.row(
        TABLE,
        what=f"forward pass of {backbone}, bf16, batch {batch}" + ", compiled blocks" * compiled,
        **{"images/s": f"{batch / found.seconds:.0f}", "peak GiB": round(found.peak_gib, 1)},
    )


def neighbours(bench: Bench) -> None:
    """ImageNet's sizes: 1,281,167 training and 50,000 test images."""
    bank, queries, width = bench.choose((1_281_167, 50_000, 768), (500, 50, 8))
    there = torch.randn(bank, width), torch.randn(queries, width)
    device = torch.device(bench.device)
    knn.nearest(there[1][:10], there[0][:1000], 5, device)
    seconds = seconds_of(bench, lambda: knn.nearest(there[1], there[0], 20, device), 1)
    bench.book.row(
        TABLE,
        what=f"20 nearest of {bank:,} x {width} to {queries:,}, float32",
        **{"images/s": f"{queries / seconds:.0f}", "seconds": f"{seconds:.1f}"},
    )
