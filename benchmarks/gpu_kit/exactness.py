"""Every path that a kernel takes on a GPU, against the same arithmetic in float64 on the CPU.

What goes in is rounded first, so that the error is the kernel's own. An error is the largest
difference of the output and of any gradient, by the largest number of that tensor; of a whole
network, by the norm of all gradients together.
"""

import copy
import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from detection_attention import explicit
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from backbones.dense import WindowAttention
from backbones.relative import attend_decomposed, class_token_bias
from backbones.vit import (
    Attention,
    Block,
    Mlp,
    PatchEmbed,
    attend,
    compile_blocks,
    join_heads,
    split_heads,
)
from gpu_kit.part import Bench
from mae_bench.mae import MaskedAutoencoder
from tasks.ade20k.resized import conv_of_resized
from tasks.coco.pyramid import SimplePyramid, norm_layer

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
TOLERANCES = {"fp32": 2e-5, "bf16": 3e-2}
"""of kernels; float32 with TF32's 10 bits would be off by 5e-4 or more"""
OF_NETWORKS = {"fp32": 1e-4, "bf16": 5e-2}
"""of whole networks, whose roundings add up"""
KERNELS = {
    "the one torch takes": None,
    "flash": SDPBackend.FLASH_ATTENTION,
    "memory-efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cuDNN": SDPBackend.CUDNN_ATTENTION,
    "explicit": SDPBackend.MATH,
}
TABLE = "Largest errors against float64"
Function = Callable[..., Tensor]


class Judge:
    """Compares, and counts what is within its tolerance."""

    def __init__(self, bench: Bench) -> None:
        self.bench, self.good, self.all = bench, 0, 0

    def attempt(self, path: str, precision: str, compare: Callable[[], float], most: float) -> None:
        """One line of the table. A kernel that the card does not have is missing, not wrong."""
        error = self.bench.attempt(f"{path}, {precision}", within_kernels, compare)
        if error == NO_KERNEL:
            self.bench.book.missing(f"{path}, {precision}", "there is no such kernel here")
            return
        self.all += 1
        if error is None:
            return
        fine = error <= most
        self.good += fine
        verdict = "yes" if fine else "NO"
        cells = {"path": path, "precision": precision, "error": f"{error:.1e}"}
        self.bench.book.row(TABLE, **cells, tolerance=f"{most:.0e}", within=verdict)


NO_KERNEL = -1.0


def within_kernels(compare: Callable[[], float]) -> float:
    try:
        return compare()
    except RuntimeError as error:
        if any(words in str(error) for words in ("No available kernel", "No viable backend")):
            return NO_KERNEL
        raise


def run(bench: Bench) -> None:
    judge = Judge(bench)
    torch.manual_seed(0)
    for precision, kind in PRECISIONS.items():
        try_functions(bench, judge, precision, kind)
        try_modules(bench, judge, precision)
        try_networks(bench, judge, precision)
    for name, options in {"fused": {"fused": True}, "foreach": {"foreach": True}}.items():
        compare = functools.partial(adamw_error, bench, options)
        judge.attempt(f"AdamW, {name}, 20 steps", "fp32", compare, 1e-5)
    passed = judge.good / judge.all if judge.all else None
    bench.book.goal("kernels within their tolerance", passed, 1.0, f"of {judge.all}")


def try_functions(bench: Bench, judge: Judge, precision: str, kind: torch.dtype) -> None:
    """Attention in all its forms, which no module hides."""
    most = TOLERANCES[precision]
    tokens, width, heads = bench.choose((197, 512, 8), (17, 32, 2))
    packed = [torch.randn(4, tokens, 3 * width)]
    for name, kernel in KERNELS.items():
        ours = functools.partial(attend_by, kernel, heads)
        theirs = functools.partial(plain, heads=heads)
        compare = functools.partial(function_error, bench, kind, ours, theirs, packed)
        judge.attempt(f"attention, kernel: {name}", precision, compare, most)
    queries = tokens // 2
    ours = functools.partial(attend, num_heads=heads, num_queries=queries)
    theirs = functools.partial(plain, heads=heads, queries=queries)
    compare = functools.partial(function_error, bench, kind, ours, theirs, packed)
    judge.attempt("attention, last queries alone", precision, compare, most)
    side = bench.choose(14, 4)
    inputs = [torch.randn(4, side**2 + 1, 3 * width), torch.randn((2 * side - 1) ** 2 + 3, heads)]
    ours = functools.partial(biased, heads, True)
    theirs = functools.partial(biased, heads, False)
    compare = functools.partial(function_error, bench, kind, ours, theirs, inputs)
    judge.attempt("attention, biases of BEiT", precision, compare, most)
    compiled = torch.compile(attend_decomposed, backend=bench.backend)
    for side in bench.choose((14, 32, 64), (4, 6)):
        shape = (1, 1, side**2, 64)
        inputs = [torch.randn(shape) for _ in range(3)]
        inputs += [0.1 * torch.randn(2 * side - 1, 64) for _ in range(2)]
        for name, ours in {"": attend_decomposed, ", compiled": compiled}.items():
            compare = functools.partial(function_error, bench, kind, ours, explicit, inputs)
            judge.attempt(f"relative positions, {side} x {side}{name}", precision, compare, most)
    sides, channels = bench.choose((64, 32, 16, 8), (8, 4, 2, 1)), bench.choose(256, 8)
    inputs = [torch.randn(channels, 4 * channels, 3, 3) / (36 * channels) ** 0.5]
    inputs += [torch.randn(2, channels, side, side) for side in sides]
    ours, theirs = resized_after, resized_first
    compare = functools.partial(function_error, bench, kind, ours, theirs, inputs)
    judge.attempt("UperNet's convolution of resized maps", precision, compare, most)


