"""Student's t distribution, which the standard library lacks."""

import functools
import math

TERMS = 400
"""of a continued fraction: ten digits are right for up to 10,000 degrees of freedom"""
HALVINGS = 60


def p_value(t: float, freedom: float) -> float:
    """P(|T| >= |t|) with `freedom` > 0 degrees of freedom: the p-value of a two-sided test."""
    return _incomplete_beta(freedom / (freedom + t * t), freedom / 2, 0.5)


@functools.cache
def t_quantile(share: float, freedom: float) -> float:
    """The t below which `share` (0.5 to below 1) of the distribution lies, by bisection."""
    low, high = 0.0, 1.0
    while p_value(high, freedom) > 2 * (1 - share):
        high *= 2
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if p_value(middle, freedom) > 2 * (1 - share) else (low, middle)
    return high


def _incomplete_beta(x: float, a: float, b: float) -> float:
    """Regularised incomplete beta function I_x(a, b): DLMF 8.17.22, from its last term."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):  # where the fraction converges slowly: DLMF 8.17.4
        return 1 - _incomplete_beta(1 - x, b, a)
    fraction = 1.0
    for term in range(TERMS, 0, -1):
        m = term // 2
        if term % 2:
            step = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            step = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        fraction = 1 + step / fraction
    log_front = a * math.log(x) + b * math.log1p(-x)
    log_front += math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    return math.exp(log_front) / (a * fraction)
