"""`mae-bench pretrain`: train an encoder without a downstream task and keep it."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from backbones.baselines import name_of
from backbones.checkpoint import describe, save
from backbones.loading import anatomy_metadata
from backbones.reading import Reading
from mae_bench import __version__
from mae_bench.arguments import SCRATCH, check_common, pretraining
from mae_bench.cost import with_flops
from mae_bench.data import announce
from mae_bench.errors import RunError
from mae_bench.execution import Execution
from mae_bench.pretraining.methods import METHODS
from mae_bench.pretraining.recipes import PRETRAIN
from mae_bench.pretraining.task import Pretraining
from mae_bench.pretraining.tokenizer import Tokenizer, read_tokenizer
from mae_bench.progress import duration, progress, say
from mae_bench.run.files import BACKBONE_FILE
from mae_bench.run.writing import Run, open_run, run_folder
from mae_bench.setup import (
    PRETRAINING,
    Setup,
    already_finished,
    checkpoint_of,
    refuse_unlogged,
    scoring,
    start,
    tell_changes,
    traced,
)
from mae_bench.starting import located
from mae_bench.tokenizers import QUICK, refuse_start, tokenizer_file
from mae_bench.train import fit, refuse_unfit
from mae_bench.unreadable import write_unreadable
from results import Data, Record, write_record
from tasks.task import Scored, Scoring

USUAL = "mae"
"""the method of a run whose name tells none"""


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
    method: str = USUAL,
    tokenizer: str | Path | None = None,
    **overrides: Any,
) -> Record:
    """Pre-train `backbone` on a folder of images and write its checkpoint into the run folder.

    `method` is a name in `mae_bench.pretraining.methods`, and `overrides` are fields of its recipe.
    `checkpoint` holds weights to start from in place of random ones: an encoder, or MAE's encoder
    and decoder, in a file, the folder of a run or a run of that name in `out`; `format` to `grid`
    say how to read it, see `backbones.load`. `tokenizer` is DALL-E's encoder.pkl, or a run of the
    method tokenizer, for a recipe that predicts tokens. A run of the same name goes on where it
    stopped, and a finished one is returned as it is. Bad input raises a one-line error before
    training.
    """
    how = execution or Execution()
    if how.eval_every:
        raise RunError("--eval-every: for transfers, whose scores it shows; leave it out")
    words: dict[str, Any] = {"format": format, "key": key, "prefix": prefix, "grid": grid}
    check_common(out, name, seed, data=data, checkpoint=checkpoint, tokenizer=tokenizer, **words)
    reading = Reading(**words, allow_pickle=allow_pickle, heads=heads)
    if checkpoint is None and reading != Reading():
        raise RunError("--format to --grid say how a checkpoint is read; there is no --checkpoint")
    base, effective = pretraining(backbone, overrides, method)
    refuse_start(method, checkpoint)
    if checkpoint is not None:
        checkpoint, chosen = located(checkpoint, out, whole=True)
        for line in chosen:
            say(line)
    tokens = tokenizer_for(method, effective, tokenizer, out, data)
    accelerator = start(how, seed)
    known = METHODS[method]
    task = known.build(effective, known.read(data, how.max_bad_images), seed)
    task.tokenizer = tokens
    init, weights, after = SCRATCH, None, ""
    if checkpoint is not None:
        loaded = task.continue_from(checkpoint, reading)
        say(str(loaded))
        weights, init = checkpoint_of(loaded), loaded.method or name_of(Path(checkpoint))
        after = re.sub("[/:]", "-", f"-after-{init}")
    which = backbone if method == USUAL else f"{method}-{backbone}"
    folder = run_folder(out, f"pretrain-{which}{after}-seed{seed}" if name is None else name)
    refuse_unlogged(how, folder)
    refuse_unfit(task, accelerator, seed, how)
    scored_by = scoring(task, how, accelerator, batch_size=effective.device_batch)
    facts = Data.model_validate(task.data_facts() | {"miniature": announce(task.folders[0])})
    notes = task.notes()
    for note in notes:
        say(note)
    setup = Setup(
        PRETRAIN,
        base,
        effective,
        seed,
        facts,
        init,
        weights,
        tokenizer=None if tokens is None else traced(tokens.name, tokens.sha256, tokens.metadata),
        data_notes=notes,
        apart=apart(backbone, tokens),
    )
    tell_changes(base, effective)
    with open_run(folder, setup.identity() | {"source": str(data)}) as run:
        return already_finished(run) or finish(run, task, setup, accelerator, how, scored_by)


def finish(
    run: Run,
    task: Pretraining,
    setup: Setup,
    accelerator: Accelerator,
    how: Execution,
    scored_by: Scoring,
) -> Record:
    """Pre-train, score, and write all that comes out into the run's folder."""
    fitted = fit(task, run, accelerator, setup.seed, how)
    spent = with_flops(fitted.spent, task)
    trained = fitted.model
    assert isinstance(trained, Pretraining)  # the task, or a copy with its averaged weights
    scored = evaluated(trained, scored_by, setup.data.val_images)
    scored.metrics = {"loss": fitted.last_loss} | scored.metrics
    record = setup.record(run, task, spent, scored, accelerator)
    if accelerator.is_main_process:
        kept = keep(run, trained, setup)
        write_unreadable(run.folder, fitted.spent.skipped, scored.unreadable)
        write_record(run.folder, record)
        tell(record, kept)
    return record


