"""What a step says of itself, read so late that no device waits for it.

On a GPU the numbers of a step are read while the next one is computed, and what follows from them
(a line of the log, the end over a loss that is not finite, a signal to another process) comes that
much later. Nothing is saved before all that lies behind it is read. On a CPU there is nothing to
gain: they are read at once.
"""

import math
from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from mae_bench.batches import MicroBatches
from mae_bench.errors import Diverged
from mae_bench.progress import Bar, say
from mae_bench.run.keeping import Keeper
from mae_bench.run.log import TrainingLog
from tasks.images import Unreadable
from tasks.processes import first_alone

LAG = {"cpu": 0}
"""type of a device -> steps that are on their way while the next one is computed"""
USUAL_LAG = 1


@dataclass
class Step:
    """This process's part of an optimiser step, a micro-batch an entry."""

    losses: list[Tensor] = field(default_factory=list)
    """scalars, on the device"""
    images: list[list[int]] = field(default_factory=list)
    """their indices"""
    skipped: list[Unreadable] = field(default_factory=list)
    """unreadable images"""


class Known(NamedTuple):
    """A step as all processes see it: but for `suspects`, the same in each of them."""

    step: int
    """counted from 0"""
    lr: float
    loss: float
    """mean over all micro-batches"""
    stop: int
    """number of a signal that any process got, or 0"""
    due: bool
    """whether it is time to save"""
    skipped: list[Unreadable]
    """unreadable images"""
    suspects: list[int]
    """this process's image indices of the micro-batches whose loss is not finite, or all"""


class Copy:
    """Numbers on their way from a device to this process."""

    def __init__(self, numbers: Tensor) -> None:
        self.here = numbers.to("cpu", non_blocking=True)  # into pinned memory
        self.arrived = None
        if numbers.device.type == "cuda":
            # A thread that waits for it sleeps: loading processes need the core.
            self.arrived = torch.cuda.Event(blocking=True)
            self.arrived.record()

    def read(self) -> list[list[float]]:
        """The numbers, once they are there."""
        if self.arrived is not None:
            self.arrived.synchronize()
        return self.here.tolist()


@dataclass
class Sent:
    """A step whose numbers are on their way."""

    step: int
    lr: float
    mine: Step
    numbers: Copy
    """of each process a row: its losses; of several its signal, whether it is time to save, and how
    many images it skipped"""
    stop: int
    due: bool


class Steps:
    """The steps whose numbers are on their way, the oldest first."""

    def __init__(
        self,
        accelerator: Accelerator,
        keeper: Keeper,
        log: TrainingLog,
        bar: Bar,
        plan: MicroBatches,
    ) -> None:
        self.accelerator, self.keeper, self.plan = accelerator, keeper, plan
        self.log, self.bar = log, bar
        self.lag = LAG.get(accelerator.device.type, USUAL_LAG)
        self.sent: deque[Sent] = deque()

    def send(self, step: int, lr: float, mine: Step, stop: int, due: bool) -> None:
        """Start a step's numbers on their way; with several processes, to all of them."""
        row = torch.stack(mine.losses).double()
        if self.accelerator.num_processes > 1:
            told = (stop, due, len(mine.skipped))
            # Filled on the device: a number that is copied there has to wait for it.
            row = torch.cat([row, *(row.new_full((1,), float(number)) for number in told)])
            row = self.accelerator.gather(row[None])
        else:
            row = row[None]
        self.sent.append(Sent(step, lr, mine, Copy(row), stop, due))

    def settle(self, left: int | None = None) -> list[Known]:
        """The steps to be read by now: all but the newest `left`; None: as many as may be late.

        Every process reads the same ones at the same time, for they exchange what they skipped.
        Raises `Diverged` for a loss that is not finite, and `TaskError` for too many unreadable
        images.
        """
        found = []
        while len(self.sent) > (self.lag if left is None else left):
            known = self.read(self.sent[0])
            if not math.isfinite(known.loss):
                raise self.not_finite("loss is", known)
            self.sent.popleft()
            leave_out(known.skipped, self.keeper)
            found.append(known)
        return found

    def tell(self, known: list[Known]) -> None:
        """Remember and log the losses of steps that are known to be good."""
        for each in known:
            self.keeper.note(each.loss, first=each.step % self.plan.steps_per_epoch == 0)
            self.log.write(each.step + 1, each.loss, each.lr, self.bar)

    def settle_alone(self) -> list[Known] | None:
        """The same of all, without other processes, which may be gone; None: a loss is not finite.

        Of the images that others could not read nothing is known then.
        """
        found = [self.read(each, alone=True) for each in self.sent]
        self.sent.clear()
        for known in found:
            if not math.isfinite(known.loss):
                return None
            leave_out(known.skipped, self.keeper)
        return found

    def read(self, sent: Sent, alone: bool = False) -> Known:
        rows, count, mine = sent.numbers.read(), len(sent.mine.losses), sent.mine
        means = [sum(value / count for value in row[:count]) for row in rows]
        loss, stop, due, skipped = means[0], sent.stop, sent.due, mine.skipped
        if len(rows) > 1:
            loss = torch.tensor(means, dtype=torch.float64).mean().item()
            stops, dues, skips = zip(*(row[count:] for row in rows), strict=True)
            stop, due = int(max(stops)), any(dues)
            if any(skips) and not alone:
                skipped = gather_object(mine.skipped)
        own = zip(rows[self.accelerator.process_index][:count], mine.images, strict=True)
        bad = [i for value, images in own if not math.isfinite(value) for i in images]
        suspects = bad or [i for images in mine.images for i in images]
        due = due and sent.step >= self.keeper.step  # else a state was saved since
        return Known(sent.step, sent.lr, loss, stop, due, skipped, suspects)

    def not_finite(self, what: str, known: Known) -> Diverged:
        """The error that ends a diverged run; all file names go to a file in the run folder."""
        run, data = self.keeper.run, self.keeper.parts["model"].train_data
        names = sorted(set(gather_object(data.names(known.suspects))))
        file = run.folder / "not_finite.txt"
        text = "".join(f"{name}\n" for name in names)
        first_alone(lambda: file.write_text(text, errors="surrogateescape"))
        shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        kept = run.state_files()
        return Diverged(
            f"{what} not finite at step {known.step + 1} of {self.plan.num_steps} "
            f"(lr {known.lr:.3e}); images: {shown} (all in {file}); "
            + (f"last good state: {kept[-1]}" if kept else "no state was saved before it")
            + "; lower --base-lr or use --precision fp32"
        )


def leave_out(skipped: list[Unreadable], keeper: Keeper) -> None:
    """Name and count unreadable images; `TaskError` once they are too many."""
    bad, before = keeper.bad, len(keeper.bad)
    try:
        for each in skipped:
            if each.name not in bad:
                bad.add(each)
                place = f"{len(bad)} of at most {bad.limit}"
                say(f"left out an unreadable image, {place}: {each.name}: {each.reason}")
    finally:
        if len(bad) > before:
            keeper.write_unreadable()
