"""What the scripts of this folder share: candidates that take turns, and tables of their ratios."""

import os
import platform
import statistics
import time
from argparse import ArgumentParser
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

OURS = "mae-bench"

Clock = Callable[[], float]
Spent = dict[str, list[float]]
"""seconds of each candidate in each round"""


def take_turns(
    jobs: Mapping[str, Callable[[], object]],
    rounds: int,
    clock: Clock = time.process_time,
    warm_up: int = 1,
    before: Callable[[], object] = lambda: None,
) -> Spent:
    """Every job once a round, in an order that rotates; the first rounds are not counted.

    Nor is `before`, which is called before each job.
    """
    spent: Spent = {name: [] for name in jobs}
    names = list(jobs)
    for number in range(rounds + warm_up):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            before()
            start = clock()
            jobs[name]()
            seconds = clock() - start
            if number >= warm_up:
                spent[name].append(seconds)
    return spent


def paired(spent: Mapping[str, Sequence[float]], name: str, by: str) -> list[float]:
    """One candidate's seconds by another's in the same round."""
    return [a / b for a, b in zip(spent[name], spent[by], strict=True)]


def spread(ratios: Sequence[float]) -> str:
    """Median and quartiles; of one round the ratio alone."""
    if len(ratios) < 2:
        return f"{ratios[0]:.2f}"
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def ratio(spent: Mapping[str, Sequence[float]], name: str, by: str) -> float:
    """The median of `paired`."""
    return statistics.median(paired(spent, name, by))


def rows(spent: Spent, by: str = OURS, columns: Mapping[str, Sequence[str]] | None = None) -> str:
    """A Markdown table: seconds, and how many times as long as `by` each candidate takes.

    `columns` has further cells by the name of the candidate, and the headings at "".
    """
    more = columns or {}
    head = ["implementation", "s, median (min)", *more.get("", ()), f"times {by}, (quartiles)"]
    lines = [" | ".join(head), "|".join("---" for _ in head)]
    for name, seconds in spent.items():
        told = "1.00" if name == by else spread(paired(spent, name, by))
        least = f"{figures(statistics.median(seconds))} ({figures(min(seconds))})"
        lines.append(" | ".join([name, least, *more.get(name, ()), told]))
    return "\n".join(f"| {line} |" if "---" not in line else f"|{line}|" for line in lines)


def figures(value: float) -> str:
    """Three significant digits, without an exponent."""
    digits = 3 if value < 1 else 2 if value < 10 else 1
    return f"{value:.{digits}f}" if value >= 0.1 else f"{value:.3g}"


def processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def machine(*packages: str, what: str = "CPU time") -> str:
    """What it ran on, and with which versions."""
    found = [f"{name} {version_of(name)}" for name in packages]
    threads = torch.get_num_threads()
    return (
        f"{processor()}, {torch.backends.cpu.get_cpu_capability()}, {threads} "
        f"thread{'s' * (threads > 1)}, {what}; Python {platform.python_version()}, "
        f"{', '.join([f'torch {torch.__version__}', *found])}. Shared machine: load average "
        f"{os.getloadavg()[1]:.1f} on {os.cpu_count()} processors."
    )


def version_of(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "of no version"


def parser(doc: str | None, rounds: int, script: str) -> ArgumentParser:
    """The flags that all of these scripts have."""
    made = ArgumentParser(description=(doc or "").partition("\n")[0])
    made.add_argument("--rounds", type=int, default=rounds, help=f"timed (default {rounds})")
    table = Path(script).with_suffix(".md").name
    made.add_argument("--write", action="store_true", help=f"write {table} too")
    return made


def publish(
    script: str, title: str, parts: Sequence[str], write: bool, keep_tables: bool = False
) -> None:
    """Print the tables, and write them beside the script; notes under "## " there are kept.

    With `keep_tables` so are tables under a heading "### " that is not measured this time. The
    last of `parts` explains them all.
    """
    print("\n\n".join(parts) + "\n")
    if not write:
        return
    file = Path(script).with_suffix(".md")
    before, heading, notes = (file.read_text() if file.exists() else "").partition("\n## ")
    told = list(parts)
    if keep_tables:
        *tables, last = parts
        told = [*merged(before.removesuffix(f"{last}\n"), tables), last]
    command = f"`python benchmarks/{Path(script).name}`"
    text = "\n\n".join([f"# {title}", command, *told])
    file.write_text(f"{text}\n{heading}{notes}")


def merged(before: str, tables: Sequence[str]) -> list[str]:
    """Tables in the order of the file, each that is measured anew in place of the old one."""
    new = {each.partition("\n")[0]: each for each in tables}
    old = [f"### {each.strip()}" for each in before.split("\n### ")[1:]]
    kept = {each.partition("\n")[0]: each for each in old}
    return list((kept | new).values())
