"""Probes: how much the features of a frozen backbone tell, without training it.

Shapes: N training images, M test images, C channels of a feature, K classes.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from backbones.files import atomic_text
from backbones.vit import ViT
from tasks.classification import knn, logistic
from tasks.classification.accuracy import Answers, Report, answers, finish
from tasks.classification.features import Extraction, Features, Part, Processes, obtain
from tasks.classification.labelled import LabelledImages
from tasks.classification.probe_recipes import KnnRecipe, LogisticRecipe
from tasks.errors import TaskError
from tasks.holding_out import hold_out
from tasks.images import Unreadable
from tasks.task import SCORING, Measurement, Say, Scored, Scoring

SEARCH_FILE = "l2.csv"


@dataclass
class Outcome:
    """What a probe found."""

    scored: Scored
    skipped: list[Unreadable] = field(default_factory=list)
    """training images that were left out"""
    caveats: list[str] = field(default_factory=list)
    head: dict[str, Tensor] = field(default_factory=dict)
    """the classifier, if the probe has one"""


class Probe(Measurement):
    """Nearest neighbours or a logistic regression on frozen features; the recipe says which.

    Raises `TaskError` if the data is not as expected, or has fewer training images than
    neighbours.
    """

    def __init__(
        self,
        recipe: KnnRecipe | LogisticRecipe,
        backbone: ViT,
        data: LabelledImages,
        seed: int,
        limit: int | None = None,
    ) -> None:
        """`limit`: that many images of each split only, taken evenly from the classes."""
        self.recipe = recipe
        self.backbone = backbone
        self.seed = seed
        self.data = data.limited(limit)
        self.has_logits = isinstance(recipe, LogisticRecipe)
        self.outcome = Outcome(Scored({}))
        if isinstance(recipe, KnnRecipe):
            refuse_too_many(recipe, len(self.data.train))

    def notes(self) -> list[str]:
        return list(self.data.notes)

    def caveats(self, processes: int) -> list[str]:
        """See `Measurement`: after `evaluate`, that the solver has not converged."""
        return self.outcome.caveats

    def fitted(self) -> dict[str, Tensor]:
        return self.outcome.head

    def skipped(self) -> list[Unreadable]:
        return self.outcome.skipped

    def evaluate(self, how: Scoring = SCORING) -> Scored:
        """Score on the val set: "top1", "top5" and "per_class" in percent, with intervals.

        Nearest neighbours also give "top1_k10" and "top1_k10_majority" for each number of
        neighbours, weighted and unweighted. On a CPU the same features give the same numbers.

        Progress counts images of both splits; the folder gets the files of `accuracy.finish`.
        Raises `TaskError` for more than `max_bad_images` unreadable images of a split. Under
        torch.distributed the processes share the extraction, the first one does the rest, and all
        return the same numbers.
        """
        device = torch.device(how.device or "cpu")
        extraction = Extraction(Processes(), device, how)

        def of(part: Part, before: int) -> Features | None:
            def advance(done: int) -> None:
                if how.on_progress is not None:
                    how.on_progress(before + done)

            return obtain(self.backbone, self.recipe, self.data, part, extraction, advance)

        train, val = of("train", 0), of("val", len(self.data.train))
        split = self.data.val
        report = Report(split.names, self.data.classes, folder=how.folder, images=split)

        def score() -> Outcome:
            assert train is not None
            assert val is not None
            if isinstance(self.recipe, KnnRecipe):
                found = score_neighbours(self.recipe, train, val, report, device)
            else:
                kept = replace(report, save_logits=how.save_logits)
                found = score_regression(self.recipe, train, val, kept, device, self.seed, how.say)
            found.skipped = train.unreadable
            found.scored.unreadable = val.unreadable
            return found

        self.outcome = extraction.processes.first_alone(score)
        return self.outcome.scored


def refuse_too_many(recipe: KnnRecipe, train_images: int) -> None:
    """Raise `TaskError` unless there are as many training images as neighbours."""
    most = recipe.neighbours[-1]
    if most > train_images:
        raise TaskError(
            f"neighbours has {most}, but there are {train_images} training images; give "
            f"--neighbours numbers up to {train_images}, and --headline-neighbours one of them"
        )


def score_neighbours(
    recipe: KnnRecipe, train: Features, val: Features, report: Report, device: torch.device
) -> Outcome:
    """Accuracy for each number of neighbours, weighted and unweighted; files of the headline."""
    refuse_too_many(recipe, len(train.targets))
    most = recipe.neighbours[-1]
    similarities, rows = knn.nearest(val.values, train.values, most, device)
    labels = train.targets.to(device)[rows]  # (M, k)
    scored = Scored({})
    for count in recipe.neighbours:
        for temperature in (recipe.temperature, None):
            headline = count == recipe.headline_neighbours and temperature is not None
            found: list[Answers] = []
            parts = (
                each.split(knn.QUERY_ROWS)
                for each in (similarities[:, :count], labels[:, :count], val.targets, val.index)
            )
            for near, classes, targets, index in zip(*parts, strict=True):
                votes = knn.votes(near, classes, len(report.classes), temperature)
                shares = votes / votes.sum(dim=1, keepdim=True)
                found.append(answers(votes, targets, index, probabilities=shares))
            each = finish(found, report if headline else replace(report, folder=None))
            if headline:
                scored.metrics = each.metrics | scored.metrics
                scored.intervals = each.intervals | scored.intervals
            else:
                name = f"top1_k{count}" + ("" if temperature else "_majority")
                scored.metrics[name] = each.metrics["top1"]
                scored.intervals[name] = each.intervals["top1"]
    return Outcome(scored)


def score_regression(
    recipe: LogisticRecipe,
    train: Features,
    val: Features,
    report: Report,
    device: torch.device,
    seed: int,
    say: Say,
) -> Outcome:
    """Choose l2 on held-out training images, fit on all of them, score; keeps `l2.csv`.

    Features are standardised with the training images' statistics, as by the affine-free batch
    norm in facebookresearch/mae, main_linprobe.py.
    """
    classes = len(report.classes)
    mean, variance = logistic.moments(train.values)
    norm = nn.BatchNorm1d(len(mean), affine=False, eps=logistic.VARIANCE_FLOOR)
    norm.running_mean, norm.running_var = mean.float(), variance.float()
    norm = norm.to(device).eval()
    values, targets = train.values, train.targets
    held = np.zeros(len(targets), dtype=bool)
    if len(recipe.l2) > 1:
        held = hold_out(targets.numpy(), recipe.holdout, seed)
    order = torch.from_numpy(np.argsort(held, kind="stable"))  # held-out ones last
    x, y = norm(values[order].to(device)), targets[order].to(device)
    l2, start = choose(recipe, x, y, classes, int(held.sum()), report.folder, say)
    fitted = logistic.solve(x, y, classes, l2, start=start, **limits(recipe))
    say(f"l2 {l2:g} on all {len(y)} training images: {fitted.iterations} iterations")
    head = nn.Sequential(norm, nn.Linear(len(mean), classes))
    head[1].weight.data = fitted.parameters[:, :-1].float()
    head[1].bias.data = fitted.parameters[:, -1].float()
    found: list[Answers] = []
    for part, labels, index in logistic.in_parts(classes, val.values, val.targets, val.index):
        logits = head(part.to(device)).detach()
        keep = report.save_logits
        found.append(answers(logits, labels, index, keep_logits=keep))
    outcome = Outcome(finish(found, report))
    outcome.head = {f"head.{name}": value.cpu() for name, value in head.state_dict().items()}
    if not fitted.converged:
        outcome.caveats = [
            f"logistic regression not converged: gradient at {fitted.gradient:.2g} of its start "
            f"after {fitted.iterations} iterations, expected {recipe.tolerance:g}"
        ]
        say(f"note: {outcome.caveats[0]}; raise --max-iter or --tolerance")
    return outcome


def limits(recipe: LogisticRecipe) -> dict[str, Any]:
    """When the solver stops."""
    return {"max_iter": recipe.max_iter, "tolerance": recipe.tolerance}


def choose(
    recipe: LogisticRecipe,
    x: Tensor,
    y: Tensor,
    num_classes: int,
    held: int,
    folder: Path | None,
    say: Say,
) -> tuple[float, Tensor | None]:
    """The l2 of the best accuracy on the last `held` rows, of equals the largest; its solution.

    A single l2 is taken as it is, without a solution.
    """
    if len(recipe.l2) == 1:
        return recipe.l2[0], None
    tried = logistic.search(x, y, num_classes, recipe.l2, held, say=say, **limits(recipe))
    best = max(tried, key=lambda each: each.accuracy)  # of equals the first
    if best is tried[0] or best is tried[-1]:
        say(f"note: the best l2, {best.l2:g}, is an end of --l2; a longer list may have a better")
    if folder is not None:
        write_search(folder / SEARCH_FILE, tried)
    return best.l2, best.solution.parameters


def write_search(file: Path, tried: Sequence[logistic.Tried]) -> None:
    """A CSV of one row for each l2 that was tried."""
    with atomic_text(file) as stream:
        writer = csv.writer(stream)
        writer.writerow(["l2", "held_out_top1", "iterations", "converged"])
        for each in tried:
            solution = each.solution
            writer.writerow([each.l2, each.accuracy, solution.iterations, solution.converged])
