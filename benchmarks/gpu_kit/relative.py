"""Attention with decomposed relative positions over 64 x 64 tokens: time and memory by form."""

from collections.abc import Callable
from typing import Any

import torch
from detection_attention import FORMS, OURS, WIDTH, explicit
from torch import Tensor

from backbones.relative import attend_decomposed, distance_terms
from gpu_kit.part import GIB, Bench
from gpu_kit.timing import measure

TABLE = "bf16, forward and backward"
TOLERANCE = 3e-2
FLEX = "flex attention, compiled"
ON_CPU_ALONE = "mae-bench, PyTorch's attention of wider heads"
"""what the form "mae-bench" is on a GPU"""


def flex(q: Tensor, k: Tensor, v: Tensor, rel_h: Tensor, rel_w: Tensor) -> Tensor:
    """The same by torch's flex attention, which looks the two numbers up in its kernel."""
    from torch.nn.attention.flex_attention import flex_attention

    rows, columns = (each.flatten(2, 3) for each in distance_terms(q, rel_h, rel_w))
    side = rows.shape[-1]

    def add(score: Any, image: Any, head: Any, query: Any, key: Any) -> Any:
        down, right = key // side, key % side
        return score + rows[image, head, query, down] + columns[image, head, query, right]

    return flex_attention(q, k, v, score_mod=add)


def run(bench: Bench) -> None:
    """ViTDet's ViT-B: 12 heads of width 64."""
    torch.manual_seed(0)
    forms: dict[str, Callable[..., Tensor]] = {
        name: form for name, form in FORMS.items() if name != ON_CPU_ALONE
    }
    forms["mae-bench, compiled"] = torch.compile(attend_decomposed, backend=bench.backend)
    forms[FLEX] = torch.compile(flex, backend=bench.backend)
    order = [OURS, *(name for name in forms if name != OURS)]
    for title, batch, side in bench.choose(
        (
            ("global, 64 x 64 tokens", 1, 64),
            ("global, 64 x 64 tokens", 4, 64),
            ("windows, 14 x 14 tokens", 25, 14),
        ),
        (("global, 4 x 4 tokens", 1, 4),),
    ):
        usual: list[float] = []
        for name in order:
            what = f"{title}, batch {batch}: {name}"
            bench.attempt(what, compare, bench, name, forms[name])
            cells = bench.attempt(what, time_form, bench, name, forms[name], batch, side, usual)
            if cells:
                bench.book.row(TABLE, tokens=title, batch=str(batch), form=name, **cells)


def time_form(
    bench: Bench,
    name: str,
    form: Callable[..., Tensor],
    batch: int,
    side: int,
    usual: list[float],
) -> dict[str, Any]:
    inputs, upstream = inputs_of(bench, name, batch, bench.choose(12, 2), side)

    def step() -> None:
        gradients(form(*inputs), inputs, upstream)

    before = torch.cuda.memory_allocated() / GIB if bench.device == "cuda" else 0.0
    found = measure(bench, step)
    usual.append(found.seconds)
    return {
        "ms, median (min)": f"{1e3 * found.seconds:.2f} ({1e3 * found.least:.2f})",
        "times mae-bench": round(found.seconds / usual[0], 2),
        "peak GiB over the inputs": round(found.peak_gib - before, 2),
        "first, s": round(found.first, 1),
    }


def gradients(out: Tensor, inputs: list[Tensor], upstream: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(out, inputs, upstream) if out.requires_grad else ()


def inputs_of(
    bench: Bench, name: str, batch: int, heads: int, side: int
) -> tuple[list[Tensor], Tensor]:
    """q, k, v, both tables, and the gradient of the output."""
    shape = (batch, heads, side**2, WIDTH)
    kind = {"dtype": torch.bfloat16, "device": bench.device}
    inputs = [torch.randn(shape, **kind) for _ in range(3)]
    inputs += [0.1 * torch.randn(2 * side - 1, WIDTH, **kind) for _ in range(2)]
    trains = name != FLEX or bench.device == "cuda"  # which has no backward pass on a CPU
    return [each.requires_grad_(trains) for each in inputs], torch.randn(shape, **kind)


def compare(bench: Bench, name: str, form: Callable[..., Tensor]) -> None:
    """Raises unless output and gradients are those of the explicit form in float64."""
    inputs, upstream = inputs_of(bench, name, 1, 2, bench.choose(16, 4))
    exact = [each.detach().double().requires_grad_() for each in inputs]
    expected = explicit(*exact)
    out = form(*inputs)
    found = [out, *gradients(out, inputs, upstream)]
    wanted = [expected, *torch.autograd.grad(expected, exact, upstream.double())]
    pairs = zip(found, wanted[: len(found)], strict=True)
    errors = [((a - b).norm() / b.norm()).item() for a, b in pairs]
    if not max(errors) < TOLERANCE:
        raise RuntimeError(f"{name}: differs by {max(errors):.1e} from float64")
