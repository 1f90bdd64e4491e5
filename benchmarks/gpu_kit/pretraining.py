"""A step of MAE's pre-training: ours, compiled or not, the release's arrangement, Hugging Face's.

All start from the same weights, and their losses are compared in float32 before anything is timed.
One lives on the card at a time.
"""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from counting import loss_of, training_flops
from torch import Tensor, nn

from backbones.vit import compile_blocks
from gpu_kit.part import Bench
from gpu_kit.timing import Measured, best_rate, measure
from mae_bench.mae import MaskedAutoencoder

BATCHES = {"vit_l": 256, "vit_b": 256, "vit_h": 128}
"""images; halved until they fit"""
SHARE = 0.55
TIMES = 2.0
DIFFERENCE = 1e-4
OURS, COMPILED = "mae-bench", "mae-bench, compiled blocks"
WHOLE = "mae-bench, compiled as a whole"
CHANNELS_LAST = "mae-bench, images channels last"
RELEASE, HUGGING_FACE = "the release's arrangement, fp16", "Hugging Face ViTMAE, SDPA, bf16"


class Step:
    """zero_grad, forward and backward under bf16, fused AdamW: what `mae-bench pretrain` does."""

    def __init__(self, network: nn.Module, device: str, fused: bool = True) -> None:
        self.network, self.device = network, device
        trained = [p for p in network.parameters() if p.requires_grad]
        options: dict[str, Any] = {"lr": 1e-4, "betas": (0.9, 0.95), "weight_decay": 0.05}
        self.optimiser = torch.optim.AdamW(trained, **options, fused=fused or None)

    def __call__(self, *inputs: Tensor) -> None:
        with torch.autocast(self.device, torch.bfloat16):
            loss = loss_of(self.network(*inputs))
        loss.backward()
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)


def run(bench: Bench, backbone: str) -> None:
    torch.manual_seed(0)
    tiny = {"image_size": 32, "decoder_dim": 32, "decoder_depth": 2, "decoder_heads": 2}
    name, options = bench.choose((backbone, {}), ("vit_mini", tiny))
    mae = MaskedAutoencoder(name, norm_pix=True, **options)
    rates = [best_rate(bench)]
    done: dict[str, tuple[Measured, int, float | None]] = {}
    makers = steps_of(bench, mae)
    for label, make in makers.items():
        found = bench.attempt(label, at_largest_batch, bench, mae, label, make, backbone)
        bench.release()
        if found is not None:
            done[label] = found
            tell(bench, backbone, label, found, rates[0])
            if backbone == "vit_l":  # anew each time: what comes later may take too long
                goals(bench, done, rates[0])
    rates.append(best_rate(bench))
    bench.book.note(
        "Matrix products in bf16 reached "
        + " and ".join(f"{rate / 1e12:.0f}" for rate in rates)
        + " TFLOP/s before and after; shares are of the first. FLOP are each network's own."
    )


def steps_of(bench: Bench, mae: MaskedAutoencoder) -> dict[str, Callable[[], Any]]:
    """Makers of steps by what is timed; each makes its network anew on the device."""

    def ours(compiled: str = "", fused: bool = True) -> Step:
        twin: Any = copy.deepcopy(mae).to(bench.device)
        if compiled == "blocks":
            compile_blocks(twin, backend=bench.backend)
        if compiled == "whole":
            twin.compile(backend=bench.backend)
        return Step(twin, bench.device, fused)

    def release() -> Any:
        from release_peer import Release, ReleaseStep

        half = bench.choose(torch.float16, torch.bfloat16)
        return ReleaseStep(Release(mae).to(bench.device), bench.device, half)

    def hugging_face() -> Step:
        from peers import HuggingFace

        return Step(HuggingFace(mae).to(bench.device), bench.device, fused=False)

    return {
        OURS: ours,
        RELEASE: release,
        COMPILED: lambda: ours("blocks"),
        HUGGING_FACE: hugging_face,
        "mae-bench, AdamW not fused": lambda: ours(fused=False),
        CHANNELS_LAST: ours,
        WHOLE: lambda: ours("whole"),  # last: it compiles longest
    }


