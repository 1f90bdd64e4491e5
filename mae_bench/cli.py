"""The command line: flags to function calls, errors to one line and an exit code.

Nothing here imports torch; a command does when it runs.
"""

import argparse
import io
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import Positional, arg

import backbones
import mae_bench
import tasks
from mae_bench import recipes
from mae_bench.errors import Interrupted, ProcessError, RunError, reason
from mae_bench.execution import Execution
from mae_bench.flags import changed, default_protocol, in_one_line, with_recipe
from tasks.classification.recipes import CURVE

PROGRAM = "mae-bench"
DESCRIPTION = (
    "Transfer learning from masked autoencoders, measured next to the published numbers. "
    "Start with: mae-bench quickstart"
)


@dataclass
class RunFlags:
    """What pretrain and transfer share."""

    backbone: str = "vit_mini"
    """vit_mini, vit_t, vit_s, vit_b, vit_l or vit_h; timm:<model> for any plain ViT of timm;
    <module>:<name> for your own, see backbones/plugin.py"""
    data: str = "mini"
    """folder of the data set, or mini for the built-in miniature world; for coco also
    TRAIN.json,VAL.json, your own annotations"""
    out: Path = Path("runs")
    """folder of all runs"""
    name: str | None = None
    """folder of this run inside it (default: made of task, protocol, backbone, init and seed)"""
    seed: int = 0
    """fixes initial weights, image order, augmentation and masks"""
    execution: Annotated[Execution, arg(name="")] = field(default_factory=Execution)

    def arguments(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "recipe"}


@dataclass
class Pretrain(RunFlags):
    """Train a masked autoencoder and keep its encoder.

    The recipe flags show the recipe of the given --backbone, and in brackets where each value
    comes from.
    """

    def run(self) -> None:
        mae_bench.pretrain(**self.arguments(), **changed(self, recipes.PRETRAIN, "mae"))


@dataclass
class Transfer(RunFlags):
    """Measure a backbone on a downstream task.

    The recipe flags show the recipe of the given --task, --protocol and --backbone, and in
    brackets where each value comes from.
    """

    task: str = "imagenet1k"
    """imagenet1k, inat2017, inat2018, inat2019, places205, places365, folder (your own images in
    train/<class>/ and val/<class>/), coco or ade20k"""
    protocol: str | None = None
    """classification: finetune (default), finetune-448, linear, partial:K (the last K blocks
    train), partial:all (the whole curve), knn, logistic, scratch; coco: mask_rcnn-vitdet (default),
    mask_rcnn-fpn; ade20k: upernet-512-160k (default), upernet-512-100ep"""
    checkpoint: str | None = None
    """weights: a file of MAE, MoCo v3, BEiT, DINO, DeiT, AugReg, timm, Hugging Face or our own;
    timm:<model> or hf:<repository>, with a network; or the folder of --init's released file"""
    format: str | None = None
    """the checkpoint's format, where its keys do not tell it, or to have it confirmed; mae-bench
    weights inspect says what they tell"""
    allow_pickle: bool = False
    """read torch files that hold more than data; this runs code that is in the file"""
    init: str | None = None
    """short name of what the weights came from, for the tables (default: from the checkpoint);
    mae, moco_v3, beit, dino or supervised without a file: the released weights of that name, see
    mae-bench weights list; scratch: random weights (for imagenet1k and its like a protocol)"""
    limit: int | None = None
    """use so many images only; the result is marked as shortened"""

    def run(self) -> None:
        protocol = self.protocol or default_protocol(self.task)
        given = self.arguments() | changed(self, self.task, protocol)
        if protocol == CURVE:
            del given["protocol"]
            mae_bench.partial_curve(**given)
        else:
            mae_bench.transfer(**given)


