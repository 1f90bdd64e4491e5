"""Public weights of the baselines that the MAE paper compares with. Imports no torch.

File names, addresses and hashes as the projects' own pages and code print them: facebookresearch/
mae, moco-v3, dino, deit (README.md, hubconf.py), microsoft/unilm (beit/README.md).
"""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from backbones.sizes import BackboneError


@dataclass(frozen=True)
class Release:
    """One public file of weights."""

    file: str
    url: str
    """where its project says it is"""
    digest: str | None = None
    """"md5:" or "sha256:" and as many first digits as are published; None: none are"""
    note: str = ""
    """what sets it apart from what the MAE paper used"""


FACEBOOK = "https://dl.fbaipublicfiles.com"
BEIT = "https://github.com/addf400/files/releases/download/v1.0"
NOT_THE_PAPERS = "the paper's own BEiT, pre-trained on ImageNet-1k, was never released"


def _mae(name: str, md5: str) -> Release:
    file = f"mae_pretrain_vit_{name}.pth"
    return Release(file, f"{FACEBOOK}/mae/pretrain/{file}", f"md5:{md5}")


def _moco_v3(size: str) -> Release:
    file = f"vit-{size}-300ep.pth.tar"
    return Release(file, f"{FACEBOOK}/moco-v3/vit-{size}-300ep/{file}")


def _dino(name: str) -> Release:
    return Release(f"{name}.pth", f"{FACEBOOK}/dino/{name}/{name}.pth")


def _deit(size: str, sha256: str) -> Release:
    file = f"deit_{size}_patch16_224-{sha256}.pth"
    return Release(file, f"{FACEBOOK}/deit/{file}", f"sha256:{sha256}")


BASELINES: dict[str, dict[str, Release]] = {
    "mae": {
        "vit_b": _mae("base", "8cad7c"),
        "vit_l": _mae("large", "b8b06e"),
        "vit_h": _mae("huge", "9bdbb0"),
    },
    "moco_v3": {"vit_s": _moco_v3("s"), "vit_b": _moco_v3("b")},
    "beit": {
        "vit_b": Release(
            "beit_base_patch16_224_pt1k_800ep.pth",
            f"{BEIT}/beit_base_patch16_224_pt1k_800ep.pth",
            note=f"pre-trained on ImageNet-1k, with absolute positions; {NOT_THE_PAPERS}",
        ),
        "vit_l": Release(
            "beit_large_patch16_224_pt22k.pth",
            f"{BEIT}/beit_large_patch16_224_pt22k.pth",
            note=f"pre-trained on ImageNet-22k; {NOT_THE_PAPERS}",
        ),
    },
    "dino": {
        "vit_s": _dino("dino_deitsmall16_pretrain"),
        "vit_b": _dino("dino_vitbase16_pretrain"),
    },
    "supervised": {
        "vit_t": _deit("tiny", "a1311bcf"),
        "vit_s": _deit("small", "cd65a155"),
        "vit_b": _deit("base", "b5f2ef4d"),
    },
}
"""name, backbone -> weights"""

UNRELEASED: dict[tuple[str, str], str] = {
    ("moco_v3", "vit_l"): "the ViT-L of the MAE and MoCo v3 papers was never released",
    ("dino", "vit_l"): "the MAE paper gives no ViT-L for DINO, and none was released",
    ("supervised", "vit_l"): "the ViT-L that the MAE paper trained with labels was never released",
    ("supervised", "vit_h"): "the ViT-H that the MAE paper trained with labels was never released",
    ("beit", "vit_h"): "no BEiT of this size was released",
}
"""what a reader of the paper would look for in vain, and why"""


ENDINGS = r"(\.(pth|pt|tar|bin|ckpt|npz|safetensors|index\.json))+$"
"""of files of weights"""
UNTOLD = ("model", "pytorch_model")
"""names of Hugging Face's files"""


def name_of(file: Path) -> str:
    """The baseline that a released file belongs to; for any other, its name without its ending.

    What follows a dot in the name of a timm model is no ending. A file by the name that Hugging
    Face gives to all is called after its folder.
    """
    for name, sizes in BASELINES.items():
        if file.name in {release.file for release in sizes.values()}:
            return name
    plain = re.sub(ENDINGS, "", file.name)
    return file.parent.name if plain in UNTOLD and file.parent.name else plain


def find(name: str, backbone: str, folder: Path) -> Path:
    """The file of a baseline's weights in `folder`, its published hash confirmed.

    Raises `BackboneError` if there are no such public weights, if the file is not there, saying
    where to get it, or if it is another one.
    """
    release = release_of(name, backbone)
    file = folder / release.file
    if not file.is_file():
        raise BackboneError(
            f"{file}: not there; `mae-bench weights get {name}/{backbone}` gets it from "
            f"{release.url}"
        )
    confirm(file, release)
    return file


def release_of(name: str, backbone: str) -> Release:
    """The public file of a baseline; `BackboneError` if there is none, saying why."""
    if name not in BASELINES:
        raise BackboneError(
            f"no public weights are known by the name {name!r}; there are {', '.join(BASELINES)}: "
            "or give a file of your own"
        )
    if backbone not in BASELINES[name]:
        reason = UNRELEASED.get((name, backbone), "there are no public weights of this size")
        raise BackboneError(
            f"{name} with {backbone}: {reason}; there are {', '.join(BASELINES[name])}, "
            "or give a file of your own"
        )
    return BASELINES[name][backbone]


def confirm(file: Path, release: Release) -> None:
    """Raise `BackboneError` unless a file has the hash that is published, if one is."""
    if release.digest is not None:
        kind, _, begins = release.digest.partition(":")
        with file.open("rb") as stream:
            found = hashlib.file_digest(stream, kind).hexdigest()
        if not found.startswith(begins):
            raise BackboneError(
                f"{file}: its {kind} begins with {found[:8]}, the released file's with {begins}; "
                f"get it again from {release.url}"
            )