def at_largest_batch(
    bench: Bench, mae: MaskedAutoencoder, label: str, make: Callable[[], Any], backbone: str
) -> tuple[Measured, int, float | None]:
    """Time, batch, FLOP of an image; half the batch where the card's memory ends."""
    batch = bench.choose(BATCHES[backbone], 2)
    side = mae.encoder.image_size
    step = make()
    flops = None
    if "compiled" not in label:  # which `exactness` compares; it would compile once more here
        compare(bench, mae, label, step.network)
        inputs = torch.randn(2, 3, side, side), noise_for(mae, 2)
        flops = bench.attempt(f"{label}: counting", training_flops, step.network, *inputs)
    while True:
        try:
            images = torch.randn(batch, 3, side, side, device=bench.device)
            if label == CHANNELS_LAST:
                images = images.to(memory_format=torch.channels_last)
            noise = noise_for(mae, batch).to(bench.device)
            found = measure(bench, partial(step, images, noise))
            return found, batch, None if flops is None else flops / 2
        except torch.OutOfMemoryError:
            if batch < 16:
                raise
            bench.book.note(f"{label}: a batch of {batch} does not fit into this card's memory")
            batch //= 2
            step.optimiser.zero_grad(set_to_none=True)
        bench.release()


def noise_for(mae: MaskedAutoencoder, batch: int) -> Tensor:
    return torch.rand(batch, mae.num_patches, generator=torch.Generator().manual_seed(1))


def compare(bench: Bench, mae: MaskedAutoencoder, label: str, network: nn.Module) -> None:
    """Raises unless the losses of one small batch agree in float32."""
    side = mae.encoder.image_size
    images, noise = torch.randn(2, 3, side, side), noise_for(mae, 2)
    with torch.no_grad():
        expected = loss_of(mae(images, noise)).item()
        found = loss_of(network(images.to(bench.device), noise.to(bench.device))).item()
    if not abs(found / expected - 1) < DIFFERENCE:
        raise RuntimeError(f"{label}: the loss is {found:.6f}, on the CPU {expected:.6f}")


def tell(
    bench: Bench,
    backbone: str,
    label: str,
    found: tuple[Measured, int, float | None],
    rate: float,
) -> None:
    measured, batch, flops = found
    if flops is None:  # a compiled network's products are those of the same one before
        flops = bench.counts.get(OURS)
    elif label == OURS:
        bench.counts[OURS] = flops
    images = batch / measured.seconds
    usual = bench.counts.setdefault("seconds", measured.seconds / batch)
    bench.book.row(
        f"MAE {backbone}, a step",
        implementation=label,
        batch=batch,
        **{
            "ms, median (min)": f"{1e3 * measured.seconds:.1f} ({1e3 * measured.least:.1f})",
            "images/s": f"{images:.1f}",
            "GFLOP per image": None if flops is None else f"{flops / 1e9:.4g}",
            "share of the measured rate": None if flops is None else percent(images * flops / rate),
            "peak GiB": round(measured.peak_gib, 1),
            "first step, s": round(measured.first, 1),
            "times mae-bench": round(measured.seconds / batch / usual, 2),
        },
    )


def percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def goals(bench: Bench, done: dict[str, tuple[Measured, int, float | None]], rate: float) -> None:
    """With the faster of compiled and not, which a user can have by a flag."""
    speeds = {label: batch / measured.seconds for label, (measured, batch, _) in done.items()}
    own = [speeds[label] for label in (OURS, COMPILED) if label in speeds]
    flops = bench.counts.get(OURS)
    share = max(own) * flops / rate if own and flops else None
    unit = "of the measured rate"
    name = "MAE ViT-L, bf16: share of the measured rate of matrix products"
    bench.book.goal(name, share, SHARE, unit)
    times = max(own) / speeds[RELEASE] if own and RELEASE in speeds else None
    bench.book.goal("MAE ViT-L against the release's arrangement", times, TIMES, "times as fast")
    if own:
        bench.book.fact("mae_l images/s", max(own))
