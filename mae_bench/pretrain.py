"""`mae-bench pretrain`: train a masked autoencoder and keep its encoder."""

import re
from pathlib import Path
from typing import Any

from backbones.baselines import name_of
from backbones.checkpoint import describe, save
from backbones.loading import anatomy_metadata
from backbones.reading import Reading
from mae_bench import __version__
from mae_bench.arguments import SCRATCH, check_common, pretraining
from mae_bench.data import announce, pretraining_folders
from mae_bench.errors import RunError
from mae_bench.execution import Execution
from mae_bench.pretraining.pictures import reconstruction_sheet
from mae_bench.pretraining.recipes import PRETRAIN, PretrainRecipe
from mae_bench.pretraining.task import Pretraining
from mae_bench.progress import duration, say
from mae_bench.run.files import BACKBONE_FILE, MAE_FILE
from mae_bench.run.writing import Run, open_run, run_folder
from mae_bench.setup import (
    PRETRAINING,
    Setup,
    already_finished,
    checkpoint_of,
    scoring,
    start,
    tell_changes,
)
from mae_bench.starting import located
from mae_bench.train import fit, refuse_unfit
from mae_bench.unreadable import write_unreadable
from results import Data, Record, write_record
from tasks.task import Scored

PICTURE_FILE = "reconstructions.png"
NUM_PICTURED = 12


def pretrain(
    backbone: str = "vit_mini",
    data: str | Path = "mini",
    out: str | Path = "runs",
    name: str | None = None,
    seed: int = 0,
    execution: Execution | None = None,
    checkpoint: str | Path | None = None,
    format: str | None = None,
    allow_pickle: bool = False,
    key: str | None = None,
    prefix: str | None = None,
    heads: int | None = None,
    grid: str | None = None,
    **overrides: Any,
) -> Record:
    """Pre-train `backbone` on a folder of images and write its checkpoint into the run folder.

    `checkpoint` holds weights to start from in place of random ones: an encoder, or MAE's encoder
    and decoder, in a file, the folder of a run or a run of that name in `out`; `format` to `grid`
    say how to read it, see `backbones.load`. `overrides` are fields of
    `PretrainRecipe`. A run of the same name goes on where it stopped, and a finished one is
    returned as it is. Bad input raises a one-line error before training.
    """
    how = execution or Execution()
    words: dict[str, Any] = {"format": format, "key": key, "prefix": prefix, "grid": grid}
    check_common(out, name, seed, data=data, checkpoint=checkpoint, **words)
    reading = Reading(**words, allow_pickle=allow_pickle, heads=heads)
    if checkpoint is None and reading != Reading():
        raise RunError("--format to --grid say how a checkpoint is read; there is no --checkpoint")
    if checkpoint is not None:
        checkpoint, chosen = located(checkpoint, out, whole=True)
        for line in chosen:
            say(line)
    base, effective = pretraining(backbone, overrides)
    assert isinstance(effective, PretrainRecipe)
    accelerator = start(how, seed)
    folders = pretraining_folders(data)
    task = Pretraining(effective, folders, seed)
    init, weights, after = SCRATCH, None, ""
    if checkpoint is not None:
        loaded = task.continue_from(checkpoint, reading)
        say(str(loaded))
        weights, init = checkpoint_of(loaded), loaded.method or name_of(Path(checkpoint))
        after = re.sub("[/:]", "-", f"-after-{init}")
    folder = run_folder(out, f"pretrain-{backbone}{after}-seed{seed}" if name is None else name)
    refuse_unfit(task, accelerator, seed)
    scoring(task, how, accelerator)  # there is nothing to evaluate
    facts = Data.model_validate(task.data_facts() | {"miniature": announce(folders[0])})
    notes = task.notes()
    for note in notes:
        say(note)
    setup = Setup(PRETRAIN, base, effective, seed, facts, init, weights, data_notes=notes)
    tell_changes(base, effective)
    with open_run(folder, setup.identity()) as run:
        record = already_finished(run)
        if record is not None:
            return record
        fitted = fit(task, run, accelerator, seed, how)
        record = setup.record(
            run, task, fitted.spent, Scored({"loss": fitted.last_loss}), accelerator
        )
        if accelerator.is_main_process:
            keep(run, task, setup)
            write_unreadable(run.folder, fitted.spent.skipped, ())
            write_record(run.folder, record)
            tell(run, record)
    return record


def keep(run: Run, task: Pretraining, setup: Setup) -> None:
    """Write the encoder, the whole autoencoder, and a picture of reconstructions."""
    mae, recipe = task.mae, task.recipe
    origin = describe(
        {
            "producer": "mae-bench",
            "method": "mae",
            "image_size": recipe.image_size,
            "norm_pix": recipe.norm_pix,
            "recipe_hash": recipe.digest(),
            PRETRAINING: setup.origin(),
        }
    )
    origin |= anatomy_metadata(mae.encoder)
    save(mae.encoder.state_dict(), run.folder / BACKBONE_FILE, origin)
    save(mae.checkpoint(), run.folder / MAE_FILE, origin)
    keys = [(0, i) for i in range(min(NUM_PICTURED, len(task.train_data)))]
    pictured = task.train_data.__getitems__(keys)
    reconstruction_sheet(task, pictured, run.folder / PICTURE_FILE)


def tell(run: Run, record: Record) -> None:
    """What was made and how to go on."""
    seconds = record.cost.seconds or 0.0
    say(
        f"pre-trained {record.backbone} in {duration(seconds)}, loss {record.metrics['loss']:.4f}\n"
        f"  checkpoint       {run.folder / BACKBONE_FILE}\n"
        f"  reconstructions  {run.folder / PICTURE_FILE}\n"
        + "".join(f"  unreadable       {line}\n" for line in record.unreadable)
        + f"  to repeat        {record.environment.command}  (seed {record.seed}, recipe "
        f"{record.recipe_hash}, mae-bench {record.environment.commit or __version__})"
    )
