"""Backbones from outside: in every call by name, or refused with what is missing."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import backbones
from backbones import BackboneError, Dense, plugin
from backbones.checkpoint import save
from backbones.colour import IMAGENET_MEAN

SIZE = backbones.Size(embed_dim=8, depth=2, num_heads=1, patch_size=4)


class Pooling(nn.Module):
    """No ViT at all: patches, linear blocks, and the interface that is asked for."""

    embed_dim, depth, patch_size = 8, 2, 4

    def __init__(self, image_size: int, drop_path: float, dense: Dense | None) -> None:
        super().__init__()
        self.image_size, self.drop_path, self.dense = image_size, drop_path, dense
        self.patch_embed = nn.Conv2d(3, 8, 4, 4)
        self.blocks = nn.ModuleList(nn.Linear(8, 8) for _ in range(2))
        self.norm = nn.LayerNorm(8)
        self.dropout = nn.Dropout(0.5)

    def forward(self, images: Tensor, norm: bool = True) -> Tensor:
        x = self.patch_embed(images).flatten(2).transpose(1, 2)
        x = torch.cat([x.mean(dim=1, keepdim=True), x], dim=1)
        for block in self.blocks:
            x = self.dropout(block(x))
        return self.norm(x) if norm else x

    def feature_maps(self, images: Tensor, blocks: list[int]) -> list[Tensor]:
        side = self.image_size // 4
        x = self.forward(images, norm=False)[:, 1:].transpose(1, 2).unflatten(2, (side, side))
        return [x for _ in blocks]

    def layer_index(self, name: str) -> int:
        return {"patch_embed": 0, "norm": 3}.get(name.split(".")[0], 1)

    def no_decay(self) -> set[str]:
        return {"norm.weight"}


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugin, "PLUGINS", {})
    backbones.register("pooling", Pooling, SIZE)


def test_is_a_backbone_by_its_name() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    vit: Any = backbones.create("pooling", 16, drop_path=0.2)
    assert type(vit) is Pooling
    assert vit.drop_path == 0.2
    assert vit.training
    assert vit.name == "pooling"
    assert vit.pixel_mean == IMAGENET_MEAN
    assert backbones.size_of("pooling") == SIZE
    after = torch.get_rng_state()
    torch.set_rng_state(before)
    twin = Pooling(16, 0.2, None)
    assert all(map(torch.equal, vit.state_dict().values(), twin.state_dict().values()))
    assert torch.equal(torch.get_rng_state(), after)  # the check of the factory draws nothing
    dense: Any = backbones.create("pooling", 16, dense=Dense())
    assert dense.dense == Dense()
    assert dense.feature_maps(torch.zeros(1, 3, 16, 16), [0, 1])[1].shape == (1, 8, 4, 4)


def test_loads_its_own_names_strictly(tmp_path: Path) -> None:
    torch.manual_seed(0)
    state = Pooling(16, 0.0, None).state_dict()
    save(state, tmp_path / "own.safetensors", {"method": "mine"})
    vit, report = backbones.load("pooling", tmp_path / "own.safetensors", 16)
    assert all(torch.equal(vit.state_dict()[key], value) for key, value in state.items())
    assert (report.format, report.coverage, report.method) == ("plug-in", 1, "mine")
    assert "100% of the parameters of pooling" in " ".join(str(report).split())
    del state["norm.weight"]
    save(state, tmp_path / "less.safetensors", {})
    with pytest.raises(BackboneError, match=r"missing norm\.weight; unexpected none"):
        backbones.load("pooling", tmp_path / "less.safetensors", 16)


class Wrapped(Pooling):
    """A network inside, whose blocks it has as its own: two names for each of their tensors."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.network = nn.ModuleDict({"blocks": self.blocks})


def test_tensors_of_two_names_are_kept(tmp_path: Path) -> None:
    backbones.register("wrapped", Wrapped, SIZE)
    vit: Any = backbones.create("wrapped", 16)
    save(vit.state_dict(), tmp_path / "own.safetensors", {})
    twin, report = backbones.load("wrapped", tmp_path / "own.safetensors", 16)
    assert {"blocks.0.weight", "network.blocks.0.weight"} < set(report.loaded)
    assert all(torch.equal(twin.state_dict()[k], v) for k, v in vit.state_dict().items())


