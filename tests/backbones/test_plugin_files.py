"""A backbone in a file, and a checkpoint that its hooks fit: also the page that explains both."""

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from test_plugin import SIZE, Pooling
from torch import Tensor

import backbones
import tasks
from backbones import BackboneError, Dense, plugin
from backbones.posembed import resize
from mae_bench.recipes import recipe
from tasks.errors import TaskError

PAGE = Path(__file__).parents[2] / "docs" / "own_backbone.md"
FILE = """
import helper_of_mine
import tasks  # ours, whatever lies beside this file
from test_plugin import SIZE, Pooling
import backbones
assert helper_of_mine.HERE and hasattr(tasks, "faces")
backbones.register("mine", Pooling, SIZE)
"""


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugin, "PLUGINS", {})
    monkeypatch.setattr(plugin, "FILES", {})
    monkeypatch.setattr(sys, "path", [*sys.path])


def written(folder: Path, text: str = FILE) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "helper_of_mine.py").write_text("HERE = True\n")
    (folder / "tasks.py").write_text("raise RuntimeError('this must not be imported')\n")
    (folder / "nets.py").write_text(text)
    return folder / "nets.py"


def test_a_file_is_loaded_and_hides_nothing_of_ours(tmp_path: Path) -> None:
    name = f"{written(tmp_path / 'a')}:mine"
    vit: Any = backbones.create(name, 16)
    assert type(vit) is Pooling
    assert (vit.name, backbones.size_of(name)) == ("mine", SIZE)
    assert plugin.short(name) == "nets:mine"
    assert tasks.faces()


def test_two_files_may_use_one_name(tmp_path: Path) -> None:
    other = "import backbones\nfrom test_plugin import Pooling, SIZE\n"
    other += "class Other(Pooling): pass\nbackbones.register('mine', Other, SIZE)\n"
    names = [f"{written(tmp_path / 'a')}:mine", f"{written(tmp_path / 'b', other)}:mine"]
    kinds = [type(backbones.create(name, 16)).__name__ for name in [*names, *names]]
    assert kinds == ["Pooling", "Other", "Pooling", "Other"]
    codes = [plugin.code_of(name) for name in names]
    assert codes[0] != codes[1]
    assert plugin.code_of("vit_b") is None


@pytest.mark.parametrize(
    ("text", "own", "said"),
    [
        (FILE, "others", r"nets.py registers no 'others'; expected it to call"),
        ("import nothing_such\n", "mine", "fails when it is imported: ModuleNotFoundError: No mod"),
        ("1 +\n", "mine", "fails when it is imported: SyntaxError"),
        ("import sys\nsys.exit(3)\n", "mine", r"imported: SystemExit: 3 \(nets.py, line 2\)"),
        ("\n{}['x']\n", "mine", r"imported: KeyError: 'x' \(nets.py, line 2\)"),
    ],
)
def test_what_is_wrong_with_a_file(text: str, own: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match=said) as error:
        backbones.create(f"{written(tmp_path / 'a', text)}:{own}", 16)
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(BackboneError, match=r"nets.py: no such file"):
        backbones.create("/nowhere/nets.py:mine")


