"""Probes as a whole: data folder in, scores out, against scikit-learn on the same features."""

import csv
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from probe_files import copied, images, small, tiny_vit
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, top_k_accuracy_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from tasks.classification import classifier, layout, logistic, scores
from tasks.classification.features import Extraction, Processes, obtain
from tasks.classification.logistic import Solution, Tried
from tasks.classification.probe import Probe, choose
from tasks.classification.recipes import recipe as training_recipe
from tasks.errors import TaskError
from tasks.task import Scored, Scoring

FEW = {"neighbours": (3, 10, 48), "headline_neighbours": 10}


def build(root: Path, protocol: str, limit: int | None = None, **changes) -> Probe:
    if protocol == "knn":
        changes = FEW | changes
    data = layout.read("imagenet1k", root)
    return Probe(small(protocol, **changes), tiny_vit(), data, seed=0, limit=limit)


def quietly(probe: Probe, **how) -> Scored:
    return probe.evaluate(Scoring(**{"workers": 0, "batch_size": 128, "say": [].append, **how}))


@pytest.fixture(scope="module")
def arrays(world: Path) -> list[np.ndarray]:
    """Train features (48, C) and classes, test features (24, C) and classes."""
    how = Extraction(Processes(), torch.device("cpu"), Scoring(workers=0))
    data = layout.read("imagenet1k", world / "imagenet1k")
    parts = [
        obtain(tiny_vit(), small("knn"), data, part, how, lambda done: None)
        for part in ("train", "val")
    ]
    return [each.numpy() for part in parts for each in (part.values.double(), part.targets)]


def weighting(distances: np.ndarray) -> np.ndarray:
    return np.exp((1 - distances) / 0.07)


def test_knn_scores_what_scikit_learn_does(world: Path, arrays, tmp_path: Path) -> None:
    train, classes, test, targets = arrays
    scored = quietly(build(world / "imagenet1k", "knn"), folder=tmp_path)
    for k in FEW["neighbours"]:
        for weights, ending in ((weighting, ""), ("uniform", "_majority")):
            model = KNeighborsClassifier(k, weights=weights, metric="cosine", algorithm="brute")
            model.fit(train, classes)
            name = "top1" if (k, ending) == (10, "") else f"top1_k{k}{ending}"
            expected = 100 * model.score(test, targets)
            assert scored.metrics.pop(name) == pytest.approx(expected, abs=1e-9), name
            low, high = scored.intervals.pop(name)
            assert low <= expected <= high
            if name == "top1":
                shares, predicted = model.predict_proba(test), model.predict(test)
    top5 = 100 * top_k_accuracy_score(targets, shares, k=5)
    assert scored.metrics.pop("top5") == pytest.approx(top5, abs=1e-9)
    balanced = 100 * balanced_accuracy_score(targets, predicted)
    assert scored.metrics.pop("per_class") == pytest.approx(balanced, abs=1e-9)
    assert not scored.metrics
    with (tmp_path / scores.PREDICTIONS_FILE).open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [int(row["class_1"]) for row in rows] == predicted.tolist()
    shown = [float(row["probability_1"]) for row in rows]
    np.testing.assert_allclose(shown, shares.max(axis=1), rtol=0, atol=1e-5)
    assert [row["file"] for row in rows] == list(build(world / "imagenet1k", "knn").data.val.names)


def test_logistic_regression_scores_what_scikit_learn_does(
    world: Path, arrays, tmp_path: Path
) -> None:
    """On features standardised with 1e-6 added to the variance, C = 1 / (l2 x N)."""
    train, classes, test, targets = arrays
    l2 = 0.01
    probe = build(world / "imagenet1k", "logistic", l2=(l2,))
    scored = quietly(probe, folder=tmp_path, save_logits=True)
    scaler = StandardScaler().fit(train)
    scaler.scale_ = np.sqrt(scaler.var_ + 1e-6)
    model = LogisticRegression(C=1 / (l2 * len(train)), tol=1e-10, max_iter=10_000)
    model.fit(scaler.transform(train), classes)
    expected = model.predict_proba(scaler.transform(test))
    kept = load_file(tmp_path / "logits.safetensors")
    np.testing.assert_allclose(kept["logits"].softmax(dim=1), expected, rtol=0, atol=5e-3)
    assert kept["targets"].tolist() == targets.tolist()
    top1 = 100 * model.score(scaler.transform(test), targets)
    assert scored.metrics["top1"] == pytest.approx(top1, abs=1e-9)
    assert scored.metrics.keys() == {"top1", "top5", "per_class"}
    assert probe.caveats(1) == []
    assert scores.rescore(tmp_path / scores.PREDICTIONS_FILE).metrics == scored.metrics
    assert not (tmp_path / "l2.csv").exists()


