"""Checkpoints by the name of a repository, and the facts in the files beside a checkpoint."""

import json
from pathlib import Path
from typing import Any

from backbones.conversion import Converted
from backbones.formats import PATCHES
from backbones.sizes import TIMM, BackboneError

HUB = "hf:"
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
CONFIG = "config.json"
PROCESSOR = "preprocessor_config.json"
SECONDS = 10
"""that huggingface.co has to answer in"""


def is_remote(checkpoint: str | Path) -> bool:
    """Whether a checkpoint is "timm:<model>" or "hf:<repository>" and not a file."""
    return str(checkpoint).startswith((TIMM, HUB))


def fetch(checkpoint: str) -> Path:
    """The file of "timm:<model>" or "hf:<repository>", downloaded once, its configuration beside.

    Without a network it is what an earlier call downloaded. Raises `BackboneError` if there is
    nothing, and for what is not there.
    """
    repository = checkpoint.removeprefix(HUB)
    if checkpoint.startswith(TIMM):
        repository = timm_repository(checkpoint)
    try:
        found = download(repository)
        reason = "it has neither"
    # Of requests or of httpx, by the version of huggingface_hub; of a name that cannot be one.
    except Exception as error:
        found = None if isinstance(error, ValueError) else downloaded(repository)
        reason = (str(error) or type(error).__name__).splitlines()[0]
    if found is None:
        raise BackboneError(
            f"checkpoint {checkpoint!r}: cannot get {' or '.join(WEIGHTS)} of {repository!r} from "
            f"huggingface.co ({reason}); needs a network, or a file that you have downloaded"
        )
    return found


def download(repository: str) -> Path | None:
    """The weights of a repository, its configurations beside them; None: it has none.

    Asks first what there is: a file that is asked for without a network is asked for many times.
    """
    from huggingface_hub import HfApi, hf_hub_download

    listed = HfApi().model_info(repository, timeout=SECONDS).siblings or ()
    there = {each.rfilename for each in listed}
    weights = next((name for name in WEIGHTS if name in there), None)
    if weights is None:
        return None
    for name in there & {CONFIG, PROCESSOR}:
        hf_hub_download(repository, name)
    return Path(hf_hub_download(repository, weights))


def downloaded(repository: str) -> Path | None:
    """The weights of a repository that are on this machine."""
    from huggingface_hub import try_to_load_from_cache

    found = (try_to_load_from_cache(repository, name) for name in WEIGHTS)
    return next((Path(file) for file in found if isinstance(file, str)), None)


def timm_repository(checkpoint: str) -> str:
    """The repository that holds the weights of "timm:<model>"."""
    import timm

    try:
        found = timm.get_pretrained_cfg(checkpoint.removeprefix(TIMM), allow_unregistered=False)
    except RuntimeError:  # an unknown model or tag
        found = None
    if found is None or not found.hf_hub_id:
        raise BackboneError(
            f"checkpoint {checkpoint!r}: timm {timm.__version__} has no weights by that name; "
            "expected a name of timm.list_pretrained()"
        )
    return found.hf_hub_id


def neighbours(file: Path, converted: Converted) -> dict[str, Any]:
    """What the configuration beside a file of Hugging Face or timm tells of its weights.

    What `conversion.with_facts` takes, as far as it does. Raises
    `BackboneError` for a configuration of another network.
    """
    config = read_json(file.with_name(CONFIG))
    facts: dict[str, Any] = {}
    if converted.format.startswith("hf_") and "hidden_size" in config:
        if config["hidden_size"] != len(converted.state.get(PATCHES, ())):
            raise BackboneError(
                f"{file.with_name(CONFIG)}: has hidden_size {config['hidden_size']}, and "
                f"{file.name} beside it is of another; move it or the checkpoint"
            )
        if config.get("hidden_act", "gelu") != "gelu":
            raise BackboneError(
                f"{file.with_name(CONFIG)}: has hidden_act {config['hidden_act']!r}; only 'gelu' "
                "is supported"
            )
        names = {"num_attention_heads": "num_heads", "layer_norm_eps": "norm_eps"}
        facts |= {ours: config[theirs] for theirs, ours in names.items() if theirs in config}
        if config.get("use_mean_pooling") and "norm.weight" not in converted.state:
            facts["final_norm"] = False  # a BeitModel without pooling layer has no norm at all
        processor = read_json(file.with_name(PROCESSOR))
        if "image_mean" in processor and "image_std" in processor:
            facts |= {"mean": processor["image_mean"], "std": processor["image_std"]}
    timms = config.get("pretrained_cfg", {})
    if not converted.format.startswith("hf_") and "mean" in timms and "std" in timms:
        facts |= {"mean": timms["mean"], "std": timms["std"]}
    return facts


def read_json(file: Path) -> dict[str, Any]:
    """The object in a JSON file; nothing if there is none."""
    try:
        found = json.loads(file.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise BackboneError(f"{file}: cannot be read as JSON ({error})") from None
    return found if isinstance(found, dict) else {}
