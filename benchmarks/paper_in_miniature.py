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
from pathlib import Path
from typing import Any

from miniature_tables import (
    ABLATION,
    BEIT,
    CASES,
    FINDINGS,
    LAYOUTS,
    METHODS,
    RANDOM,
    Column,
    Finding,
    Layout,
)

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
ABLATED = {"epochs": 3, "warmup_epochs": 0.6}
"""schedule of the pre-trainings of Table 1: shorter than the others', as the paper's 800 of 1600
epochs"""
SHORT, SHORTER = ({"epochs": epochs, "warmup_epochs": 0.0} for epochs in (2, 1))
"""for a trial: of pre-trainings; of Table 1's, and of all transfers"""

Groups = Mapping[Column, Mapping[str, Sequence[float]]]
"""column -> weights -> a value for each seed"""


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
TOKENIZER = "tokenizer"
"""name of the run whose tokens BEiT and Table 1d predict"""


def finished(runs: Sequence[SuiteRun], out: Path) -> Done:
    """Those of the runs that have a record, made by the recipe that they have now."""
    records = {record.name: record for record in read_records(out)[0]}
    done = []
    for run in runs:
        name = TOKENIZER if run.protocol == "tokenizer" else run.name
        made = records.get(name)
        if made is not None and made.recipe_hash != run.recipe.digest():
            raise SystemExit(f"{out / name} was made by another recipe: move it away")
        if made is not None:
            done.append((run, made))
    return done


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
        return ABLATION
    fitting = [each for _, cases in CASES.values() for each in cases if each.changes]
    return next(each.weights for each in fitting if implied(each.changes, changes))


def implied(asked: Mapping[str, Any], effective: Mapping[str, Any]) -> bool:
    """Whether a case's changes are those of a run, of which a target may add some."""
    return asked.items() <= effective.items() and not (
        effective.keys() - asked.keys() - {"norm_pix", "codebook"}
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
    told = (
        f"{difference:+.2f} [{low:+.2f}, {high:+.2f}], {'p < 0.001' if p < 0.001 else f'p {p:.3f}'}"
    )
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
            BACKBONE, out=options.out, name=TOKENIZER, execution=how, method="tokenizer", **short
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
