"""The process of one part: what is missing, too large or broken is written down, and it goes on."""

import gc
import importlib
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from gpu_kit.book import Book
from gpu_kit.parts import PARTS

T = TypeVar("T")
ROOT = Path(__file__).parents[2]
GIB = 2**30


class Bench:
    """What every part gets."""

    def __init__(self, book: Book, out: Path, seconds: float, rehearse: bool) -> None:
        self.book, self.out, self.rehearse = book, out, rehearse
        self.end = time.monotonic() + seconds
        self.device = "cpu" if rehearse else "cuda"
        self.counts: dict[str, float] = {}
        """what later lines of a table are relative to"""

    @property
    def left(self) -> float:
        """Seconds."""
        return self.end - time.monotonic()

    @property
    def backend(self) -> str:
        """Of torch.compile, which from now on fails where it would leave something uncompiled."""
        from torch._dynamo import config

        config.fail_on_recompile_limit_hit = True
        return self.choose("inductor", "eager")

    def choose(self, real: T, tiny: T) -> T:
        """A size for the GPU, or for a rehearsal."""
        return tiny if self.rehearse else real

    def attempt(self, what: str, do: Callable[..., T], *arguments: Any) -> T | None:
        """What `do` returns; None, and a line in the book, if it cannot. The next one follows."""
        if self.left < 0:
            self.book.missing(what, "the part's time was over")
            return None
        self.book.begin(what)
        try:
            return do(*arguments)
        except Exception as error:
            traceback.print_exc()
            tell(self.book, what, error)
        self.release()  # outside, where no traceback holds tensors any more
        return None

    def release(self) -> None:
        """Give memory back before the next network, and forget what was compiled."""
        torch = sys.modules.get("torch")
        if "torch._dynamo" in sys.modules:
            sys.modules["torch._dynamo"].reset()
        gc.collect()
        if torch is not None and self.device == "cuda":
            torch.cuda.empty_cache()


def tell(book: Book, what: str, error: Exception) -> None:
    """Write down why something was not measured."""
    lines = str(error).strip().splitlines()
    reason = f"{type(error).__name__}: {lines[0] if lines else ''}"[:300]
    if isinstance(error, ModuleNotFoundError):
        book.missing(what, f"needs the package {error.name}")
    elif isinstance(error, ImportError) or "needs mmsegmentation" in reason:
        book.missing(what, reason)
    elif type(error).__name__ == "OutOfMemoryError":
        book.missing(what, f"more memory than this card's {card_gib():.0f} GiB")
    else:
        book.failed(what, reason)


def card_gib() -> float:
    import torch

    return torch.cuda.get_device_properties(0).total_memory / GIB


def work(name: str, out: Path, seconds: float, rehearse: bool) -> int:
    """Run one part in this process; 0 if it came to its end, whatever it found."""
    book = Book(out / f"{name}.jsonl")
    bench = Bench(book, out, seconds, rehearse)
    sys.path.insert(0, str(ROOT))
    bench.attempt(PARTS[name].title, whole, name, bench)
    return 0


def whole(name: str, bench: Bench) -> None:
    import torch

    if not bench.rehearse and not torch.cuda.is_available():
        raise RuntimeError("there is no CUDA device; --rehearse runs on a CPU")
    switch_tf32_off(torch)
    if bench.rehearse:
        torch.set_num_threads(1)
    importlib.import_module(f"gpu_kit.{PARTS[name].module}").run(bench, *PARTS[name].arguments)


def switch_tf32_off(torch: Any) -> None:
    """As `mae_bench.setup`, which needs more packages than some parts do."""
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
