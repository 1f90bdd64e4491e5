"""DALL-E's encoder: its file, which is read without running it, and a second implementation.

The file is written by classes called as openai/DALL-E's, so that it has that layout.
"""

import sys
import types
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbones import BackboneError
from backbones.checkpoint import save
from mae_bench.pretraining import discrete_vae
from mae_bench.pretraining.discrete_vae import map_pixels
from mae_bench.pretraining.tokenizer import read_tokenizer

WIDTH, CODES = 8, 24


class Conv2d(nn.Module):
    def __init__(self, wide_in: int, wide_out: int, kernel: int) -> None:
        super().__init__()
        self.kw = kernel
        scale = (wide_in * kernel**2) ** -0.5
        self.w = nn.Parameter(scale * torch.randn(wide_out, wide_in, kernel, kernel))
        self.b = nn.Parameter(0.1 * torch.randn(wide_out))


class EncoderBlock(nn.Module):
    def __init__(self, wide_in: int, wide_out: int) -> None:
        super().__init__()
        hidden = wide_out // 4
        same = wide_in == wide_out
        self.id_path = nn.Identity() if same else Conv2d(wide_in, wide_out, 1)
        shapes = ((wide_in, hidden, 3), (hidden, hidden, 3), (hidden, hidden, 3))
        parts: list[tuple[str, nn.Module]] = []
        for i, shape in enumerate((*shapes, (hidden, wide_out, 1)), start=1):
            parts += [(f"relu_{i}", nn.ReLU()), (f"conv_{i}", Conv2d(*shape))]
        self.res_path = nn.Sequential(OrderedDict(parts))


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        parts: list[tuple[str, nn.Module]] = [("input", Conv2d(3, WIDTH, 7))]
        before = WIDTH
        for i, times in enumerate((1, 2, 4, 8), start=1):
            after = times * WIDTH
            blocks = [("block_1", EncoderBlock(before, after))]
            blocks += [("block_2", EncoderBlock(after, after))]
            pool = [("pool", nn.MaxPool2d(kernel_size=2))] if i < 4 else []
            parts.append((f"group_{i}", nn.Sequential(OrderedDict([*blocks, *pool]))))
            before = after
        last = OrderedDict([("relu", nn.ReLU()), ("conv", Conv2d(before, CODES, 1))])
        self.blocks = nn.Sequential(OrderedDict([*parts, ("output", nn.Sequential(last))]))


def logits(state: dict[str, Tensor], images: Tensor) -> Tensor:
    """The network written down from the paper and its code, by functions of tensors alone."""

    def conv(x: Tensor, name: str) -> Tensor:
        weight = state[f"{name}.w"]
        return F.conv2d(x, weight, state[f"{name}.b"], padding=weight.shape[-1] // 2)

    x = conv(0.8 * (images.float() / 255) + 0.1, "blocks.input")
    for group in range(1, 5):
        for block in (1, 2):
            name = f"blocks.group_{group}.block_{block}"
            y = x
            for i in range(1, 5):
                y = conv(y.relu(), f"{name}.res_path.conv_{i}")
            path = f"{name}.id_path"
            x = (conv(x, path) if f"{path}.w" in state else x) + y / 64
        if group < 4:
            x = F.max_pool2d(x, 2)
    return conv(x.relu(), "blocks.output.conv")


@pytest.fixture
def released(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Encoder]:
    """A file as OpenAI's encoder.pkl, whose classes are gone once it is written."""
    torch.manual_seed(0)
    places = {"dall_e.encoder": (Encoder, EncoderBlock), "dall_e.utils": (Conv2d,)}
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "dall_e", types.ModuleType("dall_e"))
        for module, kinds in places.items():
            made: Any = types.ModuleType(module)
            patch.setitem(sys.modules, module, made)
            for kind in kinds:
                setattr(made, kind.__name__, kind)
                patch.setattr(kind, "__module__", module)
        network = Encoder()
        torch.save(network, tmp_path / "encoder.pkl")
    return tmp_path / "encoder.pkl", network


