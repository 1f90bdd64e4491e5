"""`mae-bench evaluate`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

import mae_bench
from mae_bench.arguments import check_common
from mae_bench.commands.shared import ReadingFlags, flag, go_on
from mae_bench.execution import Execution


@dataclass
class Evaluate(ReadingFlags):
    """Score what a run has trained again, or an imagenet1k classifier on another test set.

    A run of any task, finished or interrupted, is scored on its own test set or on the one of
    --data. With --on, the result is a run folder with a protocol such as imagenet_a/finetune@1.
    """

    source: Annotated[Positional[Path], arg(metavar="RUN")]
    """folder of a run, or the file of a classifier that was released, such as
    mae_finetuned_vit_base.pth, or the folder of one that transformers wrote; such a file is tested
    as it says, and else as flags say"""
    on: str | None = None
    """{test sets}, or imagenet1k (its val folder alone);
    needs a finished imagenet1k run or a file (default: the test set of --data)"""
    data: str | None = None
    """without --on: data of the run's classes, as transfer takes them, or the test set alone
    ({test sources}; default: where the run had them); with --on: folder of the test set (default:
    mini, its twin in the miniature world)"""
    out: Path | None = None
    """folder of all runs (default: the one that the run is in)"""
    name: str | None = None
    """folder of the result inside it (default: made of the run and the test set)"""
    limit: int | None = None
    """use so many images only, in imagenet_c of each corruption and severity; the result is marked
    as shortened"""
    workers: int = 2
    """loader processes per process; 0 loads in the process itself"""
    device: Literal["auto", "cpu"] = "auto"
    """auto takes a GPU if there is one"""
    save_logits: bool = False
    """keep the logits too; not on imagenet_c, which has too many"""
    backbone: str | None = None
    """of a file: its size, as in transfer"""
    init: str | None = None
    """of a file: short name of how it was pre-trained, for the tables (default: the file's)"""
    classes: Path | None = None
    """of a file: its wnids in the order of its outputs, one per line (default: ImageNet-1k's)"""
    image_size: int | None = None
    """of a file: pixels of the side of its images (default: those of its positions)"""
    pooling: Literal["cls", "patches"] | None = None
    """of a file: what its classifier reads, the class token or the mean of the patches, where the
    file does not tell"""
    test_crop_ratio: float | None = None
    """of a file: side of the test crop / side of the resized image (default: of a configuration
    beside the file, else 0.875 up to 224 pixels and 1 above)"""

    def run(self) -> None:
        check_common(self.out, self.name, limit=self.limit)
        how = Execution(workers=self.workers, device=self.device, save_logits=self.save_logits)
        where = (self.data, self.out, self.name, self.limit)
        record = mae_bench.evaluate(
            self.source,
            self.on,
            *where,
            how,
            self.backbone,
            self.init,
            self.classes,
            image_size=self.image_size,
            pooling=self.pooling,
            test_crop_ratio=self.test_crop_ratio,
            **self.reading(),
        )
        beside = "runs" if self.source.is_file() else self.source.parent
        if record is not None:
            go_on("report", *flag("runs", self.out or beside, "runs"))
