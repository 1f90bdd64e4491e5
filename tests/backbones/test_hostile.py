"""Checkpoints from strangers: each loads, or is refused in one line that names it; nothing else."""

import json
import os
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import backbones
from backbones.checkpoint import save
from backbones.contents import SPARSE_FROM

SIZE = backbones.Size(embed_dim=32, depth=2, num_heads=4, patch_size=4, pretrain_image=16)


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(backbones.SIZES, "tiny", SIZE)


def state(seed: int = 0) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return {k: v + 0.1 for k, v in backbones.create("tiny", 16).state_dict().items()}


def outcome(file: Path) -> str:
    """ "" or the line of the refusal, of loading, inspecting and converting."""
    lines = []
    for call in (
        lambda: backbones.load("tiny", file, 16),
        lambda: backbones.inspect(file),
        lambda: backbones.convert(file, "timm"),
    ):
        try:
            call()
        except backbones.BackboneError as error:
            lines.append(str(error))
    assert all(line.isprintable() for line in lines)  # a line's end is not
    return "".join(lines[:1])


KEY = "blocks.1.norm1.weight"
TENSORS: dict[str, tuple[Callable[[], Any], str]] = {
    "sparse": (lambda: torch.ones(32).to_sparse(), "is a sparse_coo tensor"),
    "csr": (lambda: torch.ones(4, 8).to_sparse_csr(), "is a sparse_csr tensor"),
    "quantised": (
        lambda: torch.quantize_per_tensor(torch.ones(32), 0.1, 0, torch.qint8),
        "is a quantised tensor",
    ),
    "meta": (lambda: torch.ones(32, device="meta"), "is a tensor on meta"),
    "nested": (lambda: torch.nested.nested_tensor([torch.ones(3), torch.ones(2)]), "nested tensor"),
    "terabytes": (lambda: torch.ones(1).expand(10**7, 10**6), "is a view that shows its 4 bytes"),
    "repeated": (lambda: torch.ones(1).expand(32), "is a view that shows its 4 bytes as 128"),
    "float8": (lambda: torch.ones(32).to(torch.float8_e4m3fn), "holds float8_e4m3fn values"),
    "complex": (lambda: torch.ones(32, dtype=torch.complex64), "holds complex64 values"),
    "bool": (lambda: torch.ones(32, dtype=torch.bool), "holds bool values"),
    "integers": (lambda: torch.ones(32, dtype=torch.int64), "holds int64 values"),
    "empty": (lambda: torch.ones(0), "is empty"),
    "NaN": (lambda: torch.full((32,), float("nan")), "infinite values or NaN"),
    "infinite": (lambda: torch.full((32,), float("inf")), "infinite values or NaN"),
    "scalar": (lambda: torch.tensor(1.0), "shapes"),
    "too wide": (lambda: torch.ones(3, 3), "shapes"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", TENSORS)
@pytest.mark.parametrize("key", [KEY, "pos_embed", "patch_embed.proj.weight"])
def test_odd_tensors(kind: str, key: str, tmp_path: Path) -> None:
    make, said = TENSORS[kind]
    torch.save(state() | {key: make()}, tmp_path / "odd.pth")
    told = outcome(tmp_path / "odd.pth")
    assert told
    if key == KEY:
        assert said in told


ANATOMY = {"num_heads": 4, "norm_eps": 1e-6, "mean": [0.5] * 3, "std": [0.5] * 3}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"num_heads": "four"}, "num_heads is 'four'"),
        ({"num_heads": 0}, "num_heads is 0"),
        ({"num_heads": -4}, "num_heads is -4"),
        ({"num_heads": 4.5}, "num_heads is 4.5"),
        ({"num_heads": 10**40}, "num_heads is 1000"),
        ({"num_heads": 5}, "5 heads do not divide"),
        ({"norm_eps": None}, ""),
        ({"norm_eps": "x"}, "norm_eps is 'x'"),
        ({"norm_eps": -1}, "norm_eps is -1"),
        ({"mean": "red"}, "mean is 'red'"),
        ({"mean": [1, 2]}, "mean is [1, 2]"),
        ({"mean": [[0.5]] * 3}, "mean.0 is [0.5]"),
        ({"std": [0, 0, 0]}, "std.0 is 0"),
        ({"image_size": 10**9}, "image_size is 1000000000"),
    ],
)
def test_odd_metadata(changed: dict[str, Any], said: str, tmp_path: Path) -> None:
    save(state(), tmp_path / "odd.safetensors", {"anatomy": json.dumps(ANATOMY | changed)})
    told = outcome(tmp_path / "odd.safetensors")
    assert said in told
    assert bool(said) == bool(told)


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"a":' * 100_000, "{", "NaN", "[]", '"x"', '{"num_heads": NaN}', "\x1b[2J",
     '{"num_heads": 4, "num_heads": 8}', '{"mean": [NaN, 0, 0]}', "9" * 10_000],
)  # fmt: skip
def test_odd_json(text: str, tmp_path: Path) -> None:
    """In our own metadata, and as the configuration beside a file of transformers."""
    save(state(), tmp_path / "odd.safetensors", {"anatomy": text})
    assert "its metadata's anatomy" in outcome(tmp_path / "odd.safetensors")
    folder = tmp_path / "hf"
    folder.mkdir()
    made = backbones.export(backbones.create("tiny", 16), "hf")
    save(made.tensors, folder / "model.safetensors", {})
    (folder / "config.json").write_text(text)
    assert "config.json: " in outcome(folder) or '"num_heads": 4' in text or "NaN" in text


