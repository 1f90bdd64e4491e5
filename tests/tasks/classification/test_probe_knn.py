"""Nearest neighbours against scikit-learn, and by hand where there are ties."""

import math

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor

from tasks.classification import knn
from tasks.classification.accuracy import answers

TEMPERATURE = 0.07


def weighting(distances: np.ndarray) -> np.ndarray:
    return np.exp((1 - distances) / TEMPERATURE)


def first_choice(votes: Tensor) -> np.ndarray:
    """The class that is scored as top-1."""
    nothing = torch.zeros(len(votes), dtype=torch.int64)
    return answers(votes, nothing, nothing, probabilities=votes).best[:, 0]


@pytest.fixture(scope="module")
def clouds() -> tuple[Tensor, Tensor, Tensor]:
    """700 training features of 7 overlapping classes, their classes, and 300 test features."""
    rng = torch.Generator().manual_seed(0)
    labels = torch.randint(7, (1000,), generator=rng)
    centres = torch.randn(7, 16, generator=rng)
    features = 3 * (centres[labels] + 1.5 * torch.randn(1000, 16, generator=rng)) + 1
    return features[:700], labels[:700], features[700:]


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("k", [1, 2, 20, 200])
def test_predictions_and_shares_are_scikit_learns(clouds, k: int, weighted: bool) -> None:
    bank, labels, queries = clouds
    similarities, rows = knn.nearest(queries, bank, 200)
    temperature = TEMPERATURE if weighted else None
    votes = knn.votes(similarities[:, :k], labels[rows[:, :k]], 7, temperature)
    theirs = KNeighborsClassifier(
        k, weights=weighting if weighted else "uniform", metric="cosine", algorithm="brute"
    ).fit(bank.double().numpy(), labels.numpy())
    expected = theirs.predict(queries.double().numpy())
    assert np.array_equal(first_choice(votes), expected)
    assert len(np.unique(expected)) == 7
    shares = (votes / votes.sum(dim=1, keepdim=True)).numpy()
    np.testing.assert_allclose(
        shares, theirs.predict_proba(queries.double().numpy()), rtol=0, atol=1e-5
    )


def test_neighbours_are_scikit_learns(clouds) -> None:
    bank, labels, queries = clouds
    similarities, rows = knn.nearest(queries, bank, 30)
    theirs = KNeighborsClassifier(30, metric="cosine").fit(bank.double().numpy(), labels.numpy())
    distances, expected = theirs.kneighbors(queries.double().numpy())
    assert np.array_equal(rows.numpy(), expected)
    np.testing.assert_allclose(similarities.numpy(), 1 - distances, rtol=0, atol=1e-6)


def corners(count: int, seed: int) -> Tensor:
    """Vectors of ones and minus ones: all their cosines are exact, and most occur often."""
    rng = torch.Generator().manual_seed(seed)
    return 2.0 * torch.randint(2, (count, 4), generator=rng) - 1


@pytest.mark.parametrize(("bank_rows", "query_rows"), [(1, 1), (7, 3), (16, 16), (1000, 1000)])
@pytest.mark.parametrize("k", [1, 5, 40])
def test_of_equally_near_images_the_first_count(monkeypatch, bank_rows, query_rows, k) -> None:
    """The same whatever is compared at a time, with N = 40 images in only 16 places."""
    monkeypatch.setattr(knn, "BANK_ROWS", bank_rows)
    monkeypatch.setattr(knn, "QUERY_ROWS", query_rows)
    bank, queries = corners(40, seed=0), corners(17, seed=1)
    similarities, rows = knn.nearest(queries, bank, k)
    exact = (queries @ bank.T / 4).numpy()
    for query in range(len(queries)):
        expected = np.lexsort((np.arange(40), -exact[query]))[:k]
        assert rows[query].tolist() == expected.tolist()
        assert similarities[query].tolist() == exact[query, expected].tolist()