@dataclass
class Evaluate:
    """Score an imagenet1k classifier on a test set, which needs no training.

    The result is a run folder of its own, with a protocol such as imagenet_a/finetune@1.
    """

    source: Annotated[Positional[Path], arg(metavar="RUN")]
    """folder of a finished run (finetune, linear, partial:K or scratch), or the file of a
    classifier that was released, such as mae_finetuned_vit_base.pth"""
    on: str
    """imagenet_a, imagenet_r, imagenet_sketch, imagenet_c, or imagenet1k (its val folder alone)"""
    data: str = "mini"
    """folder of the test set, or mini for its twin in the built-in miniature world"""
    out: Path | None = None
    """folder of all runs (default: the one that the run is in)"""
    name: str | None = None
    """folder of the result inside it (default: made of the run and the test set)"""
    limit: int | None = None
    """use so many images only, in imagenet_c of each corruption and severity; the result is marked
    as shortened"""
    workers: int = 2
    """loader processes per process; 0 loads in the process itself"""
    device: Literal["auto", "cpu"] = "auto"
    """auto takes a GPU if there is one"""
    save_logits: bool = False
    """keep the logits too; not on imagenet_c, which has too many"""
    backbone: str | None = None
    """of a file: its size, as in transfer"""
    init: str | None = None
    """of a file: short name of how it was pre-trained, for the tables (default: the file's)"""
    classes: Path | None = None
    """of a file: its wnids in the order of its outputs, one per line (default: ImageNet-1k's)"""
    format: str | None = None
    """of a file: the format, where its keys do not tell it, or to have it confirmed"""

    def run(self) -> None:
        how = Execution(workers=self.workers, device=self.device, save_logits=self.save_logits)
        where = (self.data, self.out, self.name, self.limit)
        released = (self.backbone, self.init, self.classes, self.format)
        mae_bench.evaluate(self.source, self.on, *where, how, *released)


@dataclass
class Report:
    """Print the tables of all finished runs beside the published numbers; write them with figures.

    The HTML page is one file that needs no network: tables, figures, pictures, and the recipe
    behind each row.
    """

    runs: Path = Path("runs")
    """folder of the runs"""
    output: Path | None = None
    """name of the files, each with the ending of its format, or of one file (default: in the
    folder of the runs report, or report-table-3 and report-compare for other tables)"""
    table: tuple[str, ...] = ()
    """tables of the MAE paper in its own layout: 1a to 1f, 2 to 7, 12, 13, partial or all
    (default: a table for each protocol)"""
    compare: tuple[str, str] | None = None
    """test the difference between two sets of runs, each a name, a folder of runs or a pattern such
    as 'mae-seed*': over seeds, and over images where predictions were kept"""
    costs: bool = False
    """add columns of what the runs took: device-hours, images/s, peak memory"""
    intervals: bool = False
    """add 95 % bootstrap intervals over the test images to the scores of single runs"""
    formats: tuple[Literal["md", "html", "tex", "csv"], ...] = ("md", "html")
    """what to write; figures are beside it as svg, png and pdf"""
    watch: bool = False
    """write the HTML page again while runs are under way, until Ctrl-C"""

    def run(self) -> None:
        mae_bench.report(
            self.runs,
            self.output,
            table=self.table,
            compare=self.compare,
            costs=self.costs,
            intervals=self.intervals,
            formats=self.formats,
            watch=self.watch,
        )


