"""Two sets of runs against each other: over their seeds, and over the images they were scored on.

Sources: Welch, The generalization of Student's problem, Biometrika 34 (1947); McNemar, Note on the
sampling error of the difference between correlated proportions, Psychometrika 12 (1947), in its
exact form; Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13, for the
percentile interval.
"""

import math
import statistics
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from results.cells import Notes, caveats, named, untraced
from results.configuration import Configuration, configurations, mean_cell
from results.errors import ResultsError
from results.labels import better, decimals_of, metric_title, shown, table_title
from results.predictions import RunScores
from results.record import Record
from results.table import Cell, Column, Table

RESAMPLES = 10_000
SEED = 2111_06377
NORMAL_QUANTILE = 1.959963984540054
"""below which 97.5 % of a normal distribution lie"""

SEEDS = (
    "over seeds: Welch's t test and 95 % interval for the difference of two means; seed 0 of one"
    " set and seed 0 of the other are no pair."
)
PAIRED = (
    "over images, paired: both sets on the same images, the seeds taken as they are. The interval"
    f" holds 95 % of {RESAMPLES} bootstrap resamples of the images; p is McNemar's exact test, for"
    " one run each."
)
UNPAIRED = (
    "over images, unpaired: from the bootstrap intervals of two single runs, as if their images had"
    " been drawn apart; on the same images the difference is known better than that."
)
VERDICT = (
    "within noise: the 95 % interval of the difference holds 0. Over images that is noise of the"
    " test images alone, for these very models: other seeds of the same recipes are not in it."
)
NO_TEST = "no test: it takes two seeds in each set, predictions of the same images, or intervals."


@dataclass(frozen=True)
class Test:
    """The difference of two sets by one method."""

    name: str
    difference: float
    interval: tuple[float, float] | None
    p: float | None


def welch(a: Sequence[float], b: Sequence[float]) -> tuple[tuple[float, float], float] | None:
    """The 95 % interval of mean(a) - mean(b), and the p-value of no difference, by Welch's t.

    None for fewer than two values in either, or for no spread at all.
    """
    if min(len(a), len(b)) < 2 or len(set(a)) == len(set(b)) == 1:
        return None
    from scipy.stats import ttest_ind  # takes a second to import

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of one set without a spread
        found = ttest_ind(a, b, equal_var=False)
        low, high = found.confidence_interval(0.95)
    return (float(low), float(high)), float(found.pvalue)


def mcnemar(only_a: int, only_b: int) -> float:
    """The exact two-sided p-value of McNemar's test.

    `only_a` images are right in a and wrong in b, `only_b` the other way round.
    """
    if only_a + only_b == 0:
        return 1.0
    from scipy.stats import binomtest

    return float(binomtest(only_a, only_a + only_b).pvalue)


def paired_interval(gaps: Sequence[float]) -> tuple[float, float]:
    """The 95 % percentile bootstrap interval of the mean of `gaps`, one for each image.

    Images of equal gaps are drawn together: how many fall on each value is multinomial.
    """
    import numpy as np

    counts = Counter(gaps)
    values, times = np.array(list(counts)), np.array(list(counts.values()))
    generator = np.random.default_rng(SEED)
    drawn = generator.multinomial(len(gaps), times / len(gaps), size=RESAMPLES)
    low, high = np.percentile(drawn @ values / len(gaps), (2.5, 97.5))
    return float(low), float(high)


def compare(
    a: Sequence[RunScores], b: Sequence[RunScores], names: tuple[str, str] = ("A", "B")
) -> Table:
    """The scores of two sets of runs and their difference a - b, by each test that they allow.

    The runs of a set differ only in their seed. Over seeds the test is Welch's, over images it is
    paired where both sets kept predictions of the same images. A note tells in what the sets
    differ. Raises ResultsError for an empty or mixed set, and for sets of different tasks.
    """
    sets = [_one_configuration(runs, name) for runs, name in zip((a, b), names, strict=True)]
    (first, _), (second, _) = sets
    if first.first.task != second.first.task:
        raise ResultsError(
            f"{names[0]} is of task {first.first.task} and {names[1]} of {second.first.task}; "
            "expected two sets of runs of one task"
        )
    metrics = [m for m in first.first.metrics if first.values(m) and second.values(m)]
    metrics = shown(metrics) or metrics
    if not metrics:
        raise ResultsError(f"{names[0]} and {names[1]} have no score in common")

    notes = Notes()
    marks = [caveats(c, notes) for c, _ in sets]
    rows, general = [], [_what_differs(first.first, second.first, names)]
    for metric in metrics:
        decimals = decimals_of(metric)
        ours = [
            mean_cell(c.values(metric), decimals, mark, c.scored(metric))
            for (c, _), mark in zip(sets, marks, strict=True)
        ]
        for test, text in _tests(metric, *sets):
            rows.append((*_labels(metric, test), *ours, *_result(metric, test, names)))
            general += [text] if text not in general else []
    general += [VERDICT]
    columns = (
        Column("metric", "metric", "label"),
        Column("test", "test", "label"),
        Column("a", names[0], "measured"),
        Column("b", names[1], "measured"),
        Column("difference", f"{names[0]} − {names[1]}", "difference", "points"),
        Column("p", "p", "label"),
        Column("verdict", "verdict", "label"),
    )
    protocols = dict.fromkeys(table_title(c.first.protocol) for c, _ in sets)
    title = f"{names[0]} against {names[1]}: {' / '.join(protocols)}"
    return Table(title, columns, tuple(rows), notes.listed(general))