def test_votes_by_hand() -> None:
    similarities = torch.tensor([[1.0, 0.9, 0.8]])
    labels = torch.tensor([[2, 0, 0]])
    weighted = knn.votes(similarities, labels, 4, temperature=0.1)
    by_hand = torch.tensor([[math.exp(-1) + math.exp(-2), 0.0, 1.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(weighted, by_hand, rtol=1e-5, atol=0)
    assert knn.votes(similarities, labels, 4, None).tolist() == [[2.0, 0.0, 1.0, 0.0]]
    assert first_choice(weighted).tolist() == [2]
    assert first_choice(knn.votes(similarities, labels, 4, None)).tolist() == [0]


def test_a_tie_goes_to_the_lower_class_as_in_scikit_learn() -> None:
    """Classes 3 and 1 have a vote each, the nearer being 3's; those without votes come last."""
    similarities, labels = torch.tensor([[0.9, 0.8]]), torch.tensor([[3, 1]])
    votes = knn.votes(similarities, labels, 5, None)
    nothing = torch.zeros(1, dtype=torch.int64)
    assert answers(votes, nothing, nothing).best.tolist() == [[1, 3, 0, 2]]
    bank = np.array([[0.9, math.sqrt(1 - 0.81)], [0.8, 0.6]])
    theirs = KNeighborsClassifier(2, metric="cosine").fit(bank, [3, 1])
    assert theirs.predict([[1.0, 0.0]]).tolist() == [1]


def test_a_low_temperature_leaves_numbers_in_range() -> None:
    """exp(1 / 0.0005) is above what float64 holds; then the nearest image alone decides."""
    similarities, labels = torch.tensor([[1.0, 0.99, 0.99]]), torch.tensor([[1, 0, 0]])
    votes = knn.votes(similarities, labels, 2, temperature=0.0005)
    assert votes.isfinite().all()
    assert first_choice(votes).tolist() == [1]


def test_a_feature_of_zeros_is_near_to_nothing() -> None:
    similarities, rows = knn.nearest(torch.zeros(1, 3), torch.eye(3), 2)
    assert similarities.tolist() == [[0.0, 0.0]]
    assert rows.tolist() == [[0, 1]]


@pytest.mark.parametrize("digits", [1, 2, 6])
@pytest.mark.parametrize("k", [1, 5, 30])
def test_the_largest_by_groups_are_those_of_a_stable_sort(digits: int, k: int) -> None:
    rng = torch.Generator().manual_seed(0)
    values = torch.randn(64, 64 * knn.GROUP, generator=rng).round(decimals=digits)
    expected = values.sort(dim=1, descending=True, stable=True)
    found, columns = knn.top(values, k)
    assert torch.equal(found, expected.values[:, :k])
    assert torch.equal(columns, expected.indices[:, :k])


@pytest.mark.parametrize("rows", [2048, 512, 100])
def test_parts_of_the_bank_give_what_all_of_it_at_once_gives(rows: int, monkeypatch) -> None:
    """Of features whose similarities are multiples of a quarter, exactly: most are equal."""
    rng = torch.Generator().manual_seed(0)
    signs = torch.randint(2, (2000, 4), generator=rng) * 2.0 - 1
    alone = torch.eye(4)[torch.randint(4, (2000,), generator=rng)]
    bank = torch.where(torch.rand(2000, 1, generator=rng) < 0.5, signs, signs * alone)
    queries = bank[:40]
    exact = torch.nn.functional.normalize(queries) @ torch.nn.functional.normalize(bank).T
    assert torch.equal(exact * 4, (exact * 4).round())
    expected = exact.sort(dim=1, descending=True, stable=True)
    monkeypatch.setattr(knn, "BANK_ROWS", rows)
    found, indices = knn.nearest(queries, bank, 7)
    assert torch.equal(found, expected.values[:, :7])
    assert torch.equal(indices, expected.indices[:, :7])


def test_later_parts_of_the_bank_with_few_that_are_near_enough(monkeypatch) -> None:
    rng = torch.Generator().manual_seed(0)
    bank, queries = torch.randn(4096, 16, generator=rng), torch.randn(40, 16, generator=rng)
    exact = (
        torch.nn.functional.normalize(queries.double())
        @ torch.nn.functional.normalize(bank.double()).T
    )
    expected = exact.sort(dim=1, descending=True, stable=True)
    monkeypatch.setattr(knn, "BANK_ROWS", 512)
    found, indices = knn.nearest(queries, bank, 7)
    assert torch.allclose(found.double(), expected.values[:, :7], rtol=0, atol=1e-6)
    assert torch.equal(indices, expected.indices[:, :7])
