"""`mae-bench pretrain`."""

from dataclasses import dataclass

import mae_bench
from mae_bench import recipes
from mae_bench.arguments import check_common, pretraining
from mae_bench.commands.shared import ReadingFlags, RunFlags, flag, go_on
from mae_bench.flags import changed


@dataclass
class Pretrain(ReadingFlags, RunFlags):
    """Train a masked autoencoder and keep its encoder.

    The recipe flags show the recipe of the given --backbone, and in brackets where each value
    comes from.
    """

    checkpoint: str | None = None
    """weights to start from (default: random ones): an encoder of any layout that transfer takes,
    or MAE's encoder and decoder, as mae_pretrain_vit_*_full.pth; or a run's folder or its name"""

    def run(self) -> None:
        overrides = changed(self, recipes.PRETRAIN, "mae")
        check_common(self.out, self.name, self.seed)
        pretraining(self.backbone, overrides)
        if self.data != "mini":
            from mae_bench.data import pretraining_folders

            pretraining_folders(self.data)
        record = mae_bench.pretrain(**self.arguments(), **overrides)
        go_on("transfer", "--checkpoint", self.out / record.name, *flag("data", self.data, "mini"))