def try_modules(bench: Bench, judge: Judge, precision: str) -> None:
    """Parts of a network, bf16 by autocast, as in training."""
    width, heads, batch = bench.choose((1024, 16, 8), (32, 2, 2))
    tokens = torch.randn(batch, bench.choose(50, 5), width)
    images = torch.randn(batch, 3, bench.choose(224, 32), bench.choose(224, 32))
    patches = torch.randn(batch, 49, 3 * 16**2)
    grid = torch.randn(1, 20, 20, width)  # which windows do not divide
    block = Block(width, heads)
    windows = WindowAttention(width, heads, bench.choose(14, 8), "decomposed")
    for table in (windows.rel_pos_h, windows.rel_pos_w):
        nn.init.normal_(table, std=0.1)
    modules: dict[str, tuple[nn.Module, Tensor]] = {
        "layer norm": (nn.LayerNorm(width, eps=1e-6), tokens),
        "patch embedding, convolution": (PatchEmbed(16, width), images),
        "patch embedding, rows": (Rows(PatchEmbed(16, width)), patches),
        "attention with projections": (Attention(width, heads), tokens),
        "MLP": (Mlp(width), tokens),
        "block": (block, tokens),
        "windows of a map": (windows, grid),
        "feature pyramid": (Levels(width), torch.randn(1, width, 16, 16)),
        "block, compiled": (Compiled(block, bench.backend), tokens),
    }
    for name, (module, given) in modules.items():
        compare = functools.partial(module_error, bench, precision, module, given)
        judge.attempt(name, precision, compare, TOLERANCES[precision])


def try_networks(bench: Bench, judge: Judge, precision: str) -> None:
    """A masked autoencoder's loss and all its gradients."""
    small = {"decoder_dim": 32, "decoder_depth": 1, "decoder_heads": 2, "image_size": 32}
    options: dict[str, Any] = bench.choose({"decoder_depth": 4}, small)
    mae = MaskedAutoencoder(bench.choose("vit_s", "vit_mini"), norm_pix=True, **options)
    side = mae.encoder.image_size
    images, noise = torch.randn(4, 3, side, side), torch.rand(4, mae.num_patches)
    for name in ("", ", compiled blocks"):
        compare = functools.partial(network_error, bench, precision, mae, images, noise, bool(name))
        path = f"masked autoencoder: loss and gradients{name}"
        judge.attempt(path, precision, compare, OF_NETWORKS[precision])


class Rows(nn.Module):
    def __init__(self, embed: PatchEmbed) -> None:
        super().__init__()
        self.embed = embed

    def forward(self, pixels: Tensor) -> Tensor:
        return self.embed.rows(pixels)


