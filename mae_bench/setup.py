"""What pre-training and transfer share before and after the loop."""

import json
import math
import os
import re
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, PartialState

from backbones.report import LoadReport
from mae_bench import provenance
from mae_bench.arguments import check_seed
from mae_bench.errors import RunError
from mae_bench.execution import Execution
from mae_bench.processes import meeting
from mae_bench.progress import progress, say
from mae_bench.recipes import changes
from mae_bench.run.files import RECORD_FILE
from mae_bench.run.wandb_log import refuse_keyless, refuse_missing
from mae_bench.run.writing import Run
from mae_bench.unreadable import reasons
from results import Checkpoint, Cost, Data, Earlier, Record, Sweep
from results.text import one_line
from tasks.images import Unreadable
from tasks.processes import first_alone
from tasks.recipe import Recipe
from tasks.task import Measurement, Scored, Scoring
from tasks.workers import refuse_long_tmpdir

PRETRAINING = "pretraining"
"""key of a checkpoint's metadata: the data, the seed and the beginning of its pre-training"""
ORIGIN = {"data", "seed", "continued_from", "tokenizer"}
MOST_SAID = 300


def start(how: Execution, seed: int) -> Accelerator:
    """The device and the processes: a GPU if there is one, several under torchrun.

    Seeds torch, for the initial weights. Raises `RunError` for a bad seed, for a network that is to
    be sharded in one process, for a log whose package is missing, and if this Python process has
    begun to work on another kind of device; `TaskError` where loading processes cannot be met.
    """
    check_seed(seed)
    if how.log == "wandb":
        refuse_missing()
    if how.workers:
        refuse_long_tmpdir()
    wanted = "cpu" if how.device == "cpu" or not torch.cuda.is_available() else "cuda"
    there = PartialState().device.type if PartialState._shared_state else wanted
    if there != wanted:
        raise RunError(
            f"this Python process has begun to work on {there} and cannot go on with {wanted}; "
            "start another one"
        )
    torch.manual_seed(seed)
    switch_tf32_off()
    if wanted == "cpu" and "OMP_NUM_THREADS" not in os.environ:
        # A thread that has to share its core holds up all the others at every barrier.
        torch.set_num_threads(max(1, provenance.num_cores() - how.workers))
    # The loop does its own autocasting; a launcher's settings must not add to it.
    with meeting():
        accelerator = Accelerator(cpu=wanted == "cpu", mixed_precision="no")
    if how.shard and accelerator.num_processes == 1:
        raise RunError(
            "--shard splits a network among several processes, and there is one; start them with "
            "torchrun --nproc_per_node=N --no-python mae-bench ..., or leave the flag out"
        )
    if not accelerator.is_main_process:
        warnings.simplefilter("ignore")  # the first process gives the same ones
    return accelerator


def refuse_unlogged(how: Execution, folder: Path) -> None:
    """Raise `RunError` for a log that cannot begin, of a run that is not finished yet."""
    if how.log == "wandb" and not (folder / RECORD_FILE).exists():
        first_alone(refuse_keyless)


def switch_tf32_off() -> None:
    """Let float32 be float32 on a GPU too: torch rounds the operands of its convolutions to TF32's
    10 bits of mantissa unless it is told not to, and those of products where a variable says so."""
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


@dataclass(frozen=True)
class Spent:
    """What a run took until it could be scored."""

    started: datetime
    """when the run began, before any resume"""
    seconds: float
    """training time, resumed parts added up"""
    images_per_second: float | None = None
    skipped: tuple[Unreadable, ...] = ()
    """unreadable training images"""
    flops_per_image: float | None = None
    """of its training, where they were counted"""
    parameters: int | None = None
    forward_flops: float | None = None
    latency_seconds: float | None = None
    """of its backbone, see `results.Cost`"""
    sharded: bool = False
    """whether the network lay in parts in the processes"""
    earlier: tuple[Earlier, ...] = ()
    """parts of a training that went on elsewhere"""


@dataclass(frozen=True)
class Setup:
    """Everything that determines a run's result, before it starts."""

    task: str
    base: Recipe
    """the protocol's recipe"""
    effective: Recipe
    """with the user's overrides"""
    seed: int
    data: Data
    init: str
    checkpoint: Checkpoint | None
    limit: int | None = None
    trained_on: str | None = None
    """names the training data alone; see `tasks.identity`"""
    data_notes: Sequence[str] = ()
    """what a user hears of the data, which determines nothing"""
    tokenizer: Checkpoint | None = None
    """whose tokens a pre-training predicts"""
    sweep: Sweep | None = None
    """how fields of the recipe were chosen"""
    apart: Sequence[str] = ()
    """what else sets the run apart from its protocol"""

    def identity(self) -> dict[str, Any]:
        """What a run folder belongs to."""
        return {
            "task": self.task,
            "recipe": self.effective.to_dict(),
            "seed": self.seed,
            "data": self.data.model_dump(),
            "init": self.init,
            "checkpoint": self.checkpoint.to_dict() if self.checkpoint else None,
            "limit": self.limit,
        } | {
            key: value
            for key, value in {
                "tokenizer": self.tokenizer.to_dict() if self.tokenizer else None,
                "train_fingerprint": self.trained_on,
                "sweep": self.sweep.model_dump() if self.sweep else None,
            }.items()
            if value
        }

    def origin(self) -> str:
        """What determines the weights that a pre-training makes, for their file's metadata."""
        known = {
            "data": {"name": self.data.name, "fingerprint": self.data.fingerprint},
            "seed": self.seed,
            "continued_from": self.checkpoint.to_dict() if self.checkpoint else None,
        }
        if self.tokenizer is not None:
            known["tokenizer"] = self.tokenizer.to_dict()
        return json.dumps(known)

    def record(
        self,
        run: Run,
        measured: Measurement,
        spent: Spent,
        scored: Scored,
        accelerator: Accelerator,
        more: Sequence[str] = (),
        complete: bool = True,
    ) -> Record:
        """The finished run; `more` deviations from its protocol."""
        changed = changes(self.base, self.effective)
        swept = self.sweep.grid if self.sweep else ()
        deviations = [str(each) for each in changed if each.field not in swept]
        deviations += [str(self.sweep)] if self.sweep else []
        deviations += self.apart
        deviations += measured.caveats(accelerator.num_processes)
        if self.limit is not None:
            deviations.append(f"limited to {self.limit} images")
        deviations += more
        return make_record(
            {
                "name": run.folder.name,
                "kind": "pretrain" if self.task == "pretrain" else "transfer",
                "protocol": self.effective.protocol,
                "task": self.task,
                "backbone": self.effective.backbone,
                "init": self.init,
                "checkpoint": self.checkpoint,
                "tokenizer": self.tokenizer,
                "data": self.data,
                "recipe": self.effective.to_dict(),
                "recipe_hash": self.effective.digest(),
                "deviations": deviations,
                "changed": changed,
                "sweep": self.sweep,
                "seed": self.seed,
                "complete": complete,
                "data_notes": list(self.data_notes),
            },
            spent,
            scored,
            accelerator,
        )


