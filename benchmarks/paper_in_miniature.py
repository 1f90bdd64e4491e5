"""The MAE paper in miniature: every method on every task, and what of its findings holds there.

    python benchmarks/paper_in_miniature.py --plan     # what there is to run, and how long it takes
    python benchmarks/paper_in_miniature.py            # runs what is missing, and prints the tables
    python benchmarks/paper_in_miniature.py --write    # and writes paper_in_miniature.md

Everything happens on the built-in world, by `mae_bench.suite`: stopped at any time, the same
command goes on. `--finished` runs nothing and takes what there is: cells count their seeds, and the
runs that are missing are counted. `--tables`, `--seeds` and `--shortened` run a slice, which is
printed and never written.
"""

import argparse
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mae_bench
from mae_bench.execution import Execution
from mae_bench.suite.expansion import expand
from mae_bench.suite.runs import SuiteRun
from mae_bench.suite.spec import Block, SuiteSpec, WeightsSpec, write_spec
from results import Record, read_records
from results.statistics import welch

BACKBONE = "vit_mini"
SEEDS, ABLATION_SEEDS = 5, 3
MARGIN = 1.0
"""points within which two means count as alike; ours"""
LEVEL = 0.05
RANDOM = "scratch"
ABLATED = {"epochs": 3, "warmup_epochs": 0.6}
"""schedule of the pre-trainings of Table 1: shorter than the others', as the paper's 800 of 1600
epochs"""
SHORT, SHORTER = ({"epochs": epochs, "warmup_epochs": 0.0} for epochs in (2, 1))
"""for a trial: of pre-trainings; of Table 1's, and of all transfers"""

Column = tuple[str, str, str]
"""task, protocol (none: the first of the task), metric"""
Groups = Mapping[Column, Mapping[str, Sequence[float]]]
"""column -> weights -> a value for each seed"""

TUNED: Column = ("imagenet1k", "finetune", "top1")
PROBED: Column = ("imagenet1k", "linear", "top1")
BOXES: Column = ("coco", "mask_rcnn-fpn", "ap_box")
MASKS: Column = ("coco", "mask_rcnn-fpn", "ap_mask")
VITDET_BOXES: Column = ("coco", "mask_rcnn-vitdet", "ap_box")
VITDET_MASKS: Column = ("coco", "mask_rcnn-vitdet", "ap_mask")
MIOU: Column = ("ade20k", "", "miou")
TRANSFERRED: dict[str, Column] = {
    title: (task, "finetune", "top1")
    for title, task in (
        ("iNat 2017", "inat2017"),
        ("iNat 2018", "inat2018"),
        ("iNat 2019", "inat2019"),
        ("Places205", "places205"),
        ("Places365", "places365"),
    )
}
MAE, MOCO, BEIT, SUPERVISED = "mae", "moco_v3", "beit", "supervised"
HALF = "mae-half"
"""MAE's weights by the schedule of the ablations"""
METHODS = {RANDOM: "random weights", SUPERVISED: "supervised", MOCO: "MoCo v3", BEIT: "BEiT"}
METHODS |= {MAE: "MAE"}


@dataclass(frozen=True)
class Layout:
    """A table of the paper."""

    number: str
    title: str
    rows: Mapping[str, str]
    """weights -> label, in the paper's order"""
    columns: Mapping[str, Column]
    ablates: bool = False


@dataclass(frozen=True)
class Case:
    """A row of an ablation."""

    label: str
    changes: Mapping[str, Any]
    """fields of MAE's recipe; none: the miniature world's own"""

    @property
    def weights(self) -> str:
        return "-".join([HALF, *(f"{k}-{v}" for k, v in self.changes.items())])


def case(label: str, **changes: Any) -> Case:
    return Case(label, changes)