def test_a_module_is_imported_for_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "somebodys_vits.py").write_text(
        "import backbones\nfrom test_plugin import SIZE, Pooling\n"
        "backbones.register('theirs', Pooling, SIZE)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    assert backbones.size_of("somebodys_vits:theirs") == SIZE
    made: Any = backbones.create("somebodys_vits:theirs", 16)
    assert type(made).__name__ == "Pooling"
    with pytest.raises(BackboneError, match="somebodys_vits registers no 'others'; expected it to"):
        backbones.create("somebodys_vits:others")
    with pytest.raises(BackboneError, match="cannot import 'nobodys_vits'"):
        backbones.create("nobodys_vits:theirs")


@pytest.mark.parametrize("name", ["vit_b", "timm:mine", "a:b", "", "two words"])
def test_names_that_cannot_be_registered(name: str) -> None:
    with pytest.raises(BackboneError, match="cannot register a backbone as"):
        backbones.register(name, Pooling, SIZE)


class NoTokens(Pooling):
    def forward(self, images: Tensor, norm: bool = True) -> Tensor:
        return super().forward(images, norm)[:, 1:]


class Failing(Pooling):
    def forward(self, images: Tensor, norm: bool = True) -> Tensor:
        raise RuntimeError("shapes do not match\nat all")


class TwoLayers(Pooling):
    def layer_index(self, name: str) -> int:
        return 4


class UnknownDecay(Pooling):
    def no_decay(self) -> set[str]:
        return {"cls_token"}


class NoLayers(Pooling):
    layer_index = None  # type: ignore[assignment]


class Wider(Pooling):
    embed_dim = 16


class Shallow(Pooling):
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.blocks = self.blocks[:1]


class Silent(Pooling):
    def forward(self, images: Tensor, norm: bool = True) -> Tensor:
        raise KeyError


class NoDecay(Pooling):
    def no_decay(self) -> Any:
        return None


class Lost(Pooling):
    def layer_index(self, name: str) -> int:
        return {}["x"]


class Blocks(Pooling):
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        del self.blocks
        self.blocks = 2


class Colourless(Pooling):
    pixel_mean = None


def raising(image_size: int, drop_path: float, dense: Dense | None) -> nn.Module:
    raise ValueError("first line\nsecond line")


class NoMean(Pooling):
    pixel_mean = (0.5,)


@pytest.mark.parametrize("code", ["1 // 0", "raise SystemExit(4)", "x ="])
def test_a_module_that_fails_is_named(
    code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "failing_vits.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(BackboneError, match="failing_vits fails when it is imported") as error:
        backbones.create("failing_vits:mine", 16)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("factory", "said"),
    [
        (NoTokens, r"it gives \(1, 16, 8\) for one image; expected \(1, 17, 8\)"),
        (Failing, r"failed: RuntimeError: shapes do not match \(test_plugin.py, line \d+\)$"),
        (Silent, r"an image of 16 pixels failed: KeyError: no message \(test_plugin.py, line"),
        (NoDecay, r"no_decay\(\) fails: TypeError: 'NoneType' object is not iterable"),
        (Lost, r"layer_index\('patch_embed.weight'\) fails: KeyError: 'x' \(test_plugin.py, line"),
        (Blocks, "its blocks are a int; expected a ModuleList"),
        (Colourless, "its pixel_mean fails: TypeError: 'NoneType' object is not iterable"),
        (raising, r"its factory fails: ValueError: first line \(test_plugin.py, line \d+\)$"),
        (lambda: None, r"its factory fails: TypeError: .*takes 0 positional arguments but 3"),
        (TwoLayers, r"layer_index\('patch_embed.weight'\) is 4; expected 0 to 3"),
        (UnknownDecay, r"no_decay\(\) names \['cls_token'\], which are no parameters"),
        (NoLayers, r"it has no layer_index\(\)"),
        (Wider, "its embed_dim is 16; expected 8"),
        (Shallow, "it has 1 blocks; expected 2"),
        (NoMean, r"its pixel_mean is \(0.5,\); expected three numbers"),
        (lambda *_: "nothing", "the factory returned a str"),
        (lambda *_: nn.Linear(1, 1), "its embed_dim is None; expected a whole number"),
    ],
)
def test_refuses_what_does_not_fit(factory: Any, said: str) -> None:
    backbones.register("broken", factory, SIZE)
    with pytest.raises(BackboneError, match=said) as error:
        backbones.create("broken", 16)
    assert "\n" not in str(error.value)


def test_maps_that_are_none() -> None:
    class NoMaps(Pooling):
        def feature_maps(self, images: Tensor, blocks: Any) -> Any:
            return None

    backbones.register("mapless", NoMaps, SIZE)
    with pytest.raises(BackboneError, match=r"feature_maps\(\) gives a NoneType; expected a list"):
        backbones.create("mapless", 16, dense=Dense())


def test_what_is_registered_is_looked_at() -> None:
    with pytest.raises(BackboneError, match=r"a function and a dict; expected a factory and a ba"):
        backbones.register("x", raising, {"depth": 2})  # type: ignore[arg-type]
    with pytest.raises(BackboneError, match=r"a NoneType and a Size; expected a factory"):
        backbones.register("x", None, SIZE)  # type: ignore[arg-type]


def test_its_own_refusal_comes_through() -> None:
    def factory(image_size: int, drop_path: float, dense: Dense | None) -> nn.Module:
        if dense is not None:
            raise BackboneError("for classification only")
        return Pooling(image_size, drop_path, dense)

    backbones.register("classifier", factory, SIZE)
    assert backbones.create("classifier", 16)
    with pytest.raises(BackboneError, match="for classification only"):
        backbones.create("classifier", 16, dense=Dense())
