"""Score-level fusion: from the (detector x region) matrix of log-odds to one number per face.

Tolosana et al. (EAAI 2022, section 5.3) fuse the detectors' scores, and the regions' scores.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class MeanFusion(nn.Module):
    """The mean of the valid log-odds: each (detector, region) has the same say.

    Log-odds, not probabilities: three networks at 0.99 and one at 0.4 are not the same evidence
    as four at 0.84. A cell that is not valid is left out, never counted as 0 (= "undecided").
    """

    rule = "mean of log-odds"

    def forward(self, logits: Tensor, valid: Tensor) -> Tensor:
        """Fuses.

        Args:
            logits: (B, D, R) fake log-odds; cells that are not valid may hold anything.
            valid: (B, D, R) bool.

        Returns:
            (B,) fake log-odds; NaN where a face has no valid cell.
        """
        kept = torch.where(valid, logits.float(), 0.0)
        return kept.sum((1, 2)) / valid.float().sum((1, 2))
