"""The minimum of a smooth function of few numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import Bounds, minimize
from torch import Tensor


def minimum(
    objective: Callable[[Tensor], Tensor],
    start: Sequence[float],
    least: Sequence[float] | None = None,
) -> Tensor:
    """Minimises with L-BFGS-B; gradients by autograd, all in double precision.

    Args:
        objective: From (N,) to a scalar.
        start: N numbers to begin at.
        least: What each must not go below; minus infinity if left out.

    Returns:
        (N,) float64.
    """

    def both(values: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        at = torch.from_numpy(values.copy()).requires_grad_()
        value = objective(at)
        (gradient,) = torch.autograd.grad(value, at)
        return float(value.detach()), gradient.numpy()

    lowest = np.full(len(start), -np.inf) if least is None else np.asarray(least, dtype=np.float64)
    found = minimize(
        both,
        np.asarray(start, dtype=np.float64),
        jac=True,
        method="L-BFGS-B",
        bounds=Bounds(lowest, np.full(len(start), np.inf)),
        options={"maxiter": 2000, "ftol": 1e-14, "gtol": 1e-9},
    )
    return torch.from_numpy(np.asarray(found.x, dtype=np.float64))
