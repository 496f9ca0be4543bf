"""The fit behind calibrations and fusions: class-balanced logistic and isotonic regression."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import softplus

from deepregions.people import Numbers
from deepregions.roc import Bools, Floats, ScoreCounts


def balanced(fake: Bools, weight: Floats | None = None) -> Floats:
    """Returns weights (N,) of which each class has one half."""
    shares = np.ones(len(fake)) if weight is None else weight.copy()
    for which in (fake, ~fake):
        shares[which] *= 0.5 / shares[which].sum()
    return shares


def cross_entropy(odds: Tensor, fake: Bools, weight: Floats) -> Tensor:
    """Returns the weighted sum of the binary cross-entropy of log-odds (N,)."""
    sign = torch.from_numpy(np.where(fake, 1.0, -1.0))
    return torch.from_numpy(weight) @ softplus(-sign * odds)


def minimum(
    objective: Callable[[Tensor], Tensor], start: Floats, least: Floats | float = -np.inf
) -> Floats:
    """Returns where a smooth function of few numbers is lowest, by L-BFGS-B in double precision."""
    from scipy.optimize import Bounds, minimize  # noqa: PLC0415 - scoring has no use for it

    def with_gradient(values: Floats) -> tuple[float, Floats]:
        at = torch.from_numpy(values.copy()).requires_grad_()
        value = objective(at)
        (gradient,) = torch.autograd.grad(value, at)
        return float(value.detach()), gradient.numpy()

    found = minimize(
        with_gradient,
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=Bounds(np.broadcast_to(least, start.shape), np.inf),
        options={"maxiter": 2000, "ftol": 1e-14, "gtol": 1e-9},
    )
    return np.asarray(found.x, dtype=np.float64)


def logistic_regression(
    x: Floats, fake: Bools, weight: Floats, penalty: float, least: float = -np.inf
) -> tuple[Floats, float]:
    """Returns the slopes (N,) and the offset that minimise the weighted cross-entropy of x (n, N).

    Weights (n,) are together 1; ``penalty`` is that of the squared slopes, of which none goes below
    ``least``.
    """
    count = x.shape[1]
    given = torch.from_numpy(x)

    def objective(values: Tensor) -> Tensor:
        slopes = values[:-1]
        loss = cross_entropy(given @ slopes + values[-1], fake, weight)
        return loss + penalty * slopes.square().sum()

    found = minimum(objective, np.zeros(count + 1), np.append(np.full(count, least), -np.inf))
    return found[:-1], float(found[-1])


def isotonic_llr(counts: ScoreCounts) -> Floats:
    """Returns the natural log-likelihood ratios (K,) that rise with K scores and fit best.

    They are infinite where all that is beyond is of one class; of both classes there must be some.
    """
    pools, sizes = isotonic_pools(counts)
    return np.repeat(pools.values, sizes)


def isotonic_pools(counts: ScoreCounts) -> tuple[ScoreCounts, Numbers]:
    """Pools adjacent violators at even prior odds, as in Brümmer and du Preez 2006.

    Returns:
        What is in each pool, with its ratio (see :func:`isotonic_llr`) as its value, and how many
        scores that is.
    """
    from scipy.optimize import isotonic_regression  # noqa: PLC0415 - scoring has no use for it

    fake, genuine = counts.fake / counts.positives, counts.genuine / counts.negatives
    both = fake + genuine
    found = isotonic_regression(fake / both, weights=both, increasing=False)
    starts = found.blocks[:-1]
    posterior = np.clip(np.round(found.x[starts], 12), 0, 1)  # in a pure pool exactly 0 or 1
    with np.errstate(divide="ignore"):
        llr = np.asarray(np.log(posterior) - np.log1p(-posterior), dtype=np.float64)
    fakes, others = (np.add.reduceat(each, starts) for each in (counts.fake, counts.genuine))
    return ScoreCounts(llr, fakes, others), np.diff(found.blocks)