def tokenizer_for(
    method: str, recipe: Any, given: str | Path | None, out: str | Path, data: str | Path
) -> Tokenizer | None:
    """The tokenizer whose tokens a recipe predicts, after a line that says which; None: none is.

    Raises `RunError` where one is needed and is not there or has another codebook, and where one
    is given for nothing.
    """
    file, chosen = tokenizer_file(method, recipe, given, out, data)
    if file is None:
        return None
    for line in chosen:
        say(line)
    found, codebook = read_tokenizer(file), METHODS[method].codebook(recipe)
    if found.encoder.codebook != codebook:
        raise RunError(
            f"tokenizer {file}: has {found.encoder.codebook:,} codes, and the recipe predicts "
            f"{codebook:,}; give --codebook {found.encoder.codebook} or another --tokenizer"
        )
    say(str(found))
    return found


def apart(backbone: str, tokens: Tokenizer | None) -> list[str]:
    """What sets a pre-training apart from its protocol besides its recipe.

    The published tokens are DALL-E's; the miniature world's are of a tokenizer of ours.
    """
    if tokens is None or not tokens.is_ours or backbone == QUICK:
        return []
    return ["tokens by a tokenizer of ours, not DALL-E's"]


def evaluated(task: Pretraining, how: Scoring, images: int) -> Scored:
    """What a method measures besides its loss, on so many test images."""
    if not images:
        return task.evaluate(how)
    with progress("evaluating", images) as bar:
        return task.evaluate(replace(how, on_progress=bar.update))


def keep(run: Run, task: Pretraining, setup: Setup) -> dict[str, Path]:
    """Write the encoder, the whole network, and a picture; what each is, and its file."""
    origin = describe(
        {
            "producer": "mae-bench",
            "method": task.method,
            "recipe_hash": task.recipe.digest(),
            PRETRAINING: setup.origin(),
        }
        | task.facts()
    )
    kept = {}
    if task.encoder is not None:
        origin |= anatomy_metadata(task.encoder)
        kept["checkpoint"] = run.folder / BACKBONE_FILE
        save(task.encoder_state(), kept["checkpoint"], origin)
    whole = task.whole()
    if whole is not None:
        save(whole[1], run.folder / whole[0], origin)
        if not kept:
            kept[task.method] = run.folder / whole[0]
    picture = task.picture(run.folder)
    return kept | (dict([picture]) if picture else {})


def tell(record: Record, kept: dict[str, Path]) -> None:
    """What was made and how to go on."""
    seconds = record.cost.seconds or 0.0
    say(
        f"pre-trained {record.backbone} in {duration(seconds)}, {scores(record)}\n"
        + "".join(f"  {what:15}  {file}\n" for what, file in kept.items())
        + "".join(f"  unreadable       {line}\n" for line in record.unreadable)
        + f"  to repeat        {record.environment.command}  (seed {record.seed}, recipe "
        f"{record.recipe_hash}, mae-bench {record.environment.commit or __version__})"
    )


def scores(record: Record) -> str:
    """The loss, and what else was measured."""
    loss, *others = record.metrics.items()
    return ", ".join([f"loss {loss[1]:.4f}", *(f"{name} {value:.2f}" for name, value in others)])