Hits = Sequence[Mapping[str, bool]]
"""of each run: test image -> right or wrong"""
Set = tuple[Configuration, Hits | None]


def _one_configuration(runs: Sequence[RunScores], name: str) -> Set:
    """The runs of a set, and their predictions where all have them."""
    found = configurations(run.record for run in runs)
    if not found:
        raise ResultsError(f"{name} has no runs; expected one at least")
    if len(found) > 1:
        several = ", ".join(c.first.name for c in found[:5])
        unknown = [untraced(c) for c in found if c.untraced]
        raise ResultsError(
            f"{name} has runs that differ in more than their seed (among them {several}); expected "
            "runs of one protocol, backbone, recipe, data set and pre-training"
            + (f"; {unknown[0]}" if unknown else "")
        )
    hits = {id(run.record): run.hits for run in runs}
    kept = [hits[id(record)] for record in found[0].records]
    whole = [each for each in kept if each is not None]
    return found[0], whole if len(whole) == len(kept) else None


def _tests(metric: str, a: Set, b: Set) -> list[tuple[Test, str]]:
    """Every test that two sets allow, each with the note that explains it."""
    scores = [c.values(metric) for c, _ in (a, b)]
    gap = statistics.fmean(scores[0]) - statistics.fmean(scores[1])
    found = []
    over_seeds = welch(*scores)
    if over_seeds is not None:
        found.append((Test("over seeds", gap, *over_seeds), SEEDS))
    hits_a, hits_b = a[1], b[1]
    if metric == "top1" and hits_a and hits_b and _same_images([*hits_a, *hits_b]):
        found.append((_over_images(hits_a, hits_b), PAIRED))
    intervals = [c.interval(metric) for c, _ in (a, b)]
    if not found and None not in intervals:
        found.append((_unpaired(gap, [each for each in intervals if each]), UNPAIRED))
    return found or [(Test("none", gap, None, None), NO_TEST)]


def _same_images(hits: Hits) -> bool:
    return all(each.keys() == hits[0].keys() for each in hits)


def _over_images(a: Hits, b: Hits) -> Test:
    """The paired test of runs that were scored on the same images."""
    gaps = [
        100 * (sum(hits[image] for hits in a) / len(a) - sum(hits[image] for hits in b) / len(b))
        for image in a[0]
    ]
    single = len(a) == len(b) == 1
    p = mcnemar(sum(gap > 0 for gap in gaps), sum(gap < 0 for gap in gaps)) if single else None
    return Test("over images, paired", statistics.fmean(gaps), paired_interval(gaps), p)


def _unpaired(gap: float, intervals: Sequence[tuple[float, float]]) -> Test:
    """From two independent intervals, each taken for that of a normal distribution."""
    errors = [(high - low) / (2 * NORMAL_QUANTILE) for low, high in intervals]
    error = math.hypot(*errors)
    half = NORMAL_QUANTILE * error
    p = math.erfc(abs(gap) / error / math.sqrt(2)) if error else None
    return Test("over images, unpaired", gap, (gap - half, gap + half), p)


def _labels(metric: str, test: Test) -> tuple[Cell, Cell]:
    title, unit = metric_title(metric)
    return Cell(f"{title} {unit}".strip()), Cell(test.name)


def _result(metric: str, test: Test, names: tuple[str, str]) -> tuple[Cell, Cell, Cell]:
    """The difference with its interval, the p-value, and what both say."""
    gap = Cell(test.difference, decimals_of(metric), interval=test.interval)
    p = "" if test.p is None else "< 0.0001" if test.p < 1e-4 else f"{test.p:.2g}"
    if test.interval is None:
        verdict = ""
    elif test.interval[0] <= 0 <= test.interval[1]:
        verdict = "within noise"
    else:
        a_wins = (test.difference > 0) != (better(metric) == "lower")
        word = "better" if better(metric) else "higher"
        verdict = f"{names[0] if a_wins else names[1]} {word}"
    return gap, Cell(p or None), Cell(verdict or None)


def _what_differs(a: Record, b: Record, names: tuple[str, str]) -> str:
    """In one line, what the scores may differ by besides chance."""
    one, two = _facts(a), _facts(b)
    parts = [
        f"{name} {one.get(name)} / {two.get(name)}"
        for name in {**one, **two}
        if one.get(name) != two.get(name)
    ]
    return f"{names[0]} / {names[1]} differ in: {'; '.join(parts) or 'nothing but the seeds'}."


def _facts(record: Record) -> dict[str, object]:
    file = record.checkpoint
    begun = "begun from" if record.kind == "pretrain" else "weights"
    return {
        "protocol": record.protocol,
        "backbone": record.backbone,
        begun: record.init if file is None else f"{record.init} ({file.file})",
        "checkpoint": None if file is None else file.sha256[:12],
        "pre-training data": named(file.data) if file and file.data else None,
        "pre-training seed": file.seed if file else None,
        "data": f"{record.data.name} {record.data.fingerprint[:12]}",
        "deviations": "; ".join(record.deviations) or None,
        **record.recipe,
    }