def test_the_head_is_that_of_linear_probing(world: Path, tmp_path: Path) -> None:
    """Its tensors load into the linear protocol's batch norm and linear layer."""
    probe = build(world / "imagenet1k", "logistic", l2=(0.1,))
    quietly(probe, folder=tmp_path, save_logits=True)
    head = classifier.linear(24, 10, training_recipe("imagenet1k", "vit_b", "linear")).eval()
    found = probe.outcome.head
    head.load_state_dict({name.removeprefix("head."): value for name, value in found.items()})
    how = Extraction(Processes(), torch.device("cpu"), Scoring(workers=0))
    val = obtain(tiny_vit(), small("knn"), probe.data, "val", how, lambda done: None)
    kept = load_file(tmp_path / "logits.safetensors")["logits"]
    torch.testing.assert_close(head(val.values), kept, rtol=1e-5, atol=1e-5)


def test_l2_is_chosen_on_training_images(world: Path, tmp_path: Path) -> None:
    """The best held-out accuracy, the strongest of equals, then a fit on all images."""
    probe = build(world / "imagenet1k", "logistic", l2=(100.0, 0.1, 1e-3), holdout=0.3)
    said: list[str] = []
    scored = quietly(probe, say=said.append, folder=tmp_path)
    table = [line.split(",") for line in (tmp_path / "l2.csv").read_text().splitlines()]
    assert table[0] == ["l2", "held_out_top1", "iterations", "converged"]
    assert [float(row[0]) for row in table[1:]] == [100.0, 0.1, 1e-3]
    accuracies = [float(row[1]) for row in table[1:]]
    assert len(set(accuracies)) > 1
    best = float(table[1 + accuracies.index(max(accuracies))][0])
    assert said[-1].startswith(f"l2 {best:g} on all 48 training images: ")
    alone = build(world / "imagenet1k", "logistic", l2=(best,), holdout=0.3)
    assert quietly(alone).metrics == scored.metrics


@pytest.mark.parametrize(
    ("accuracies", "best", "noted"),
    [
        ([1, 3, 2], 0.1, False),
        ([1, 3, 3], 0.1, False),
        ([3, 2, 3], 1.0, True),
        ([1, 2, 3], 0.01, True),
    ],
)
def test_the_strongest_of_equals_is_taken_and_an_end_of_the_list_noted(
    monkeypatch, accuracies: list[float], best: float, noted: bool
) -> None:
    """Given what the search finds, by hand."""
    grid = (1.0, 0.1, 0.01)
    solutions = [Solution(torch.full((2, 4), l2), 5, 0.0, True) for l2 in grid]
    tried = [Tried(*each) for each in zip(grid, accuracies, solutions, strict=True)]
    monkeypatch.setattr(logistic, "search", lambda *_, **__: tried)
    said: list[str] = []
    recipe, nothing = small("logistic", l2=grid), torch.empty(0)
    l2, start = choose(recipe, nothing, nothing, 2, 1, None, said.append)
    assert l2 == best
    assert start is solutions[grid.index(best)].parameters
    note = f"note: the best l2, {best:g}, is an end of --l2; a longer list may have a better"
    assert said == ([note] if noted else [])


def test_no_convergence_is_a_caveat(world: Path) -> None:
    probe = build(world / "imagenet1k", "logistic", l2=(1e-3,), max_iter=2)
    assert probe.caveats(1) == []
    said: list[str] = []
    quietly(probe, say=said.append)
    (caveat,) = probe.caveats(1)
    assert caveat.startswith("logistic regression not converged: gradient at 0.")
    assert caveat.endswith("after 2 iterations, expected 0.001")
    assert said[-1] == f"note: {caveat}; raise --max-iter or --tolerance"


