"""`mae-bench push`: a run's classifier on Hugging Face, with a card of its record."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mae_bench import __version__
from mae_bench.arguments import check_common
from mae_bench.errors import RunError, first_line
from mae_bench.export import export
from mae_bench.progress import say
from mae_bench.run.files import RECORD_FILE
from results import Record, ResultsError
from results.store import read_record

LIBRARIES = {"timm": "timm", "hf": "transformers"}
"""layout -> library that reads it, as the hub calls it"""


def push(run: str | Path, repo: str, to: str = "timm", private: bool = False) -> str:
    """Export a finished run's classifier as "timm" or "hf", and upload it; the address.

    `repo` is OWNER/NAME and is made if it is not there. Beside the files of `mae_bench.export` go
    a card and the record. The token is that of `hf auth login` or of HF_TOKEN. Raises one-line
    errors.
    """
    from huggingface_hub import HfApi

    check_common(run=run, repo=repo)
    if to not in LIBRARIES:
        raise RunError(f"--to {to}: expected {' or '.join(LIBRARIES)}, which the hub reads")
    record = finished_record(Path(run))
    with TemporaryDirectory() as folder:
        place = export(run, to, Path(folder) / "model")
        (place / "README.md").write_text(card(record, repo, to), encoding="utf-8")
        (place / RECORD_FILE).write_bytes((Path(run) / RECORD_FILE).read_bytes())
        api = HfApi(library_name="mae-bench", library_version=__version__)
        try:
            api.create_repo(repo, private=private, exist_ok=True)
            said = f"{record.protocol} by mae-bench {__version__}"
            api.upload_folder(repo_id=repo, folder_path=place, commit_message=said)
        except Exception as error:  # the hub's own, and those of requests or of httpx, by version
            raise RunError(
                f"{repo}: cannot be written ({first_line(error)}); expected OWNER/NAME, a network, "
                "and a token that may write there: hf auth login, or HF_TOKEN"
            ) from None
        address = f"{api.endpoint}/{repo}"
    say(f"pushed to {address}")
    return address


def finished_record(run: Path) -> Record:
    """The record of a finished, complete run; `RunError` if there is none."""
    try:
        record = read_record(run / RECORD_FILE)
    except (OSError, ResultsError) as error:
        raise RunError(f"run {run}: no finished run ({error}); only those are pushed") from None
    if not record.complete:
        raise RunError(f"run {run}: its training was interrupted; only whole ones are pushed")
    return record


def card(record: Record, repo: str, to: str) -> str:
    """The model card, from what the record says alone."""
    head = {
        "library_name": LIBRARIES[to],
        "tags": ["image-classification", "mae-bench", record.init],
        "datasets": [record.data.name],
        "model-index": [{"name": repo.rpartition("/")[2], "results": [result(record)]}],
    }
    scores = "".join(
        f"| {name} | {value:.2f} | {interval(record, name)} |\n"
        for name, value in record.metrics.items()
    )
    changed = "".join(f"- {each}\n" for each in record.deviations)
    weights = record.checkpoint.to_dict() if record.checkpoint else None
    return (
        # JSON is YAML, too.
        f"---\n{json.dumps(head, indent=1, ensure_ascii=False)}\n---\n\n"
        f"# {record.backbone}, {record.protocol}\n\n"
        f"A {record.backbone} that began from {record.init} and was trained on {record.data.name} "
        f"({record.data.train_images:,} images, {record.data.classes:,} classes) by the protocol "
        f"{record.protocol} of mae-bench, seed {record.seed}.\n\n"
        f"| metric | score | 95 % interval |\n|---|---|---|\n{scores}\n"
        f"Scored on {record.data.val_images:,} test images.\n\n"
        + (f"Differs from the protocol in:\n\n{changed}\n" if changed else "")
        + (f"Weights that it began from: `{json.dumps(weights)}`\n\n" if weights else "")
        + f"To repeat: `{record.environment.command}`. record.json holds the whole recipe.\n"
    )


def interval(record: Record, metric: str) -> str:
    ends = record.intervals.get(metric)
    return f"{ends[0]:.2f} to {ends[1]:.2f}" if ends else ""


def result(record: Record) -> dict[str, Any]:
    """The scores as the hub's model index has them."""
    return {
        "task": {"type": "image-classification"},
        "dataset": {"name": record.data.name, "type": record.data.name, "split": "validation"},
        "metrics": [
            {"type": "accuracy", "name": name, "value": value}
            for name, value in record.metrics.items()
        ],
    }