class Levels(nn.Module):
    """The pyramid of detection, with convolutions of both kinds; its levels in one row."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.pyramid = SimplePyramid(width, 64, norm_layer("layer"))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([level.flatten() for level in self.pyramid([x]).values()])


class Compiled(nn.Module):
    """A copy, so that the reference is not compiled too."""

    def __init__(self, block: Block, backend: str) -> None:
        super().__init__()
        self.block = copy.deepcopy(block)
        self.backend = backend

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype == torch.float64:
            return self.block(x)
        return torch.compile(self.block, backend=self.backend)(x)


def plain(
    qkv: Tensor, heads: int, queries: int | None = None, bias: Tensor | None = None
) -> Tensor:
    """`attend`, written out."""
    q, k, v = split_heads(qkv, heads)
    logits = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5
    weights = (logits if bias is None else logits + bias).softmax(dim=-1)
    return join_heads((weights @ v)[:, :, -queries if queries else 0 :])


def attend_by(kernel: SDPBackend | None, heads: int, qkv: Tensor) -> Tensor:
    if kernel is None:
        return attend(qkv, heads)
    with sdpa_kernel(kernel):
        return attend(qkv, heads)


def biased(heads: int, fused: bool, qkv: Tensor, table: Tensor) -> Tensor:
    way = attend if fused else plain
    return way(qkv, heads, None, class_token_bias(table))


def resized_after(weight: Tensor, *maps: Tensor) -> Tensor:
    return conv_of_resized(weight, maps)


def resized_first(weight: Tensor, *maps: Tensor) -> Tensor:
    size = maps[0].shape[2:]
    resized = [F.interpolate(each, size, mode="bilinear", align_corners=False) for each in maps]
    return F.conv2d(torch.cat(resized, 1), weight, padding=1)


def function_error(
    bench: Bench, kind: torch.dtype, ours: Function, theirs: Function, inputs: Sequence[Tensor]
) -> float:
    """Of an output and of the gradients of all inputs."""
    rounded = [x.to(kind) for x in inputs]
    there = [x.to(bench.device).requires_grad_() for x in rounded]
    exact = [x.double().requires_grad_() for x in rounded]
    out, expected = ours(*there), theirs(*exact)
    upstream = torch.randn(expected.shape).to(kind)
    found = torch.autograd.grad(out, there, upstream.to(bench.device))
    wanted = torch.autograd.grad(expected, exact, upstream.double())
    return largest([out, *found], [expected, *wanted])


def module_error(bench: Bench, precision: str, module: nn.Module, given: Tensor) -> float:
    """Of an output and of the gradients of the input and all parameters."""
    twin = copy.deepcopy(module).to(bench.device)
    exact = copy.deepcopy(module).double()
    x = given.to(bench.device).requires_grad_()
    y = given.double().requires_grad_()
    with torch.autocast(bench.device, torch.bfloat16, enabled=precision == "bf16"):
        out = twin(x)
    expected = exact(y)
    upstream = torch.randn(expected.shape)
    found = torch.autograd.grad(out, [x, *twin.parameters()], upstream.to(out))
    wanted = torch.autograd.grad(expected, [y, *exact.parameters()], upstream.double())
    return largest([out, *found], [expected, *wanted])


def network_error(
    bench: Bench,
    precision: str,
    mae: MaskedAutoencoder,
    images: Tensor,
    noise: Tensor,
    compiled: bool,
) -> float:
    bench.release()  # graphs of other networks count too
    twin, exact = copy.deepcopy(mae).to(bench.device), copy.deepcopy(mae).double()
    if compiled:
        compile_blocks(twin, backend=bench.backend)
    with torch.autocast(bench.device, torch.bfloat16, enabled=precision == "bf16"):
        loss = twin(images.to(bench.device), noise.to(bench.device)).loss
    loss.backward()
    expected = exact(images.double(), noise.double()).loss
    expected.backward()
    found = gradient(twin)
    wanted = gradient(exact)
    error = (found.cpu().double() - wanted).norm() / wanted.norm()
    return max(error.item(), abs(loss.item() / expected.item() - 1))


def gradient(module: nn.Module) -> Tensor:
    return torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])


def adamw_error(bench: Bench, options: dict[str, bool]) -> float:
    """Of what 20 steps with given gradients add to the weights."""
    start = 0.02 * torch.randn(bench.choose(10**6, 10**3))
    generator = torch.Generator().manual_seed(1)
    gradients = [torch.randn(start.shape, generator=generator) for _ in range(20)]
    numbers = {"lr": 1e-3, "betas": (0.9, 0.95), "weight_decay": 0.05}
    moved = []
    for where, kind, how in (
        (bench.device, torch.float32, options),
        ("cpu", torch.float64, {"foreach": False}),
    ):
        weight = nn.Parameter(start.to(where, kind, copy=True))
        optimiser = torch.optim.AdamW([weight], **numbers, **how)
        for each in gradients:
            weight.grad = each.to(where, kind)
            optimiser.step()
        moved.append(weight.detach().cpu().double() - start)
    return largest(moved[:1], moved[1:])


def largest(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> float:
    """Of all tensors; not a number counts as infinite."""
    worst = 0.0
    for one, other in zip(found, wanted, strict=True):
        error = (one.detach().cpu().double() - other.detach()).abs().max() / other.abs().max()
        worst = max(worst, error.nan_to_num(float("inf")).item())
    return worst