CASES: dict[str, tuple[str, tuple[Case, ...]]] = {
    "1a": (
        "decoder depth (the paper's 8 of 24 blocks are 2 here)",
        (
            case("1", decoder_depth=1),
            case("2"),
            *(case(str(depth), decoder_depth=depth) for depth in (4, 8, 12)),
        ),
    ),
    "1b": (
        "decoder width (the paper's 512 of 1024 are 64 of 128 here)",
        (
            *(case(str(width), decoder_dim=width) for width in (16, 32)),
            case("64"),
            *(case(str(width), decoder_dim=width) for width in (96, 128)),
        ),
    ),
    "1c": (
        "mask token",
        (case("encoder with [M]", encoder_mask_tokens=True), case("encoder without [M]")),
    ),
    "1d": (
        "reconstruction target",
        (
            case("pixel (without norm)"),
            case("pixel (with norm)", norm_pix=True),
            case("PCA", target="pca"),
            case("dVAE token", target="tokens"),
        ),
    ),
    "1e": (
        "data augmentation",
        (
            case("none", augmentation="none"),
            case("crop, fixed size", augmentation="crop_fixed"),
            case("crop, random size"),
            case("crop + color jitter", augmentation="crop_random_jitter"),
        ),
    ),
    "1f": (
        "mask sampling",
        (
            case("random 75 %"),
            case("block 50 %", mask="block", mask_ratio=0.5),
            case("block 75 %", mask="block"),
            case("grid 75 %", mask="grid"),
        ),
    ),
}
LAYOUTS = (
    *(
        Layout(
            number,
            f"{title}, MAE",
            {each.weights: each.label for each in cases},
            {"fine-tuning": TUNED, "linear probing": PROBED},
            ablates=True,
        )
        for number, (title, cases) in CASES.items()
    ),
    Layout(
        "3",
        "ImageNet-1k",
        {k: v for k, v in METHODS.items() if k != SUPERVISED},
        {"top-1 %": TUNED},
    ),
    Layout("4", "COCO", METHODS, {"box AP": BOXES, "mask AP": MASKS}),
    Layout(
        "4v",
        "COCO by ViTDet, which has no place for BEiT's relative positions (not in the paper)",
        {k: v for k, v in METHODS.items() if k != BEIT},
        {"box AP": VITDET_BOXES, "mask AP": VITDET_MASKS},
    ),
    Layout("5", "ADE20K", METHODS, {"mIoU %": MIOU}),
    Layout("6", "other data sets, top-1 %", METHODS, TRANSFERRED),
    Layout(
        "12", "linear probing on ImageNet-1k", {MOCO: "MoCo v3", BEIT: "BEiT", MAE: "MAE"},
        {"top-1 %": PROBED},
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """What the paper finds: one of two is better, or both are alike."""

    table: str
    text: str
    column: Column
    first: str
    second: str
    alike: bool = False
    """else the first is better"""


def weights_of(number: str, label: str) -> str:
    return next(each.weights for each in CASES[number][1] if each.label == label)


def ablation(number: str, text: str, first: str, second: str, *columns: Column) -> list[Finding]:
    a, b = weights_of(number, first), weights_of(number, second)
    return [Finding(number, text, column, a, b) for column in columns]


FINDINGS = [
    Finding("1a", "one block of decoder fine-tunes as well", TUNED, *[
        weights_of("1a", label) for label in ("1", "2")], alike=True),
    *ablation("1a", "a deeper decoder probes better", "8", "1", PROBED),
    *ablation("1c", "the encoder is better off without mask tokens", "encoder without [M]",
              "encoder with [M]", TUNED, PROBED),
    *ablation("1d", "normalised pixels are the better target", "pixel (with norm)",
              "pixel (without norm)", TUNED, PROBED),
    *ablation("1d", "normalised pixels beat PCA", "pixel (with norm)", "PCA", TUNED, PROBED),
    Finding("1d", "tokens are no better than normalised pixels", TUNED, *[
        weights_of("1d", label) for label in ("dVAE token", "pixel (with norm)")], alike=True),
    *ablation("1e", "colour jitter does harm", "crop, random size", "crop + color jitter",
              TUNED, PROBED),
    *ablation("1e", "crops help", "crop, random size", "none", TUNED, PROBED),
    *ablation("1f", "random masks beat blocks at 75 %", "random 75 %", "block 75 %",
              TUNED, PROBED),
    *ablation("1f", "random masks beat a grid", "random 75 %", "grid 75 %", TUNED, PROBED),
    *(Finding("3", f"MAE beats {METHODS[other]} when fine-tuned", TUNED, MAE, other)
      for other in (RANDOM, MOCO, BEIT)),
    *(Finding("4", f"MAE beats {METHODS[other]}", column, MAE, other)
      for other in (SUPERVISED, MOCO, BEIT) for column in (BOXES, MASKS)),
    *(Finding("5", f"MAE beats {METHODS[other]}", MIOU, MAE, other)
      for other in (SUPERVISED, MOCO, BEIT)),
    *(Finding("4v", f"MAE beats {METHODS[other]}", column, MAE, other)
      for other in (RANDOM, SUPERVISED, MOCO) for column in (VITDET_BOXES, VITDET_MASKS)),
    *(Finding(number, "MAE beats random weights (not in the paper)", column, MAE, RANDOM)
      for number, column in (("4", BOXES), ("4", MASKS), ("5", MIOU))),
    *(Finding("6", "MAE beats random weights", column, MAE, RANDOM)
      for column in TRANSFERRED.values()),
    Finding("12", "MAE probes better than BEiT", PROBED, MAE, BEIT),
    Finding("12", "MoCo v3 probes better than MAE (Section 4.3)", PROBED, MOCO, MAE),
]  # fmt: skip


def suite_spec(layouts: Iterable[Layout], seeds: int, few: int, short: bool) -> SuiteSpec:
    """All runs of some tables."""
    known: dict[str, Mapping[str, Any]] = {name: {"method": name} for name in METHODS}
    schedule = SHORTER if short else ABLATED
    for _, cases in CASES.values():
        known |= {each.weights: {**each.changes, **schedule} for each in cases}
    weights: dict[str, WeightsSpec] = {}
    blocks = []
    for layout in layouts:
        for name in layout.rows:
            random = name == RANDOM
            if not random:
                changes = SHORT if short and not layout.ablates else {}
                weights[name] = WeightsSpec(pretrain={**known[name], **changes})
            for task, protocol in dict.fromkeys(c[:2] for c in layout.columns.values()):
                own = RANDOM if random and protocol == "finetune" else protocol
                blocks.append(
                    Block(
                        backbones=[BACKBONE],
                        weights=[name],
                        tasks=[task],
                        protocols=[own] if own else [],
                        overrides=[SHORTER if short else {}],
                        seeds=few if layout.ablates else seeds,
                    )
                )
    return SuiteSpec(data="mini", weights=weights, measure=blocks)


Done = Sequence[tuple[SuiteRun, Record]]


def finished(runs: Sequence[SuiteRun], out: Path) -> Done:
    """Those of the runs that have a record, made by the recipe that they have now."""
    records = {record.name: record for record in read_records(out)[0]}
    for run in runs:
        made = records.get(run.name)
        if made is not None and made.recipe_hash != run.recipe.digest():
            raise SystemExit(f"{out / run.name} was made by another recipe: move it away")
    return [(run, records[run.name]) for run in runs if run.name in records]


def grouped(layouts: Sequence[Layout], done: Done) -> Groups:
    """The scores of runs by the columns and rows of the tables."""
    scores: dict[tuple[str, str], dict[str, dict[int, Record]]] = defaultdict(dict)
    for run, record in done:
        if run.command != "transfer":
            continue
        scores[run.task, run.protocol].setdefault(row_of(run), {})[run.seed] = record
    found: dict[Column, dict[str, list[float]]] = defaultdict(dict)
    for column in {c for layout in layouts for c in layout.columns.values()}:
        task, protocol, metric = column
        for (its_task, its_protocol), rows in scores.items():
            fits = not protocol or its_protocol in (
                protocol,
                RANDOM if protocol == "finetune" else "",
            )
            if its_task != task or not fits:
                continue
            for name, by_seed in rows.items():
                found[column][name] = [each.metrics[metric] for _, each in sorted(by_seed.items())]
    return found


def row_of(run: SuiteRun) -> str:
    """The weights that a transfer started from, by the name of their row."""
    if run.needs is None:
        return RANDOM
    schedule = {k: v for k, v in run.needs.overrides if k in ABLATED}
    changes = {k: v for k, v in run.needs.overrides if k not in ABLATED}
    if schedule not in (ABLATED, SHORTER):
        return run.needs.protocol
    if not changes:
        return HALF
    fitting = [each for _, cases in CASES.values() for each in cases if each.changes]
    return next(each.weights for each in fitting if implied(each.changes, changes))


def implied(asked: Mapping[str, Any], effective: Mapping[str, Any]) -> bool:
    """Whether a case's changes are those of a run, of which a target may add some."""
    return asked.items() <= effective.items() and not (
        effective.keys() - asked.keys() - {"norm_pix"}
    )


def table(layout: Layout, groups: Groups) -> str:
    """A table of the paper in Markdown."""
    lines = [
        f"### Table {layout.number}: {layout.title}",
        "",
        f"| | {' | '.join(layout.columns)} |",
        "|---|" + "---:|" * len(layout.columns),
    ]
    for name, label in layout.rows.items():
        cells = [shown(groups.get(column, {}).get(name, ())) for column in layout.columns.values()]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def is_begun(layout: Layout, groups: Groups) -> bool:
    """Whether a table has a number."""
    return any(set(layout.rows) & set(groups.get(c, {})) for c in layout.columns.values())


def shown(values: Sequence[float]) -> str:
    """Mean, sample standard deviation and number of the seeds."""
    if not values:
        return "–"
    spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{spread} (n={len(values)})"


def verdict(finding: Finding, a: Sequence[float], b: Sequence[float]) -> tuple[str, str]:
    """What Welch's test says of a finding, and the difference with its 95 % interval."""
    tested = welch(a, b)
    if tested is None:
        return "not tested", "–"
    (low, high), p = tested
    difference = statistics.mean(a) - statistics.mean(b)
    told = f"{difference:+.2f} [{low:+.2f}, {high:+.2f}], p {p:.3f}"
    if finding.alike:
        if low > -MARGIN and high < MARGIN:
            return "holds", told
        return ("does not hold" if p < LEVEL else "cannot be told from noise"), told
    if p >= LEVEL:
        return "cannot be told from noise", told
    return ("holds" if difference > 0 else "does not hold"), told


def findings(numbers: Iterable[str], groups: Groups) -> str:
    """What of the paper's findings holds here."""
    lines = [
        "### The paper's findings",
        "",
        "| table | finding | measured by | difference, 95 % interval | here |",
        "|---|---|---|---|---|",
    ]
    waiting = 0
    for each in FINDINGS:
        if each.table not in numbers:
            continue
        rows = groups.get(each.column, {})
        if each.first not in rows or each.second not in rows:
            waiting += 1
            continue
        said, told = verdict(each, rows.get(each.first, ()), rows.get(each.second, ()))
        what = " ".join(filter(None, each.column))
        lines.append(f"| {each.table} | {each.text} | {what} | {told} | {said} |")
    if waiting:
        lines += ["", f"{waiting} more findings wait for their runs."]
    return "\n".join(lines)


EXPLANATION = f"""\
Mean ± sample standard deviation over n seeds, each with a pre-training of its own. Differences by
Welch's t test at {100 * LEVEL:.0f} %, without a correction for their number. "Holds" of what the
paper finds alike: the whole interval lies within {MARGIN:g} point (ours). Random weights on
classification follow the recipe of training from scratch. Pre-trainings of Tables 1a to 1f last
{ABLATED["epochs"]} epochs, MAE's of the other tables 10 (the paper: 800 and 1600). Small images
drawn by mae-bench itself: no number here says anything about the paper's."""
NOTES = "## What was tried"


def carry_out(runs: Sequence[SuiteRun], file: Path, options: argparse.Namespace) -> Done:
    """Run what is missing of a suite's file, its tokenizer first."""
    how = Execution(workers=0, save_minutes=1.0)
    if any(run.protocol == BEIT or dict(run.overrides).get("target") == "tokens" for run in runs):
        short = SHORTER if options.shortened else {}
        mae_bench.pretrain(
            BACKBONE, out=options.out, name="tokenizer", execution=how, method="tokenizer", **short
        )
    records = mae_bench.suite(file, out=options.out, jobs=options.jobs, execution=how)
    return list(zip(runs, records, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    numbers = [layout.number for layout in LAYOUTS]
    parser.add_argument("--tables", nargs="+", choices=numbers, default=numbers)
    parser.add_argument("--seeds", type=int, default=SEEDS, help=f"of methods (default {SEEDS})")
    parser.add_argument("--ablation-seeds", type=int, default=ABLATION_SEEDS)
    parser.add_argument("--shortened", action="store_true", help="one epoch: only a trial")
    parser.add_argument("--out", type=Path, default=Path("runs/paper_in_miniature"))
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time (default 2)")
    parser.add_argument("--plan", action="store_true", help="only list the runs in a suite file")
    parser.add_argument("--finished", action="store_true", help="take what there is, run nothing")
    parser.add_argument("--write", action="store_true", help="write paper_in_miniature.md")
    options = parser.parse_args()
    whole = options.tables == numbers and not options.shortened
    whole = whole and options.seeds >= SEEDS and options.ablation_seeds >= ABLATION_SEEDS
    if options.write and not whole:
        parser.error("--write: this is a slice; only the whole is written")
    layouts = [layout for layout in LAYOUTS if layout.number in options.tables]
    spec = suite_spec(layouts, options.seeds, options.ablation_seeds, options.shortened)
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "suite.toml"
    write_spec(spec, file)
    runs = expand(spec).runs
    print(f"{len(runs)} runs in {file}; mae-bench plan {file} reckons what they take")
    if options.plan:
        return
    done = finished(runs, options.out) if options.finished else carry_out(runs, file, options)
    groups = grouped(layouts, done)
    begun = [layout for layout in layouts if is_begun(layout, groups)]
    parts = [*(table(layout, groups) for layout in begun), findings(options.tables, groups)]
    if len(done) < len(runs):
        missing = f"{len(runs) - len(done)} of {len(runs)} runs are missing"
        without = ", ".join(each.number for each in layouts if each not in begun)
        missing += f"; nothing is there of Tables {without}" if without else ""
        parts.insert(0, f"**Not finished: {missing}.**")
    text = "\n\n".join([*parts, EXPLANATION]) + "\n"
    print(text)
    if options.write:
        target = Path(__file__).with_suffix(".md")
        _, heading, notes = target.read_text().partition(NOTES) if target.exists() else ("",) * 3
        title = f"# The MAE paper in miniature\n\n`python benchmarks/{Path(__file__).name} --write`"
        target.write_text(f"{title}\n\n{text}" + (f"\n{heading}{notes}" if notes else ""))


if __name__ == "__main__":
    main()