def test_files_that_are_no_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pth")
    assert "is a named pipe, not a regular file" in outcome(tmp_path / "pipe.pth")
    assert "is a device, not a regular file" in outcome(Path("/dev/zero"))
    with (tmp_path / "sparse.pth").open("wb") as file:
        file.truncate(SPARSE_FROM * 8)
    assert "is a sparse file" in outcome(tmp_path / "sparse.pth")
    folder = tmp_path / "hf"
    folder.mkdir()
    assert outcome(folder).startswith(f"checkpoint {folder}: is a folder without model.safetensors")
    made = backbones.export(backbones.create("tiny", 16), "hf")
    save(made.tensors, folder / "model.safetensors", {})
    os.mkfifo(folder / "config.json")
    assert "config.json: cannot be read as JSON (is a named pipe" in outcome(folder)


def test_archives_that_unpack_to_more(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("embedding/kernel.npy", bytes(200 * 2**20))
    (tmp_path / "bomb.pth").write_bytes((tmp_path / "bomb.npz").read_bytes())
    for name in ("bomb.npz", "bomb.pth"):
        assert "unpack to 209,715,200" in outcome(tmp_path / name)


def test_names_and_sizes_from_strangers(tmp_path: Path) -> None:
    for name in ("a\nb", "\x1b[2Jx", "x" * 1000):
        torch.save(state() | {name: torch.ones(1)}, tmp_path / "odd.pth")
        assert "expected printable ones" in outcome(tmp_path / "odd.pth")
    wide = {"patch_embed.proj.weight": torch.ones(200_000, 3, 1, 1), "blocks.0.x": torch.ones(1)}
    torch.save(wide, tmp_path / "wide.pth")
    assert "does not fit" in outcome(tmp_path / "wide.pth")
    odd = {"patch_embed.proj.weight": torch.ones(6, 3, 2, 2), "blocks.0.x": torch.ones(1)}
    torch.save(odd, tmp_path / "odd.pth")
    assert outcome(tmp_path / "odd.pth")
    many = {f"blocks.{i}.x": torch.ones(1) for i in range(5000)}
    torch.save(many | {"patch_embed.proj.weight": torch.ones(8, 3, 2, 2)}, tmp_path / "deep.pth")
    assert outcome(tmp_path / "deep.pth")


def test_shards_lead_nowhere_else(tmp_path: Path) -> None:
    index = tmp_path / "model.safetensors.index.json"
    save_file(state(), tmp_path / "a.safetensors")
    for name, said in {
        "../a.safetensors": "expected files beside it",
        "/etc/passwd": "expected files beside it",
        index.name: "expected files beside it",
        "none.safetensors": "no such file",
    }.items():
        index.write_text(json.dumps({"weight_map": {"x": name}}))
        assert said in outcome(index)
    index.write_text(json.dumps({"weight_map": {"x": "a.safetensors"}}))
    assert outcome(tmp_path) == ""


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors", "a.npz", "model.safetensors"])
def test_a_pointer_of_git_lfs(name: str, tmp_path: Path) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a21\nsize 12345\n"
    (tmp_path / name).write_text(pointer)
    said = f"checkpoint {tmp_path / name}: is a pointer of Git LFS and not the weights"
    assert outcome(tmp_path / name).startswith(said)
    if name == "model.safetensors":
        assert outcome(tmp_path).startswith(said)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".npz"])
def test_fuzz(suffix: str, tmp_path: Path) -> None:
    """Bytes changed, cut out and put in at seeded places: no traceback, one line each."""
    file = tmp_path / f"whole{suffix}"
    if suffix == ".pth":
        torch.save({"model": state()}, file)
    elif suffix == ".npz":
        np.savez(file, **{k: v.numpy() for k, v in state().items()})
    else:
        save(state(), file, {"anatomy": json.dumps(ANATOMY)})
    whole, rng = file.read_bytes(), random.Random(0)
    refused = 0
    for _ in range(40):
        content = bytearray(whole)
        for _ in range(rng.choice([1, 3, 20])):
            low = rng.choice([0, 0, max(0, len(content) - 3000)])
            place = rng.randrange(low, min(len(content), low + 3000))
            kind = rng.choice(["change", "cut", "put"])
            if kind == "change":
                content[place] = rng.randrange(256)
            elif kind == "cut":
                del content[place : place + rng.choice([1, 8, 100])]
            else:
                content[place:place] = rng.randbytes(rng.choice([1, 8, 100]))
        file.write_bytes(content)
        refused += outcome(file) != ""
    assert refused


def test_a_number_beyond_float32_is_refused(tmp_path: Path) -> None:
    """As it would be computed with it is infinite."""
    state = backbones.create("vit_mini", 32).state_dict()
    state["norm.weight"] = state["norm.weight"].double() * 1e300
    torch.save(state, tmp_path / "large.pth")
    with pytest.raises(backbones.BackboneError, match=r"infinite values or NaN \(norm.weight\)"):
        backbones.load("vit_mini", tmp_path / "large.pth", 32)
