"""`mae-bench pretrain`."""

from dataclasses import asdict, dataclass, field
from typing import Annotated

from tyro.conf import arg

import mae_bench
from mae_bench import recipes
from mae_bench.arguments import check_common, pretraining
from mae_bench.commands.shared import ReadingFlags, RunFlags, flag, go_on
from mae_bench.execution import Execution, TrainingExecution
from mae_bench.flags import changed
from mae_bench.pretraining.methods import METHODS


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
        pretraining(self.backbone, overrides, self.method)
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
        go_on("transfer", "--checkpoint", self.out / record.name, *flag("data", self.data, "mini"))
