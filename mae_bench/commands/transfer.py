"""`mae-bench transfer`."""

from dataclasses import dataclass
from typing import Annotated, Any

from tyro.conf import UseAppendAction

import mae_bench
from mae_bench.arguments import check_common, transferring
from mae_bench.commands.shared import ReadingFlags, RunFlags, flag, go_on
from mae_bench.errors import RunError
from mae_bench.flags import changed, one_point
from mae_bench.grid import HOLDOUT, read_grid, read_sweep
from mae_bench.starting import Start, settle
from tasks.face import CURVE


@dataclass
class Transfer(ReadingFlags, RunFlags):
    """Measure a backbone on a downstream task.

    The recipe flags show the recipe of the given --task, --protocol and --backbone, and in
    brackets where each value comes from.
    """

    backbone: str | None = None  # type: ignore[assignment]
    """as for pretrain (default: what the weights say they are of; the recipe below is then
    vit_mini's, unless --checkpoint names a file)"""
    task: str = "imagenet1k"
    """{tasks}"""
    protocol: str | None = None
    """{protocols}"""
    data: str = "mini"
    """folder of the data set, or mini for the built-in miniature world{sources}"""
    checkpoint: str | None = None
    """weights: a run's folder or its name in --out (default: the newest finished pre-training in
    --out, of --backbone if that is given); a file of MAE, MoCo v3, BEiT, DINO, DeiT, AugReg, timm,
    torchvision, OpenMMLab, Hugging Face or our own; an index of shards or a folder of Hugging
    Face's; timm:<model> or hf:<repository>, with a network; or the folder of --init's released
    file"""
    init: str | None = None
    """short name of what the weights came from, for the tables (default: from the checkpoint);
    mae, moco_v3, beit, dino or supervised without a file: the released weights of that name, see
    mae-bench weights list; scratch: random weights, the same as --protocol scratch"""
    limit: int | None = None
    """use so many images only; the result is marked as shortened"""

    sweep: Annotated[tuple[tuple[str, ...], ...], UseAppendAction] = ()
    """FIELD=VALUE,VALUE: values of recipe fields, of which the best is taken; several fields make
    every combination; each is scored on held-out training images, never on the test set; marks the
    result"""
    sweep_holdout: float = HOLDOUT
    """with --sweep: share of the training images, of each class, that is held out to choose by"""

    def run(self) -> None:
        check_common(self.out, self.name, self.seed, self.limit)
        begun = settle(
            self.task,
            self.protocol,
            self.backbone,
            self.checkpoint,
            self.init,
            self.out,
            **self.reading(),
        )
        self.backbone = begun.backbone
        overrides = changed(self, self.task, begun.protocol)
        self.refuse_unfit(begun, overrides)
        given = self.arguments() | overrides | {"sweep": self.swept()}
        if begun.protocol == CURVE:
            del given["protocol"]
            mae_bench.partial_curve(**given)
        else:
            mae_bench.transfer(**given)
        go_on("report", *flag("runs", self.out, "runs"))

    def swept(self) -> dict[str, list[Any]] | None:
        """Recipe fields and the values that a sweep tries; None: there is no sweep."""
        if not self.sweep and self.sweep_holdout != HOLDOUT:
            raise RunError("--sweep-holdout: nothing is swept; give --sweep too, or leave it out")
        return read_sweep(self.sweep) if self.sweep else None

    def refuse_unfit(self, begun: Start, overrides: dict[str, Any]) -> None:
        """Raise a one-line error for flags that contradict each other, before torch is imported."""
        base, _ = transferring(
            self.task,
            begun.backbone,
            one_point(self.task, begun.protocol),
            begun.checkpoint,
            begun.init,
            overrides,
            self.execution,
            **self.reading(),
        )
        sweep = self.swept()
        if sweep is not None:
            read_grid(sweep, base, overrides, self.sweep_holdout)
        if self.data != "mini":
            from mae_bench.data import task_root

            task_root(self.task, self.data)
