"""Backbones of your own, in every command that takes `--backbone`.

Write a module with a factory and register it:

    # my_vits.py
    import backbones

    def my_vit(image_size, drop_path, dense):
        if dense is not None:
            raise backbones.BackboneError("my_vit is for classification")
        return MyViT(image_size, drop_path)

    size = backbones.Size(embed_dim=384, depth=12, num_heads=6, patch_size=16)
    backbones.register("my_vit", my_vit, size)

From Python, `backbones.create("my_vit")` and every function that takes a backbone's name then know
it. On the command line, name the module too: `--backbone my_vits:my_vit` imports `my_vits` first
(from the folders of PYTHONPATH).

The factory takes the side of the (square) images in pixels, the stochastic depth of the last block,
and `dense`: None for classification, a `backbones.Dense` for detection and segmentation, whose
options it honours or refuses with `BackboneError`. It returns a `torch.nn.Module` with

    embed_dim, depth, patch_size, image_size    whole numbers; p = patch_size, S = image_size
    blocks                                      its transformer blocks, a `ModuleList` of `depth`
    layer_index(name) -> int                    of a parameter, for layer decay and freezing: 0 for
                                                the stem, i + 1 for block i, depth + 1 for the rest
    no_decay() -> set of names                  parameters without weight decay, besides 1-D ones

and, for classification,

    forward(images, norm=True)                  (B, 3, S, S) to tokens (B, 1 + (S / p)², C), class
                                                token first; norm=False leaves the final norm out

or, for dense prediction,

    feature_maps(images, blocks)                a list of maps (B, C, S / p, S / p) after the given
                                                0-based blocks

`pixel_mean` and `pixel_std`, three numbers each, say what normalises its images; ImageNet's where
it has none. All this is checked when the backbone is made, with one image of zeros.

Without `--init scratch` the weights are those of `--checkpoint`, a file of tensors that is loaded
strictly by the module's own names. Two further methods, where it has them, let one file serve every
protocol:

    convert_checkpoint(state) -> state          a dictionary of the file's tensors by name; returns
                                                those of the module, renamed, without what it has
                                                no use for, as the class token for maps
    resize_tensor(name, tensor) -> tensor       for each tensor whose shape is not the module's, as
                                                positions for other images; `resize_positions` is
                                                the rule by which all our backbones are resized

What they did is in the report, and the result has to fit to the last tensor. Pre-training
(`mae-bench pretrain`) takes no plug-ins: it computes on visible patches inside our own `ViT`. A
walk through all this is docs/own_backbone.md.
"""

import hashlib
import importlib
import importlib.util
import inspect
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backbones.colour import IMAGENET_MEAN, IMAGENET_STD
from backbones.sizes import SIZES, TIMM, BackboneError, Dense, Size

if TYPE_CHECKING:
    from torch import nn

Factory = Callable[[int, float, Dense | None], "nn.Module"]


@dataclass(frozen=True)
class Plugin:
    """A backbone from outside."""

    name: str
    factory: Factory
    size: Size


PLUGINS: dict[str, Plugin] = {}
"""those that `register` was told of"""

FILES: dict[str, dict[str, Plugin]] = {}
"""module made of a file -> what it has registered; another file may have used the names since"""
PYTHON = ".py"

NOT_OWN = ("<", str(Path(__file__).parent), *sysconfig.get_paths().values())
"""how the files begin that are no stranger's: ours, Python's and those of installed packages"""

NUMBERS = ("embed_dim", "depth", "patch_size", "image_size")


def register(name: str, factory: Factory, size: Size) -> None:
    """Make `name` a backbone that `factory(image_size, drop_path, dense)` builds.

    What the factory has to return is in this module's docstring. Raises `BackboneError` for a name
    that is taken or cannot be told from others. A second call with a name registered before
    replaces it.
    """
    if name in SIZES or name.startswith(TIMM) or not name or set(name) & set(":/ \n"):
        raise BackboneError(
            f"cannot register a backbone as {name!r}; expected a name without colon, slash or "
            f"space that is none of {', '.join(SIZES)}"
        )
    if not callable(factory) or not isinstance(size, Size):
        raise BackboneError(
            f"backbone {name!r}: registered with a {type(factory).__name__} and a "
            f"{type(size).__name__}; expected a factory and a backbones.Size"
        )
    PLUGINS[name] = Plugin(name, factory, size)