@pytest.mark.parametrize("protocol", ["knn", "logistic"])
def test_the_same_numbers_again_with_and_without_kept_features(
    world: Path, tmp_path: Path, protocol: str
) -> None:
    """And progress over both splits, whether features are extracted or read."""
    root = world / "imagenet1k"
    first, again = [], []
    once = quietly(build(root, protocol), features=tmp_path, on_progress=first.append)
    assert quietly(build(root, protocol), features=tmp_path, on_progress=again.append) == once
    assert quietly(build(root, protocol)) == once
    assert first == again == [48, 72]


def test_facts_are_the_data_sets(world: Path) -> None:
    facts = build(world / "imagenet1k", "logistic", limit=30).data_facts()
    assert (facts["train_images"], facts["val_images"], facts["classes"]) == (30, 24, 10)
    assert not facts["standard"]


@pytest.mark.parametrize("limit", [None, 20])
def test_more_neighbours_than_images(world: Path, limit: int | None) -> None:
    count = limit or 48
    told = rf"neighbours has 50, but there are {count} .* --neighbours numbers up to {count},"
    with pytest.raises(TaskError, match=told):
        build(world / "imagenet1k", "knn", limit, neighbours=(10, 50))


def test_unreadable_images(world: Path, tmp_path: Path) -> None:
    """Training ones are skipped up to a limit, test ones named in what is found."""
    root = copied(world, tmp_path)
    spoilt = [*images(root, "train")[:2], images(root, "val")[0]]
    for file in spoilt:
        file.write_bytes(b"no image")
    names = [file.relative_to(root).as_posix() for file in spoilt]
    probe = build(root, "knn", neighbours=(10,))
    scored = quietly(probe, folder=tmp_path)
    assert [each.name for each in scored.unreadable] == names[2:]
    with (tmp_path / scores.PREDICTIONS_FILE).open(newline="") as stream:
        shown = [row["file"] for row in csv.DictReader(stream)]
    assert shown == [name for name in probe.data.val.names if name != names[2]]
    assert [each.name for each in probe.outcome.skipped] == names[:2]
    with pytest.raises(TaskError, match=r"2 training image files .* the limit of 1"):
        quietly(probe, max_bad_images=1)
    with pytest.raises(TaskError, match="neighbours has 48, but there are 46 training images"):
        quietly(build(root, "knn"))


FEWER = {"knn": {"neighbours": (3, 10)}, "logistic": {}}


def evaluate_in_process(rank: int, root: str, place: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{place}/store", rank=rank, world_size=2)
    found = []
    for protocol, fewer in FEWER.items():
        done: list[int] = []
        said: list[str] = []
        how = {"features": Path(place, "features"), "on_progress": done.append, "say": said.append}
        probe = build(Path(root), protocol, **fewer)
        scored = quietly(probe, batch_size=8, **how)
        head = {name: value.tolist() for name, value in probe.outcome.head.items()}
        found.append((scored, probe.outcome.skipped, head, done, said))
    try:
        quietly(build(Path(root), "knn", neighbours=(10,)), max_bad_images=0)
    except TaskError as error:
        found.append(str(error))
    Path(place, f"{rank}").write_bytes(pickle.dumps(found))
    dist.destroy_process_group()


def test_two_processes_are_one(world: Path, tmp_path: Path) -> None:
    """Each extracts its half; the first one scores, and both know the outcome, or the error."""
    root = copied(world, tmp_path)
    spoilt = images(root, "train")[30]
    spoilt.write_bytes(b"no image")
    arguments = (str(root), str(tmp_path))
    mp.start_processes(evaluate_in_process, arguments, nprocs=2, start_method="fork")
    first, second = (pickle.loads((tmp_path / f"{rank}").read_bytes()) for rank in (0, 1))
    for i, (protocol, fewer) in enumerate(FEWER.items()):
        alone = build(root, protocol, **fewer)
        expected = quietly(alone)
        for scored, skipped, *_ in (first[i], second[i]):
            assert scored == expected
            assert [each.name for each in skipped] == [spoilt.relative_to(root).as_posix()]
        assert first[i][2] == second[i][2]
        for name, value in alone.outcome.head.items():
            torch.testing.assert_close(torch.tensor(first[i][2][name]), value, rtol=0, atol=1e-3)
    assert first[0][3] == [16, 32, 48, 48 + 16, 48 + 24]
    assert first[1][3] == second[1][3] == [48, 72]
    assert first[1][4][0].startswith("features of 47 train images: ")
    assert second[0][4] == second[1][4] == []
    assert first[2] == second[2]
    assert "1 training image files are unreadable, more than the limit of 0" in first[2]