def test_released_file_gives_a_second_implementations_tokens(released) -> None:
    file, network = released
    tokenizer = read_tokenizer(file)
    coarse = torch.randint(256, (2, 3, 4, 6), dtype=torch.uint8)
    images = coarse.repeat_interleave(8, dim=2).repeat_interleave(8, dim=3)
    expected = logits(network.state_dict(), images)
    found = tokenizer.encoder(map_pixels(images))
    assert float((found - expected).abs().max() / expected.abs().max()) < 1e-5
    tokens = tokenizer.encoder.tokens(images)
    assert tokens.equal(expected.argmax(dim=1).flatten(1))
    assert tokens.shape == (2, 4 * 6)
    assert len(tokens.unique()) > 2
    assert not any(p.requires_grad for p in tokenizer.encoder.parameters())
    assert "24 codes" in str(tokenizer)


def test_its_tensors_alone_are_read_too(released, tmp_path: Path) -> None:
    file, network = released
    torch.save(network.state_dict(), tmp_path / "state.pt")
    one, other = read_tokenizer(file), read_tokenizer(tmp_path / "state.pt")
    images = torch.randint(256, (2, 3, 16, 16), dtype=torch.uint8)
    assert one.encoder.tokens(images).equal(other.encoder.tokens(images))
    assert one.sha256 != other.sha256


class Runs:
    """What pickle would run."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return Path.touch, (self.mark,)


def test_nothing_of_a_file_is_run(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    torch.save({"blocks.input.w": torch.ones(1), "x": Runs(mark)}, tmp_path / "hostile.pkl")
    with pytest.raises(BackboneError, match=r"hostile\.pkl: .*needs pickle") as refused:
        read_tokenizer(tmp_path / "hostile.pkl")
    assert "--allow-pickle" not in str(refused.value)  # there is no such way out
    assert "expected data alone" in str(refused.value)
    assert not mark.exists()


def damaged(what: str, file: Path, network: Encoder, folder: Path) -> Path:
    place = folder / "given.pkl"
    state = network.state_dict()
    if what == "truncated":
        place.write_bytes(file.read_bytes()[:-1000])
    elif what == "text":
        place.write_text("no weights")
    elif what == "another network":
        torch.save(nn.Linear(2, 2).state_dict(), place)
    elif what == "no tensors":
        torch.save({"a": 1}, place)
    elif what == "a missing tensor":
        del state["blocks.group_2.block_1.id_path.w"]
        torch.save(state, place)
    elif what == "NaN":
        state["blocks.input.b"][0] = float("nan")
        torch.save(state, place)
    elif what == "a width that is a slip":
        state["blocks.input.w"] = torch.ones(6, 3, 7, 7)
        torch.save(state, place)
    elif what == "a collapsed codebook":
        place = place.with_suffix(".safetensors")
        save(discrete_vae.Encoder(WIDTH, 1, CODES).state_dict(), place, {"codes_used": "1"})
    return place


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("truncated", "truncated or no torch file"),
        ("text", "truncated or no torch file"),
        ("another network", r"holds no encoder of a discrete VAE; expected DALL-E's encoder\.pkl"),
        ("no tensors", "holds no tensors; expected DALL-E's"),
        ("a missing tensor", r"missing blocks\.group_2\.block_1\.id_path\.weight"),
        ("NaN", "infinite values or NaN"),
        ("a width that is a slip", "is 6 wide with 2 blocks a group; expected a multiple of 4"),
        ("a collapsed codebook", "has collapsed: .* by 1 of its 24 codes"),
        ("nothing", "no such file"),
    ],
)
def test_bad_files_are_refused_in_one_line(what, message, released, tmp_path: Path) -> None:
    file, network = released
    place = damaged(what, file, network, tmp_path)
    with pytest.raises(BackboneError, match=message) as told:
        read_tokenizer(place)
    assert place.name in str(told.value)
    assert "\n" not in str(told.value)