def make_record(
    known: dict[str, Any], spent: Spent, scored: Scored, accelerator: Accelerator
) -> Record:
    """The one maker of records: what is `known` of a run, what it took, and what it scored.

    Raises `RunError` for a score that is not defined: there is no record without one.
    """
    undefined = [name for name, value in scored.metrics.items() if not math.isfinite(value)]
    if undefined or not scored.metrics:
        what = f"{', '.join(undefined)} not defined" if undefined else "no score is defined"
        raise RunError(
            f"{known['name']}: {what} on these test images of {known['data'].name}, as when none "
            "is labelled, so there is no record; what was trained is kept: put the test set right, "
            "and the same command scores it"
        )
    return Record(
        **known
        | {
            "metrics": scored.metrics,
            "intervals": scored.intervals,
            "cost": Cost(
                seconds=spent.seconds,
                images_per_second=spent.images_per_second,
                peak_memory_bytes=provenance.peak_memory(accelerator),
                flops_per_image=spent.flops_per_image,
                parameters=spent.parameters,
                forward_flops=spent.forward_flops,
                latency_seconds=spent.latency_seconds,
            ),
            "environment": provenance.environment(
                accelerator, spent.sharded, known["recipe"].get("precision"), spent.earlier
            ),
            "started": spent.started,
            "finished": max(datetime.now(UTC), spent.started),  # clocks are set back at times
            "skipped_images": len(spent.skipped) + len(scored.unreadable),
            "unreadable": reasons(spent.skipped, scored.unreadable),
        }
    )


def checkpoint_of(loaded: LoadReport) -> Checkpoint:
    """The weights that were loaded, with what their file says of how they came about."""
    return traced(
        loaded.file,
        loaded.sha256,
        loaded.metadata,
        read_as=[f"{name} {value}" for name, value in loaded.read_as.items()],
        assumed=loaded.assumed,
    )


def traced(file: str, sha256: str, metadata: Mapping[str, str], **facts: Any) -> Checkpoint:
    """A file of weights, with what its metadata say of how they came about."""
    known = metadata.get(PRETRAINING)
    found = metadata.get("recipe_hash", "")
    told = found if re.fullmatch("[0-9a-f]{8,64}", found) else None
    facts |= {"file": file, "sha256": sha256, "recipe_hash": told}
    try:
        more = {} if known is None else json.loads(known)
        if not isinstance(more, dict) or not more.keys() <= ORIGIN:
            raise ValueError("expected an object of data, seed, continued_from and tokenizer")
        return Checkpoint.model_validate(facts | more)
    except (ValueError, RecursionError) as error:  # pydantic's own complaint is one too
        reason = one_line(str(error), MOST_SAID)
        raise RunError(
            f"checkpoint {file}: its metadata's {PRETRAINING} is not as mae-bench writes "
            f"it: {reason}"
        ) from None


def scoring(
    measured: Measurement, how: Execution, accelerator: Accelerator, **more: Any
) -> Scoring:
    """How to score; `RunError` if there are no logits, which are to be kept."""
    if how.save_logits and not measured.has_logits:
        raise RunError("--save-logits: there are no logits to keep here; leave the flag out")
    return Scoring(
        device=accelerator.device,
        workers=how.workers,
        save_logits=how.save_logits,
        max_bad_images=how.max_bad_images,
        say=say,
        **more,
    )


def timed(measured: Measurement, how: Scoring, title: str, images: int) -> tuple[Scored, Spent]:
    """The scores of so many images, under a bar with a title; what scoring took."""
    started, began = datetime.now(UTC), time.monotonic()
    with progress(title, images) as bar:
        scored = measured.evaluate(replace(how, on_progress=bar.update))
    seconds = time.monotonic() - began
    return scored, Spent(started, seconds, images_per_second=images / seconds)


def tell_changes(base: Recipe, effective: Recipe) -> None:
    """Say what a recipe changes of its protocol, also what follows from what a user asked for."""
    changed = changes(base, effective)
    if changed:
        say(f"differs from {base.protocol}: {'; '.join(map(str, changed))}")


def already_finished(run: Run) -> Record | None:
    """The record of a finished run, after a line that says so."""
    record = run.record
    if record is not None:
        say(f"{run.folder} is finished; nothing to do (another --name starts anew)")
    return record