@dataclass
class Runs:
    """Look at the runs in a folder, clear them up, pack one into a file, check such a file."""

    action: Positional[Literal["list", "show", "compare", "prune", "pack", "rescore"]]
    """list: a line for each run; show NAME: all that is known of one; compare NAME NAME: what
    differs; prune [NAME ...]: delete what finished runs have no more use for; pack NAME: one file
    with recipe, record, log and predictions; rescore FILE: compute the scores of such a file again
    from its predictions, exit code 1 if they differ"""
    names: Positional[tuple[str, ...]] = ()
    """runs, as list shows them, or the file to rescore"""
    runs: Path = Path("runs")
    """folder of the runs"""
    task: str | None = None
    """list: runs of this task alone"""
    protocol: str | None = None
    """list: runs of this protocol alone"""
    yes: bool = False
    """prune: delete, and do not only say what would be"""
    weights: bool = False
    """prune: the weights of finished runs too; pack: put the weights in"""
    pictures: bool = False
    """pack: put the pictures in"""
    output: Path | None = None
    """pack: the file (default: beside the run's folder)"""
    data: str | None = None
    """rescore: for coco and ade20k the data set that the run was scored on, or mini"""

    def run(self) -> None:
        from mae_bench import runs

        self.refuse_unfit()
        first, second = (*self.names, "", "")[:2]
        match self.action:
            case "list":
                runs.list_runs(self.runs, self.task, self.protocol)
            case "show":
                runs.show(first, self.runs)
            case "compare":
                runs.compare(first, second, self.runs)
            case "prune":
                runs.prune(self.runs, self.names, weights=self.weights, yes=self.yes)
            case "pack":
                options = {"weights": self.weights, "pictures": self.pictures}
                runs.pack(first, self.output, self.runs, **options)
            case "rescore":
                if not all(row.same for row in runs.rescore(first, self.data)):
                    raise SystemExit(1)

    def refuse_unfit(self) -> None:
        """Raise `RunError` for too few or too many names, and a flag that the action ignores."""
        usage = {"list": "", "show": "NAME", "compare": "NAME NAME", "pack": "NAME"}
        usage |= {"rescore": "FILE"}
        if self.action != "prune" and len(self.names) != len(usage[self.action].split()):
            raise RunError(
                f"runs {self.action} names {len(self.names)}; expected runs "
                f"{f'{self.action} {usage[self.action]}'.strip()}"
            )
        takers = {
            "task": ("list",),
            "protocol": ("list",),
            "yes": ("prune",),
            "weights": ("prune", "pack"),
            "pictures": ("pack",),
            "output": ("pack",),
            "data": ("rescore",),
        }
        for flag, actions in takers.items():
            if getattr(self, flag) and self.action not in actions:
                raise RunError(
                    f"runs {self.action} takes no --{flag}; runs {' and '.join(actions)} does"
                )


@dataclass
class Quickstart:
    """Walk the whole picture on the built-in miniature world: a few minutes on a laptop's CPU."""

    out: Path = Path("runs/quickstart")
    """folder for the runs, pictures and tables"""
    seed: int = 0
    """seed of every run"""

    def run(self) -> None:
        mae_bench.quickstart(self.out, self.seed)


@dataclass
class Data:
    """Make the built-in miniature world, list the data sets, or check one on disk."""

    action: Positional[Literal["make", "list", "check"]]
    """make: draw the world, with a contact sheet to look at; list: print a table of all data sets;
    check: say what is right and wrong with a data set, exit code 1 if anything is wrong"""
    dataset: Positional[str] = ""
    """what to check; data list shows the names"""
    root: str | None = None
    """check: folder of the data set; for coco also TRAIN.json,VAL.json, your own annotations"""
    out: Path | None = None
    """make: folder for the world (default: a cache folder, where --data mini finds it)"""

    def run(self) -> None:
        from mae_bench.data import CHECKED, check_data, list_data, make_miniature_world

        if self.action == "make":
            if self.dataset or self.root:
                raise RunError(
                    "data make takes no data set and no --root; it makes the whole world"
                )
            make_miniature_world(self.out)
            return
        if self.action == "list":
            if self.dataset or self.root or self.out:
                raise RunError("data list takes no data set, no --root and no --out; it lists all")
            list_data()
            return
        usage = "expected data check NAME --root DIR; data list shows the names"
        if self.out is not None:
            raise RunError(f"data check takes no --out; {usage}")
        if not self.dataset:
            raise RunError(f"data check names no data set; {usage}")
        tasks.check_known("data set", self.dataset, list(CHECKED))
        if not self.root:
            raise RunError(f"data check {self.dataset} has no --root; {usage}")
        if not check_data(self.dataset, self.root):
            raise SystemExit(1)


@dataclass
class Weights:
    """Look into a checkpoint, convert it, or list the public weights of the paper's baselines."""

    action: Positional[Literal["inspect", "convert", "list"]]
    """inspect: format, size, statistics and what is left out; convert: write the encoder in another
    layout; list: file names, addresses and hashes, and what was never released"""
    checkpoint: Positional[str] = ""
    """a file, timm:<model> or hf:<repository>"""
    to: Literal["timm", "hf", "mae"] | None = None
    """convert: the layout"""
    output: Path | None = None
    """convert: file or, for hf, folder (default: made of the checkpoint's name)"""
    format: str | None = None
    """the format, where its keys do not tell it, or to have it confirmed"""
    allow_pickle: bool = False
    """read torch files that hold more than data; this runs code that is in the file"""

    def run(self) -> None:
        from mae_bench.weights import convert_weights, inspect_weights, list_weights

        if self.action == "list":
            list_weights()
            return
        if not self.checkpoint:
            raise RunError(f"weights {self.action} names no checkpoint; expected a file")
        if self.action == "inspect":
            inspect_weights(self.checkpoint, self.format, self.allow_pickle)
            return
        if self.to is None:
            raise RunError("weights convert has no --to; expected --to timm, hf or mae")
        convert_weights(self.checkpoint, self.to, self.output, self.format, self.allow_pickle)


