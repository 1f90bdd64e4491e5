"""Does masked pre-training pay on the miniature world? Measured over several seeds.

    python benchmarks/miniature_gain.py --write         # about 45 minutes on 2 cores
    python benchmarks/miniature_gain.py --seeds 0 1

For every seed: pre-train on the unlabelled images, then fine-tune and probe on the labelled ones;
train from scratch by the same recipe, and, for the seeds of --longer, once more for as many
optimiser steps as pre-training and fine-tuning take together. The images, their order and the
test set are the same; only the initial weights and the length differ. Runs that are there already
are not repeated, so several processes may share the seeds.
"""

import argparse
from pathlib import Path

from mae_bench import pretrain, transfer
from mae_bench.execution import Execution
from results import Record, comparison_table, published, to_markdown

BACKBONE = "vit_mini"
TITLE = """# What masked pre-training gains on the miniature world

`python benchmarks/miniature_gain.py --write`
"""
NOTES = "## What was tried"


def runs_of(seed: int, out: Path, how: Execution, longer: bool) -> list[Record]:
    """All runs of one seed; `longer`: also the long one from scratch."""
    common = {"backbone": BACKBONE, "out": out, "seed": seed, "execution": how}
    before = pretrain(name=f"pretrain-{seed}", **common)
    weights = {"checkpoint": out / f"pretrain-{seed}" / "backbone.safetensors", "init": "MAE"}
    tuned = transfer(protocol="finetune", name=f"finetune-{seed}", **weights, **common)
    probed = transfer(protocol="linear", name=f"linear-{seed}", **weights, **common)
    scratch = transfer(protocol="scratch", name=f"scratch-{seed}", **common)
    records = [before, tuned, probed, scratch]
    if not longer:
        return records
    epochs = scratch.recipe["epochs"] * (1 + round(steps(before) / steps(scratch)))
    name = f"scratch-{epochs}-epochs-{seed}"
    return [*records, transfer(protocol="scratch", name=name, epochs=epochs, **common)]


def steps(record: Record) -> int:
    """Optimiser steps of a run."""
    per_epoch = record.data.train_images // record.recipe["batch_size"]
    return record.recipe["epochs"] * per_epoch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="*", default=range(3))
    parser.add_argument(
        "--longer", type=int, nargs="*", default=[1], help="seeds trained longer too"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/miniature_gain"))
    parser.add_argument("--write", action="store_true", help="write miniature_gain.md")
    options = parser.parse_args()
    how = Execution(workers=0, save_minutes=1.0)
    records = [
        record
        for seed in options.seeds
        for record in runs_of(seed, options.out, how, seed in options.longer)
    ]
    text = to_markdown(comparison_table(records, published()))
    print(text)
    if options.write:
        file = Path(__file__).with_suffix(".md")
        _, heading, notes = file.read_text().partition(NOTES) if file.exists() else ("", "", "")
        file.write_text(f"{TITLE}\n{text}\n{heading}{notes}")


if __name__ == "__main__":
    main()
