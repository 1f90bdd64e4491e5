"""The solver against scikit-learn's, on the same problem: C = 1 / (l2 x N)."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from tasks.classification import logistic
from tasks.classification.logistic import logits, moments, objective, search, solve

NUM_IMAGES, NUM_CHANNELS, NUM_CLASSES = 400, 12, 5


@pytest.fixture(scope="module")
def problem() -> tuple[Tensor, Tensor]:
    """Correlated features, float64, of classes that overlap and are not equally frequent."""
    rng = torch.Generator().manual_seed(0)
    double = {"generator": rng, "dtype": torch.float64}
    plain = torch.randn(NUM_IMAGES, NUM_CHANNELS, **double)
    noisy = plain[:, :NUM_CLASSES] + torch.randn(NUM_IMAGES, NUM_CLASSES, **double)
    targets = (noisy + torch.linspace(0, 1.5, NUM_CLASSES)).argmax(dim=1)
    features = plain @ torch.randn(NUM_CHANNELS, NUM_CHANNELS, **double)
    return (features - features.mean(0)) / features.std(0), targets


def scikit_learn(features: Tensor, targets: Tensor, l2: float) -> LogisticRegression:
    model = LogisticRegression(C=1 / (l2 * len(features)), tol=1e-10, max_iter=10_000)
    return model.fit(features.double().numpy(), targets.numpy())


@pytest.mark.parametrize("l2", [1.0, 0.1, 0.01, 1e-3])
def test_the_solution_is_scikit_learns(problem, l2: float) -> None:
    features, targets = problem
    found = solve(features, targets, NUM_CLASSES, l2, max_iter=1000, tolerance=1e-6)
    assert found.converged
    assert found.gradient <= 1e-6
    theirs = scikit_learn(features, targets, l2)
    weight, bias = found.parameters[:, :-1].numpy(), found.parameters[:, -1].numpy()
    np.testing.assert_allclose(weight, theirs.coef_, rtol=0, atol=2e-4)
    expected = theirs.intercept_ - theirs.intercept_.mean()  # a common shift changes nothing
    assert np.ptp(expected) > 0.2
    np.testing.assert_allclose(bias - bias.mean(), expected, rtol=0, atol=2e-5)
    probabilities = logits(found.parameters, features).softmax(dim=1).numpy()
    np.testing.assert_allclose(probabilities, theirs.predict_proba(features), rtol=0, atol=2e-5)


@pytest.mark.parametrize("l2", [0.1, 1e-3])
def test_float32_at_the_recipes_tolerance(problem, l2: float) -> None:
    """Probabilities to a hundredth, and the same answers but where two classes are as likely."""
    features, targets = problem
    single = features.float()
    found = solve(single, targets, NUM_CLASSES, l2, max_iter=1000, tolerance=1e-3)
    assert found.converged
    ours = logits(found.parameters, single)
    assert ours.dtype == torch.float32
    expected = torch.from_numpy(scikit_learn(features, targets, l2).predict_proba(features))
    torch.testing.assert_close(ours.softmax(dim=1).double(), expected, rtol=0, atol=0.01)
    best = expected.topk(2, dim=1).values
    clear = best[:, 0] - best[:, 1] > 0.02
    assert clear.float().mean() > 0.9
    assert torch.equal(ours.argmax(dim=1)[clear], expected.argmax(dim=1)[clear])


def test_the_objective_is_torchs_cross_entropy_and_its_gradient(problem) -> None:
    features, targets = problem
    rng = torch.Generator().manual_seed(1)
    shape = (NUM_CLASSES, NUM_CHANNELS + 1)
    parameters = torch.randn(shape, generator=rng, dtype=torch.float64).requires_grad_()
    weight, bias = parameters[:, :-1], parameters[:, -1]
    expected = F.cross_entropy(F.linear(features, weight, bias), targets)
    expected = expected + 0.3 / 2 * (weight**2).sum()
    expected.backward()
    loss, gradient = objective(parameters.detach(), features, targets, 0.3)
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-12, atol=0)
    torch.testing.assert_close(gradient, parameters.grad, rtol=0, atol=1e-13)


def test_parts_add_up(problem, monkeypatch) -> None:
    features, targets = problem
    parameters = torch.ones(NUM_CLASSES, NUM_CHANNELS + 1, dtype=torch.float64)
    parameters[0] = -1
    whole = objective(parameters, features, targets, 0.1)
    monkeypatch.setattr(logistic, "LOGITS_AT_ONCE", 7 * NUM_CLASSES)  # 7 images: 57 parts and 1
    parts = objective(parameters, features, targets, 0.1)
    torch.testing.assert_close(parts, whole, rtol=1e-12, atol=1e-14)


def test_moments_are_numpys() -> None:
    rng = np.random.default_rng(0)
    features = (1000 + rng.normal(size=(200, 70))).astype(np.float32)  # cancels in float32
    mean, variance = moments(torch.from_numpy(features))
    np.testing.assert_allclose(mean, features.astype(float).mean(0), rtol=1e-12)
    np.testing.assert_allclose(variance, features.astype(float).var(0), rtol=1e-9)


def test_too_few_iterations_are_no_convergence(problem) -> None:
    features, targets = problem
    found = solve(features, targets, NUM_CLASSES, 1e-3, max_iter=2, tolerance=1e-3)
    assert not found.converged
    assert found.iterations == 2
    assert found.gradient > 1e-3


def test_from_the_solution_there_is_no_way_to_go(problem) -> None:
    features, targets = problem
    first = solve(features, targets, NUM_CLASSES, 0.1, max_iter=100, tolerance=1e-4)
    start = first.parameters.clone()
    again = solve(
        features, targets, NUM_CLASSES, 0.1, max_iter=100, tolerance=1e-4, start=first.parameters
    )
    assert again.iterations == 0
    assert torch.equal(again.parameters, start)
    assert torch.equal(first.parameters, start)


def test_one_class_alone_needs_no_solver() -> None:
    found = solve(torch.randn(5, 3), torch.zeros(5).long(), 1, 0.1, max_iter=9, tolerance=1e-3)
    assert found.converged
    assert not found.parameters.any()


def test_search_scores_what_is_held_out(problem) -> None:
    """Accuracies are those of scikit-learn, fitted on the first 300 and asked for the others."""
    features, targets = problem
    grid = (10.0, 0.1, 1e-3)
    said: list[str] = []
    tried = search(
        features, targets, NUM_CLASSES, grid, 100, max_iter=1000, tolerance=1e-6, say=said.append
    )
    assert [each.l2 for each in tried] == list(grid)
    for each in tried:
        model = scikit_learn(features[:300], targets[:300], each.l2)
        expected = 100 * model.score(features[300:], targets[300:])
        assert each.accuracy == pytest.approx(expected, abs=1e-9)
    assert len({each.accuracy for each in tried}) > 1
    assert said[1] == (
        f"l2 0.1: held-out top-1 {tried[1].accuracy:.2f} after {tried[1].solution.iterations} "
        "iterations"
    )