def find(name: str) -> Plugin | None:
    """The plug-in of a name, or of "module:name" or "file.py:name", which is imported first.

    None: it is no plug-in's. Raises `BackboneError` if there is no such module or file, if it
    fails, or registers no such name.
    """
    if name in SIZES or name.startswith(TIMM):
        return None
    place, colon, own = name.rpartition(":")
    if not colon:
        return PLUGINS.get(name)
    if place.endswith(PYTHON):
        registered = import_file(name, Path(place).expanduser())
    else:
        import_module(name, place)
        registered = PLUGINS
    if own not in registered:
        raise BackboneError(
            f"backbone {name!r}: {place} registers no {own!r}; expected it to call "
            f"backbones.register({own!r}, factory, size)"
        )
    return registered[own]


def import_module(name: str, module: str) -> None:
    """Import a module from the folders of PYTHONPATH."""
    try:
        importlib.import_module(module)
    except BackboneError:
        raise
    except (ImportError, ValueError) as error:
        raise BackboneError(
            f"backbone {name!r}: cannot import {module!r} ({error}); expected a file, as "
            f"path/to/{module or 'my_vits'}.py:NAME, or a module that Python finds by PYTHONPATH"
        ) from None
    except (Exception, SystemExit) as error:
        raise BackboneError(
            f"backbone {name!r}: {module} fails when it is imported: {said(error)}"
        ) from error


def import_file(name: str, file: Path) -> dict[str, Plugin]:
    """Run a file once, as a module of a name that no other one has; what it has registered."""
    if not file.is_file():
        raise BackboneError(f"backbone {name!r}: {file}: no such file")
    whole = file.resolve()
    alias = f"mae_bench_plugin_{whole.stem}_{hashlib.sha256(bytes(whole)).hexdigest()[:8]}"
    if alias in FILES:
        return FILES[alias]
    spec = importlib.util.spec_from_file_location(alias, whole)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[alias] = module
    before = dict(PLUGINS)
    if str(whole.parent) not in sys.path:
        sys.path.append(str(whole.parent))  # last: a `tasks.py` beside it must not hide ours
    try:
        spec.loader.exec_module(module)
    except BackboneError:
        del sys.modules[alias]
        raise
    except (Exception, SystemExit) as error:
        del sys.modules[alias]
        raise BackboneError(
            f"backbone {name!r}: {file} fails when it is imported: {said(error)}"
        ) from error
    FILES[alias] = {key: each for key, each in PLUGINS.items() if before.get(key) is not each}
    return FILES[alias]


def said(error: BaseException) -> str:
    """What a stranger's code has raised, in a line, and the last line of that code on the way."""
    told = (str(error).strip() or "no message").splitlines()[0]
    calls = traceback.extract_tb(error.__traceback__)
    own = [each for each in calls if not each.filename.startswith(NOT_OWN)]
    where = f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""
    return f"{type(error).__name__}: {told}{where}"


@contextmanager
def blaming(name: str, what: str) -> Iterator[None]:
    """Have what a plug-in's own code raises be one line that names the plug-in."""
    try:
        yield
    except (BackboneError, MemoryError):
        raise
    except Exception as error:
        raise BackboneError(f"backbone {name!r}: {what} fails: {said(error)}") from error


def short(name: str) -> str:
    """A backbone's name without folders: "my_vits:my_vit" of "a/my_vits.py:my_vit"."""
    place, _, own = name.rpartition(":")
    return f"{Path(place).stem}:{own}" if place.endswith(PYTHON) else name


def code_of(name: str) -> str | None:
    """SHA-256 of the file that defines a plug-in's factory; None: no plug-in, or no file."""
    plugin = find(name)
    source = None if plugin is None else defined_in(plugin)
    return None if source is None else hashlib.sha256(Path(source).read_bytes()).hexdigest()


def defined_in(plugin: Plugin) -> str | None:
    try:
        return inspect.getsourcefile(inspect.unwrap(plugin.factory))
    except (TypeError, OSError):  # a built-in, or typed in at a prompt
        return None


