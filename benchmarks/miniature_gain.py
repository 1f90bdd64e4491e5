"""Does masked pre-training pay on the miniature world? Measured over several seeds.

    python benchmarks/miniature_gain.py                 # about an hour on 2 cores
    python benchmarks/miniature_gain.py --seeds 2 --write

For every seed: pre-train on the unlabelled images, then fine-tune and probe on the labelled ones;
train from scratch by the same recipe, and once more for as many optimiser steps as pre-training
and fine-tuning take together. The same images, order of images and test set; only the initial
weights and the length differ. Runs that are there already are not repeated.
"""

import argparse
from pathlib import Path

from mae_bench import pretrain, transfer
from mae_bench.execution import Execution
from mae_bench.recipes import recipe
from results import Record, comparison_table, published, to_markdown

BACKBONE = "vit_mini"


def runs_of(seed: int, out: Path, how: Execution) -> list[Record]:
    """All runs of one seed."""
    pretrain(BACKBONE, "mini", out, f"pretrain-{seed}", seed, how)
    checkpoint = out / f"pretrain-{seed}" / "backbone.safetensors"
    records = []
    for protocol in ("finetune", "linear"):
        records.append(
            transfer(
                backbone=BACKBONE,
                protocol=protocol,
                checkpoint=checkpoint,
                init="MAE",
                out=out,
                name=f"{protocol}-{seed}",
                seed=seed,
                execution=how,
            )
        )
    for name, overrides in (("scratch", {}), ("scratch-long", {"epochs": as_long()})):
        records.append(
            transfer(
                backbone=BACKBONE,
                protocol="scratch",
                out=out,
                name=f"{name}-{seed}",
                seed=seed,
                execution=how,
                **overrides,
            )
        )
    return records


def as_long() -> int:
    """Epochs from scratch that take as many steps as pre-training and fine-tuning together."""
    before = recipe("pretrain", BACKBONE, "mae")
    after = recipe("imagenet1k", BACKBONE, "finetune")
    unlabelled, labelled = 22_000, 2_000
    steps = before.epochs * (unlabelled // before.batch_size)
    return after.epochs + round(steps / (labelled // after.batch_size))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("runs/miniature_gain"))
    parser.add_argument("--write", action="store_true", help="write miniature_gain.md")
    options = parser.parse_args()
    how = Execution(workers=0, save_minutes=1.0)
    records = [r for seed in range(options.seeds) for r in runs_of(seed, options.out, how)]
    text = to_markdown(comparison_table(records, published()))
    print(text)
    if options.write:
        Path(__file__).with_suffix(".md").write_text(text)


if __name__ == "__main__":
    main()
