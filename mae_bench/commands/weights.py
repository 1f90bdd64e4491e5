"""`mae-bench weights`: inspect, convert and list."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from mae_bench.commands.shared import ReadingFlags, go_on, print_json

SUMMARY = "Look into a checkpoint, convert it; list and get the public weights of the baselines."


@dataclass(kw_only=True)
class OfCheckpoint(ReadingFlags):
    """What inspect and convert share."""

    checkpoint: Annotated[Positional[str], arg(metavar="FILE")]
    """a file, an index of shards, a folder of transformers, timm:<model> or hf:<repository>"""


@dataclass(kw_only=True)
class Inspect(OfCheckpoint):
    """Print format, size, statistics and what is left out."""

    json: bool = False
    """print JSON, for other programs"""

    def run(self) -> None:
        from mae_bench.weights import inspect_weights

        if self.json:
            import backbones

            print_json(backbones.inspect(self.checkpoint, **self.reading()).to_dict())
            return
        inspect_weights(self.checkpoint, **self.reading())
        go_on("transfer", "--checkpoint", self.checkpoint)


@dataclass(kw_only=True)
class Convert(OfCheckpoint):
    """Write the encoder in another layout."""

    to: Literal["timm", "hf", "mae"]
    """the layout"""
    output: Path | None = None
    """file or, for hf, folder (default: made of the checkpoint's name)"""

    def run(self) -> None:
        from mae_bench.weights import convert_weights

        written = convert_weights(self.checkpoint, self.to, self.output, **self.reading())
        go_on("weights", "inspect", written)


@dataclass(kw_only=True)
class List:
    """Print file names, addresses and hashes, and what was never released."""

    json: bool = False
    """print JSON, for other programs"""

    def run(self) -> None:
        from mae_bench.weights import list_weights, released_weights

        if self.json:
            print_json(released_weights())
            return
        list_weights()
        go_on("weights", "get", "mae/vit_b")


@dataclass(kw_only=True)
class Get:
    """Download a released file, going on where an earlier attempt stopped, and check it."""

    name: Annotated[Positional[str], arg(metavar="NAME/SIZE")]
    """which, as mae/vit_b; weights list shows them"""
    to: Path | None = None
    """folder for the file (default: where transfer --init looks)"""

    def run(self) -> None:
        from mae_bench.weights import get_weights

        file = get_weights(self.name, self.to)
        name, _, backbone = self.name.partition("/")
        place = [] if self.to is None else ["--checkpoint", file.parent]
        go_on("transfer", "--init", name, "--backbone", backbone, *place, "--data", "DIR")


ACTIONS: dict[str, type] = {"inspect": Inspect, "convert": Convert, "list": List, "get": Get}
