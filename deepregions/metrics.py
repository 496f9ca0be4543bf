"""How well scores tell fake from genuine: AUC, EER and accuracy, per frame and per video.

Convention: a score is higher for fakes; a label is 1 for fakes; a face is called fake where its
score is at or above a threshold. Frame-level figures take each face by itself; video-level
figures take the mean log-odds of a video's faces.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from deepregions import roc as ranking
from deepregions.roc import NAN, ScoreCounts


def area_under_curve(scores: Tensor, labels: Tensor) -> float:
    """Returns the area under the ROC curve, see :func:`deepregions.roc.area_under_curve`.

    Args:
        scores: (N,) any finite numbers, higher is more fake.
        labels: (N,) 1 is fake, 0 is genuine.

    Returns:
        A number in [0, 1]; NaN where a class is absent or a score is NaN.
    """
    counts = _counts(scores, labels)
    return NAN if counts is None else ranking.area_under_curve(counts)


def equal_error_rate(scores: Tensor, labels: Tensor) -> tuple[float, float]:
    """Returns the equal error rate, see :func:`deepregions.roc.equal_error_rate`.

    Args:
        scores: (N,) any finite numbers, higher is more fake.
        labels: (N,) 1 is fake, 0 is genuine.

    Returns:
        The rate in [0, 1] and the threshold: that score at which the two errors differ least.
        Both are NaN where a class is absent or a score is NaN.
    """
    counts = _counts(scores, labels)
    return (NAN, NAN) if counts is None else ranking.equal_error_rate(counts)


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Returns the share of right verdicts at even odds.

    Args:
        logits: (N,) fake log-odds; at or above 0 means fake.
        labels: (N,) 1 is fake, 0 is genuine.

    Returns:
        A number in [0, 1]; NaN where there is nothing to judge or a log-odds is NaN.
    """
    counts = _counts(logits, labels)
    return NAN if counts is None else ranking.accuracy(counts, 0.0)


def _counts(scores: Tensor, labels: Tensor) -> ScoreCounts | None:
    """Counts scores, unless one is NaN."""
    values = scores.detach().cpu().double().numpy()
    if bool(np.isnan(values).any()):
        return None
    return ranking.tally(values, (labels.detach().cpu() == 1).numpy())


class VerificationMetrics(Metric):
    """AUC, EER and accuracy over an epoch, at frame and at video level.

    Correct when several processes share an epoch: every process then sees all scores, and a face
    that a sampler handed out twice, to fill the last batch, counts once.

    Attributes:
        methods: Names of how fakes were made, for figures of each; none by default.
    """

    higher_is_better = None
    is_differentiable = False
    full_state_update = False

    logits: list[Tensor]
    label: list[Tensor]
    video: list[Tensor]
    index: list[Tensor]

    method: list[Tensor]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.methods: tuple[str, ...] = ()
        for name in ("logits", "label", "video", "index", "method"):
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def update(
        self,
        logits: Tensor,
        label: Tensor,
        video: Tensor,
        index: Tensor,
        method: Tensor | None = None,
    ) -> None:
        """Takes the scores of a batch; nothing is read back from the device.

        Args:
            logits: (N,) fake log-odds.
            label: (N,) 1 is fake.
            video: (N,) equal for the faces of one video.
            index: (N,) equal for one and the same face; faces with a negative one do not count.
            method: (N,) how it was made, an index of ``methods``.
        """
        self.method.append(torch.zeros_like(index) if method is None else method.detach().long())
        self.logits.append(logits.detach().float())
        self.label.append(label.detach().long())
        self.video.append(video.detach().long())
        self.index.append(index.detach().long())

    def compute(self) -> dict[str, Tensor]:
        """Returns ``{frame,video}_{auc,eer,accuracy}`` as float32 scalars.

        AUC and EER are NaN where a class is absent, and everything is NaN where a score is or
        where no face counts. A video is fake if any of its faces is. Where ``methods`` are named,
        also ``frame_auc/METHOD`` of each with fakes: these against all that is genuine.
        """
        logits, label, video, index = (
            _joined(state).cpu() for state in (self.logits, self.label, self.video, self.index)
        )
        chosen = _first_of_each(index)
        logits, label, video = (x[chosen] for x in (logits, label, video))
        _, owner = torch.unique(video, return_inverse=True)
        count = owner.bincount()
        video_logits = torch.zeros(len(count), dtype=torch.float64)
        video_logits.index_add_(0, owner, logits.double())
        video_label = torch.zeros(len(count), dtype=torch.int64)
        video_label.scatter_reduce_(0, owner, label, "amax")
        levels = {"frame": (logits, label), "video": (video_logits / count, video_label)}
        values = {}
        for level, (x, y) in levels.items():
            values[f"{level}_auc"] = area_under_curve(x, y)
            values[f"{level}_eer"] = equal_error_rate(x, y)[0]
            values[f"{level}_accuracy"] = accuracy(x, y)
        if self.methods:
            method = _joined(self.method).cpu()[chosen]
            for number, name in enumerate(self.methods):
                own = (label == 0) | (method == number)
                if bool((label[own] == 1).any()):
                    values[f"frame_auc/{name}"] = area_under_curve(logits[own], label[own])
        return {name: torch.tensor(x, device=self.device) for name, x in values.items()}


def _joined(state: list[Tensor] | Tensor) -> Tensor:
    """Returns a state as one tensor; it is one already after processes exchanged theirs."""
    if isinstance(state, Tensor):
        return state
    return torch.cat(state) if state else torch.empty(0, dtype=torch.int64)


def _first_of_each(index: Tensor) -> Tensor:
    """Returns the place of the first occurrence of each index that is not negative."""
    order = index.argsort(stable=True)
    ranked = index[order]
    fresh = torch.ones_like(ranked, dtype=torch.bool)
    fresh[1:] = ranked[1:] != ranked[:-1]
    return order[fresh & (ranked >= 0)]
