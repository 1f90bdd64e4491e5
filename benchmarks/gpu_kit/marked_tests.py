"""The project's own tests that need a GPU."""

import subprocess
import sys
import xml.etree.ElementTree as ElementTree

from gpu_kit.part import ROOT, Bench

MARK = "mark.gpu"


def run(bench: Bench) -> None:
    __import__("pytest")  # or it is named as missing
    results = bench.out / "tests.xml"
    results.unlink(missing_ok=True)
    files = [
        str(file.relative_to(ROOT))
        for file in sorted((ROOT / "tests").rglob("test_*.py"))
        if MARK in file.read_text("utf-8")
    ]
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider"]
    command += [f"--junitxml={results.resolve()}", *files]
    subprocess.run(command, cwd=ROOT, check=False)
    bench.attempt("results of the tests", tell, bench, results)


def tell(bench: Bench, results: object) -> None:
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    for case in ElementTree.parse(str(results)).iter("testcase"):
        kinds = {child.tag for child in case}
        kind = "failed" if kinds & {"failure", "error"} else "passed"
        kind = "skipped" if "skipped" in kinds else kind
        counts[kind] += 1
        if kind != "passed":
            where = f"{case.get('classname')}.{case.get('name')}"
            bench.book.row("Tests that did not pass", test=where, outcome=kind)
    total = sum(counts.values())
    bench.book.note(", ".join(f"{number} {kind}" for kind, number in counts.items()))
    if not total:
        raise RuntimeError("there are no tests that need a GPU; expected some")
    name = "tests that need a GPU, passed"
    bench.book.goal(name, counts["passed"] / total, 1.0, f"of {total}")
    if counts["failed"]:
        raise RuntimeError(f"{counts['failed']} of {total} failed; see tests.log")
