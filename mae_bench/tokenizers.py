"""What a pre-training starts from besides its images: weights, and a tokenizer. Imports no torch.

A tokenizer is a file, a run, or the newest one.
"""

from pathlib import Path
from typing import Any

from mae_bench.errors import RunError
from mae_bench.pretraining.methods import METHODS
from mae_bench.run.files import RECORD_FILE, RUN_FILE, TOKENIZER_FILE

HOW = "mae-bench pretrain --method tokenizer"
QUICK = "vit_mini"
"""whose tokenizer is trained in a minute"""


def refuse_start(method: str, checkpoint: str | Path | None) -> None:
    """Raise `RunError` for weights to start from that a method does not take."""
    if checkpoint is not None and not METHODS[method].continues:
        raise RunError(
            f"--checkpoint: --method {method} starts from random weights; leave it out, or "
            "fine-tune with mae-bench transfer"
        )


def tokenizer_file(
    method: str, recipe: Any, given: str | Path | None, out: str | Path, data: str | Path
) -> tuple[Path | None, tuple[str, ...]]:
    """The file of the tokenizer whose tokens a recipe predicts, None where it predicts none, and
    a line if it was chosen for the user. Raises `RunError` for one that lacks or is given for
    nothing."""
    if METHODS[method].codebook(recipe) is None:
        if given is not None:
            raise RunError("--tokenizer: this recipe predicts no tokens; leave it out")
        return None, ()
    from mae_bench.data import is_miniature  # slow, and --help needs it not

    who = "--method beit" if method == "beit" else f"--method {method} --target tokens"
    return find_tokenizer(given, out, recipe.backbone, is_miniature(data), who)


def find_tokenizer(
    given: str | Path | None, out: str | Path, backbone: str, miniature: bool, who: str
) -> tuple[Path, tuple[str, ...]]:
    """The file of a tokenizer, and a line if it was chosen for the user.

    `given` is a file, the folder of a run or the name of one in `out`. Where nothing is given it
    is, on the miniature world, that of the newest finished run for `backbone` in `out`. Raises
    `RunError` on behalf of `who`.
    """
    if given is None:
        return newest_tokenizer(Path(out), backbone, miniature, who)
    place = Path(given)
    if not place.exists() and not place.is_absolute() and (Path(out) / place).is_dir():
        place = Path(out) / place
    if not place.exists():
        raise RunError(
            f"--tokenizer {given}: no such file and no run of that name in {out}; expected "
            f"DALL-E's encoder.pkl, or a run of {HOW}"
        )
    if not place.is_dir():
        return place, ()
    if not (place / TOKENIZER_FILE).is_file() or not (place / RECORD_FILE).is_file():
        state = "has no tokenizer" if (place / RECORD_FILE).is_file() else "is no finished run"
        raise RunError(f"--tokenizer {given}: the folder {state}; expected a run of {HOW}")
    return place / TOKENIZER_FILE, (f"tokenizer: {place / TOKENIZER_FILE}",)


def newest_tokenizer(
    out: Path, backbone: str, miniature: bool, who: str
) -> tuple[Path, tuple[str, ...]]:
    from results import Record  # slow, and flags need it not
    from results.store import read_folders

    if not miniature:
        raise RunError(
            f"{who} needs --tokenizer: DALL-E's encoder.pkl (openai/DALL-E names its address), or "
            f"a run of {HOW} on these images"
        )
    made = [
        (found, folder / TOKENIZER_FILE)
        for folder, found in (read_folders(out, (RUN_FILE,)) if out.is_dir() else ())
        if isinstance(found, Record)
        and found.complete
        and found.backbone == backbone
        and (folder / TOKENIZER_FILE).is_file()
    ]
    if not made:
        soon = ", in a minute" if backbone == QUICK else ""
        raise RunError(
            f"{who} needs --tokenizer: there is no finished tokenizer for {backbone} in {out}; "
            f"make one{soon}: {HOW} --backbone {backbone} --out {out}"
        )
    _, file = max(made, key=lambda each: (each[0].finished, each[0].name))
    return file, (f"tokenizer: {file} (the newest finished one for {backbone} in {out})",)