class Fitting(Pooling):
    def __init__(self, *arguments: Any) -> None:
        Pooling.__init__(self, *arguments)
        self.positions = torch.nn.Parameter(torch.zeros(1, 1 + (self.image_size // 4) ** 2, 8))

    def layer_index(self, name: str) -> int:
        return 0 if name == "positions" else Pooling.layer_index(self, name)

    def convert_checkpoint(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        return {k.removeprefix("net."): v for k, v in state.items() if not k.startswith("head")}

    def resize_tensor(self, name: str, tensor: Tensor) -> Tensor:
        return backbones.resize_positions(tensor, self.image_size // self.patch_size)


def test_hooks_fit_a_file_to_other_images(tmp_path: Path) -> None:
    torch.manual_seed(0)
    backbones.register("fitting", Fitting, SIZE)
    state = Fitting(16, 0.0, None).state_dict()
    state["positions"] = torch.randn(1, 17, 8)
    file = tmp_path / "a.pth"
    torch.save({f"net.{k}": v for k, v in state.items()} | {"head.weight": torch.ones(2, 8)}, file)
    vit, report = backbones.load("fitting", file, 32)
    torch.testing.assert_close(vit.positions, resize(state["positions"], 8))
    assert torch.equal(vit.blocks[1].weight, state["blocks.1.weight"])
    assert report.resized.keys() == {"all tensors", "positions"}
    assert report.resized["positions"] == "(1, 17, 8) -> (1, 65, 8), by its resize_tensor()"
    assert report.resized["all tensors"].startswith("10 -> 9, by its convert_checkpoint()")
    assert "resize_tensor()" in str(report)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ({"resize_tensor": lambda *_: torch.zeros(1, 3, 8)}, r"made no tensor of \(1, 65, 8\)"),
        ({"resize_tensor": lambda *_: None}, r"made no tensor of \(1, 65, 8\) of \(1, 17, 8\)"),
        ({"convert_checkpoint": lambda *_: None}, r"returned no dictionary of tensors"),
        ({"convert_checkpoint": lambda self, state: {}}, "does not fit broken: missing"),
        ({"convert_checkpoint": lambda: {}}, r"convert_checkpoint\(\) fails: TypeError: "),
        ({"resize_tensor": lambda *_: 1 // 0}, r"resize_tensor\('positions'\) fails: ZeroDivis"),
    ],
)
def test_hooks_that_do_not_fit(made: dict[str, Any], said: str, tmp_path: Path) -> None:
    torch.save(Fitting(16, 0.0, None).state_dict(), tmp_path / "a.pth")
    backbones.register("broken", type("Broken", (Fitting,), made), SIZE)
    with pytest.raises(BackboneError, match=said):
        backbones.load("broken", tmp_path / "a.pth", 32)


class Unfitting(Pooling):
    """With positions, and no word on how to resize them."""

    __init__ = Fitting.__init__
    layer_index = Fitting.layer_index


def test_without_a_hook_it_says_which_is_lacking(tmp_path: Path) -> None:
    torch.save(Fitting(16, 0.0, None).state_dict(), tmp_path / "a.pth")
    backbones.register("without", Unfitting, SIZE)
    with pytest.raises(BackboneError, match=r"the backbone has no resize_tensor\(\) for it"):
        backbones.load("without", tmp_path / "a.pth", 32)


def test_positions_that_are_no_square() -> None:
    with pytest.raises(BackboneError, match=r"\(1, 18, 8\); expected \(1, 1 \+ a square"):
        backbones.resize_positions(torch.zeros(1, 18, 8), 4)
    kept = backbones.resize_positions(torch.ones(1, 5 + 16, 8), 2, before=5)
    assert kept.shape == (1, 5 + 4, 8)


@pytest.mark.parametrize(
    ("task", "protocol", "depth"),
    [
        ("coco", "mask_rcnn-vitdet", 3),
        ("coco", "mask_rcnn-fpn", 3),
        ("ade20k", "upernet-512-160k", 2),
    ],
)
def test_too_few_blocks_for_a_task_is_a_line(task: str, protocol: str, depth: int) -> None:
    size = backbones.Size(embed_dim=64, depth=depth, num_heads=1, patch_size=16)
    backbones.register("shallow", Pooling, size)
    with pytest.raises(TaskError, match=f"{task} with shallow: it has {depth} blocks; expected"):
        recipe(task, "shallow", protocol)
    backbones.register(
        "deeper", Pooling, backbones.Size(embed_dim=64, depth=depth + 1, num_heads=1, patch_size=16)
    )
    assert recipe(task, "deeper", protocol)


# --- the page -------------------------------------------------------------------------------------


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """The file that the page shows, as its reader writes it; and weights of another make."""
    (code,) = re.findall(r"```python title=\"my_vits.py\"\n(.*?)```", PAGE.read_text(), re.DOTALL)
    file = tmp_path / "my_vits.py"
    file.write_text(code)
    vit: Any = backbones.create(f"{file}:my_vit", 32)
    torch.manual_seed(0)
    state = {f"module.{k}": torch.randn_like(v) * 0.02 for k, v in vit.state_dict().items()}
    torch.save(state | {"module.head.weight": torch.ones(10, 64)}, tmp_path / "my_weights.pth")
    return file


@pytest.mark.parametrize(
    ("size", "dense"), [(32, None), (64, None), (64, Dense()), (96, Dense(class_token=True))]
)
def test_the_pages_backbone_serves_every_protocol_from_one_file(size, dense, page: Path) -> None:
    vit, report = backbones.load(f"{page}:my_vit", page.parent / "my_weights.pth", size, 0.1, dense)
    assert report.coverage == 1
    images = torch.randn(1, 3, size, size)
    if dense is None:
        assert vit(images).shape == (1, 1 + (size // 16) ** 2, 64)
    else:
        assert [m.shape for m in vit.feature_maps(images, [1, 3])] == [
            (1, 64, size // 16, size // 16)
        ] * 2


def test_the_page_refuses_what_it_does_not_have(page: Path) -> None:
    with pytest.raises(BackboneError, match="say --relative-position none, and for coco --window"):
        backbones.create(f"{page}:my_vit", 64, dense=Dense(window_size=2, global_blocks=(3,)))