def build(plugin: Plugin, image_size: int, drop_path: float, dense: Dense | None) -> Any:
    """The plug-in's module, checked against the interface in this module's docstring.

    Raises `BackboneError` naming what is missing or of another shape.
    """
    from torch import nn

    with blaming(plugin.name, "its factory"):
        vit: Any = plugin.factory(image_size, drop_path, dense)
    if not isinstance(vit, nn.Module):
        refuse(plugin, f"the factory returned a {type(vit).__name__}; expected a torch.nn.Module")
    for name in NUMBERS:
        if not isinstance(getattr(vit, name, None), int):
            refuse(plugin, f"its {name} is {getattr(vit, name, None)!r}; expected a whole number")
    wanted = {
        "embed_dim": plugin.size.embed_dim,
        "depth": plugin.size.depth,
        "patch_size": (dense and dense.patch_size) or plugin.size.patch_size,
        "image_size": image_size,
    }
    for name, number in wanted.items():
        if getattr(vit, name) != number:
            refuse(plugin, f"its {name} is {getattr(vit, name)}; expected {number}")
    blocks = getattr(vit, "blocks", ())
    if not hasattr(blocks, "__len__"):
        refuse(plugin, f"its blocks are a {type(blocks).__name__}; expected a ModuleList")
    if len(blocks) != vit.depth:
        refuse(plugin, f"it has {len(blocks)} blocks; expected {vit.depth}")
    for name in ("layer_index", "no_decay", *(["feature_maps"] if dense else [])):
        if not callable(getattr(vit, name, None)):
            refuse(plugin, f"it has no {name}(); see backbones/plugin.py")
    check_parameters(plugin, vit)
    check_output(plugin, vit, dense)
    for name, colour in (("pixel_mean", IMAGENET_MEAN), ("pixel_std", IMAGENET_STD)):
        if not hasattr(vit, name):
            setattr(vit, name, colour)
        with blaming(plugin.name, f"its {name}"):
            three = [float(each) for each in getattr(vit, name)]
        if len(three) != 3:
            refuse(plugin, f"its {name} is {getattr(vit, name)}; expected three numbers")
    vit.name = plugin.name
    return vit


def check_parameters(plugin: Plugin, vit: Any) -> None:
    """Refuse layers out of range and names that are no parameters."""
    names = [name for name, _ in vit.named_parameters()]
    for name in names:
        with blaming(plugin.name, f"layer_index({name!r})"):
            layer = vit.layer_index(name)
        if not isinstance(layer, int) or not 0 <= layer <= vit.depth + 1:
            refuse(plugin, f"layer_index({name!r}) is {layer!r}; expected 0 to {vit.depth + 1}")
    with blaming(plugin.name, "no_decay()"):
        unknown = set(vit.no_decay()) - set(names)
    if unknown:
        refuse(plugin, f"no_decay() names {sorted(unknown)}, which are no parameters of it")


def check_output(plugin: Plugin, vit: Any, dense: Dense | None) -> None:
    """Refuse a module whose tokens, or maps, of one image of zeros have another shape."""
    import torch

    side, was_training = vit.image_size // vit.patch_size, vit.training
    images = torch.zeros(1, 3, vit.image_size, vit.image_size)
    vit.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            if dense is None:
                found = [vit(images, norm=norm) for norm in (True, False)]
                wanted: tuple[int, ...] = (1, 1 + side**2, vit.embed_dim)
            else:
                found = vit.feature_maps(images, [vit.depth - 1])
                wanted = (1, vit.embed_dim, side, side)
    except (BackboneError, MemoryError):
        raise
    except Exception as error:
        refuse(plugin, f"an image of {vit.image_size} pixels failed: {said(error)}")
    finally:
        vit.train(was_training)
    if not isinstance(found, list | tuple) or not found:
        refuse(plugin, f"feature_maps() gives a {type(found).__name__}; expected a list of maps")
    shapes = [tuple(getattr(each, "shape", ())) for each in found]
    if any(shape != wanted for shape in shapes):
        refuse(plugin, f"it gives {shapes[0]} for one image; expected {wanted}")


def refuse(plugin: Plugin, reason: str) -> None:
    """Raise `BackboneError` for a plug-in."""
    raise BackboneError(f"backbone {plugin.name!r}: {reason}")
