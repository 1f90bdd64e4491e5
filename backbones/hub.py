"""Checkpoints by the name of a repository, and the facts in the files beside a checkpoint."""

from pathlib import Path
from typing import Any

from backbones.conversion import Converted
from backbones.formats import PATCHES
from backbones.side_files import (
    MOST_PIXELS,
    Config,
    Processor,
    TimmConfig,
    TimmFile,
    read_side_file,
)
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

    What `conversion.with_facts` takes, as far as it does, and of how images are tested: `grid`,
    `image_size`, `crop_ratio` and `cut`, how they are cut otherwise than here. Raises
    `BackboneError` for a configuration of another network.
    """
    if converted.format.startswith("hf_"):
        config = read_side_file(file.with_name(CONFIG), Config)
        return {} if config is None else told_by_transformers(file, config, converted)
    timms = read_side_file(file.with_name(CONFIG), TimmFile)
    return {} if timms is None else told_by_timm(timms.pretrained_cfg, converted)


def labels_beside(file: Path, converted: Converted) -> list[str] | None:
    """The names of classes in the order of a head's outputs, if config.json beside it has them."""
    beside = file.with_name(CONFIG)
    labels: Any = None
    if converted.format.startswith("hf_"):
        config = read_side_file(beside, Config)
        if config is not None and isinstance(config.id2label, dict):
            labels = [config.id2label.get(str(index)) for index in range(len(config.id2label))]
    else:
        timms = read_side_file(beside, TimmFile)
        labels = None if timms is None else timms.label_names
    named = isinstance(labels, list) and all(isinstance(label, str) for label in labels)
    return labels if named else None


def told_beside(file: Path, converted: Converted, facts: dict[str, Any]) -> list[str]:
    """A line about the configurations beside a file: what is taken from them, or that nothing is.

    `facts` are those of `neighbours`.
    """
    asked = [CONFIG, PROCESSOR] if converted.format.startswith("hf_") else [CONFIG]
    there = [name for name in (CONFIG, PROCESSOR) if file.with_name(name).is_file()]
    lines = []
    if facts:
        found = " and ".join(name for name in there if name in asked)
        taken = ", ".join(name.replace("_", " ") for name in facts)
        lines.append(f"{found} beside it: asked for {taken}")
    left = [name for name in there if name not in asked or not facts]
    if left:
        lines.append(
            f"{' and '.join(left)} beside it: not used, and tells nothing that belongs to weights "
            f"in the layout {converted.format}"
        )
    return lines


def told_by_transformers(file: Path, config: Config, converted: Converted) -> dict[str, Any]:
    """The facts in config.json and preprocessor_config.json."""
    beside = file.with_name(CONFIG)
    facts: dict[str, Any] = {}
    width = len(converted.state[PATCHES]) if PATCHES in converted.state else None
    if config.hidden_size is None:
        return {}
    if width is not None and config.hidden_size != width:
        raise BackboneError(
            f"{beside}: has hidden_size {config.hidden_size}, and {file.name} beside it {width}; "
            "move it or the checkpoint"
        )
    if config.hidden_act != "gelu":
        raise BackboneError(
            f"{beside}: has hidden_act {config.hidden_act!r}; only 'gelu' is supported"
        )
    facts |= {"num_heads": config.num_attention_heads, "norm_eps": config.layer_norm_eps}
    if config.use_mean_pooling and "norm.weight" not in converted.state:
        facts["final_norm"] = False  # a BeitModel without pooling layer has no norm at all
    patch = config.patch_size
    if config.image_size is not None and isinstance(patch, int):
        sides = config.image_size
        height, width = (sides, sides) if isinstance(sides, int) else sides
        facts["grid"] = (height // patch, width // patch)
        facts["image_size"] = height if height == width else None
    processor = read_side_file(file.with_name(PROCESSOR), Processor)
    if processor is not None:
        facts |= told_by_processor(processor)
    return {key: value for key, value in facts.items() if value is not None}


def told_by_processor(processor: Processor) -> dict[str, Any]:
    """The facts in preprocessor_config.json."""
    facts: dict[str, Any] = {}
    if processor.image_mean is not None and processor.image_std is not None:
        facts |= {"mean": processor.image_mean, "std": processor.image_std}
    size, crop = side_of(processor.size), side_of(processor.crop_size)
    if processor.do_center_crop and size and crop and crop <= size:
        return facts | {"image_size": crop, "crop_ratio": crop / size}
    if processor.crop_pct is not None:
        return facts | {"crop_ratio": processor.crop_pct}
    if size is not None and not processor.do_center_crop:
        facts["cut"] = "its image processor stretches whole images to a square"
    return facts


def side_of(size: dict[str, int | None] | int | None) -> int | None:
    """Pixels, of a size that transformers may write as a number or by name."""
    if isinstance(size, dict):
        size = size.get("shortest_edge") or size.get("height")
    return size if size and 0 < size <= MOST_PIXELS else None


def told_by_timm(config: TimmConfig, converted: Converted) -> dict[str, Any]:
    """The facts in timm's `pretrained_cfg`."""
    facts: dict[str, Any] = {}
    if config.mean is not None and config.std is not None:
        facts |= {"mean": config.mean, "std": config.std}
    if config.crop_pct is not None:
        facts["crop_ratio"] = config.crop_pct
    if config.interpolation not in (None, "bicubic"):
        facts["cut"] = f"its own test resizes images {config.interpolation}"
    patches, table = converted.state.get(PATCHES), converted.state.get("pos_embed")
    if config.input_size is not None and patches is not None and patches.ndim == 4:
        _, height, width = config.input_size
        side = patches.shape[-1]
        grid = (height // side, width // side)
        # timm tells of the weights that a model began from, at times at another size.
        if table is None or table.ndim != 3 or table.shape[1] - grid[0] * grid[1] in (0, 1):
            facts |= {"grid": grid, "image_size": height if height == width else None}
    return {key: value for key, value in facts.items() if value is not None}