@dataclass
class Doctor:
    """Check packages, torch with torchvision, GPU and disk; name each problem with its fix."""

    out: Path = Path("runs")
    """folder whose disk is checked"""

    def run(self) -> None:
        from mae_bench.doctor import examine

        if not examine(self.out):
            raise SystemExit(1)


def main() -> None:
    """Entry point of `mae-bench`."""
    raise SystemExit(call(sys.argv[1:]))


def call(argv: Sequence[str]) -> int:
    """Run one command line; its exit code. Bad input is one line on standard error and 2.

    Of the processes that torchrun starts the first speaks for all, except of what it cannot know.
    """
    first = os.environ.get("RANK", "0") == "0"
    for stream in (sys.stdout, sys.stderr):  # a path may hold what the terminal cannot show
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        parse(argv).run()
    except SystemExit:  # after --help, which is not to wait for the imports below
        raise
    except Interrupted as error:
        return complain(str(error), error.exit_code, first)
    except ProcessError as error:
        return complain(f"error: {error}", 2)
    except bad_input() as error:
        return complain(f"error: {error}", 2, first)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        advice = "nothing that was saved is lost; once this is put right, the same command goes on"
        return complain(f"error: {where}{error.strerror or error}; {advice}", 2, first)
    except (MemoryError, RuntimeError, ImportError) as error:
        known = reason(error)
        if known is None:
            raise
        return complain(f"error: {known}", 2)
    except KeyboardInterrupt:
        return complain("stopped", 130, first)
    return 0


def complain(message: str, exit_code: int, aloud: bool = True) -> int:
    """Print one line on standard error, if `aloud`; the exit code."""
    if aloud:
        print(f"{PROGRAM}: {' '.join(message.splitlines())}", file=sys.stderr)
    return exit_code


def bad_input() -> tuple[type[Exception], ...]:
    """What our packages raise for it. `results` takes a fifth of a second to import."""
    from results import ResultsError

    return RunError, backbones.BackboneError, tasks.TaskError, ResultsError


def parse(argv: Sequence[str]) -> Any:
    """The command with its flags; SystemExit after --help, `RunError` for a bad flag."""
    which = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    which.add_argument("command", nargs="?")
    for name in ("backbone", "task", "protocol"):
        which.add_argument(f"--{name}")
    try:
        known, _ = which.parse_known_args(argv)
    except argparse.ArgumentError:  # a flag without its value: tyro says it better
        known = argparse.Namespace(command=None)
    pretrain: type = Pretrain
    transfer: type = Transfer
    backbone = getattr(known, "backbone", None) or "vit_mini"
    if known.command == "pretrain":
        pretrain = with_recipe(Pretrain, recipes.PRETRAIN, backbone, "mae")
    elif known.command == "transfer":
        task = known.task or "imagenet1k"
        protocol = known.protocol or default_protocol(task)
        transfer = with_recipe(Transfer, task, backbone, protocol)
    commands: dict[str, Callable[..., Any]] = {
        "quickstart": Quickstart,
        "pretrain": pretrain,
        "transfer": transfer,
        "evaluate": Evaluate,
        "report": Report,
        "runs": Runs,
        "data": Data,
        "weights": Weights,
        "doctor": Doctor,
    }
    if known.command is not None:
        tasks.check_known("command", known.command, list(commands))
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            return tyro.extras.subcommand_cli_from_dict(
                commands,
                prog=PROGRAM,
                description=DESCRIPTION,
                args=list(argv),
                config=(tyro.conf.OmitArgPrefixes,),
            )
    except SystemExit as end:
        if not end.code:
            raise
    raise RunError(f"{in_one_line(said.getvalue())} (see {PROGRAM} --help)") from None


if __name__ == "__main__":
    main()
