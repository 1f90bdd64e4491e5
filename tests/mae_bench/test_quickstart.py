"""Quickstart is a suite."""

from mae_bench.quickstart import SPEC, with_short_names
from mae_bench.suite.expansion import expand


def test_both_starts_measure_the_same_tasks():
    runs = with_short_names(expand(SPEC).runs)
    made = {run.task for run in runs if run.needs}
    assert made == {run.task for run in runs if not run.needs and run.command == "transfer"}
    names = [run.name for run in runs]
    assert len(names) == 13
    assert len(set(names)) == 13
    assert {"pretrain", "finetune", "scratch", "knn", "coco-mae", "ade20k-scratch"} < set(names)
