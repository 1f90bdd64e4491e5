"""`mae-bench pretrain`."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

import mae_bench
import tasks
from mae_bench import recipes
from mae_bench.arguments import check_common, pretraining
from mae_bench.commands.shared import ReadingFlags, RunFlags, flag, go_on
from mae_bench.execution import Execution, TrainingExecution
from mae_bench.flags import changed
from mae_bench.pretraining.methods import METHODS
from mae_bench.tokenizers import refuse_start, tokenizer_file


@dataclass
class Pretrain(ReadingFlags, RunFlags):
    """Train a masked autoencoder, or by another method, and keep the encoder.

    The recipe flags show the recipe of the given --method and --backbone, and in brackets where
    each value comes from.
    """

    method: str = "mae"
    """{methods}"""
    checkpoint: str | None = None
    """weights to start from (default: random ones): an encoder of any layout that transfer takes,
    or MAE's encoder and decoder, as mae_pretrain_vit_*_full.pth; or a run's folder or its name"""

    tokenizer: str | None = None
    """of methods that predict tokens: DALL-E's encoder.pkl, or the folder or the name of a run of
    --method tokenizer (default: on the miniature world, the newest one in --out)"""
    execution: Annotated[TrainingExecution, arg(name="")] = field(  # type: ignore[assignment]
        default_factory=TrainingExecution
    )

    def run(self) -> None:
        overrides = changed(self, recipes.PRETRAIN, self.method)
        check_common(self.out, self.name, self.seed)
        _, recipe = pretraining(self.backbone, overrides, self.method)
        refuse_start(self.method, self.checkpoint)
        tokenizer_file(self.method, recipe, self.tokenizer, self.out, self.data)
        if self.data != "mini":
            METHODS[self.method].find(self.data)
        how = Execution(**asdict(self.execution))
        record = mae_bench.pretrain(**self.arguments() | {"execution": how}, **overrides)
        if not METHODS[self.method].makes_encoder:
            go_on(
                "pretrain",
                *("--method", "beit"),
                *flag("backbone", self.backbone, "vit_mini"),
                *("--tokenizer", self.out / record.name),
                *flag("data", self.data, "mini"),
            )
            return
        go_on("transfer", "--checkpoint", self.out / record.name, *transfer_data(self.data))


def transfer_data(data: str) -> list[object]:
    """Words for `transfer` on the same images; DIR for one's own without class folders."""
    root = Path(data)
    if data == "mini" or not root.is_dir():
        return flag("data", data, "mini")
    from mae_bench.suite.folders import looks_like  # slow, and --help needs it not

    rows = [row for face in tasks.faces() for row in face.datasets() if row.name != "folder"]
    released = any(
        each.name in ("train", "ILSVRC") or each.suffix in (".tar", ".zip")
        for each in root.iterdir()
    )  # ImageNet's, also with a flat val/, Kaggle's, in archives
    if released or any(looks_like(row, root) for row in rows):
        return ["--data", data]
    inside = [each for each in root.iterdir() if each.is_dir() and each.name[0] != "."]
    return ["--task", "folder", "--data", data] if len(inside) > 1 else ["--data", "DIR"]
