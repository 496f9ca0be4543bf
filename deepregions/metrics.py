"""How well scores tell fake from genuine: AUC, EER and accuracy, per frame and per video.

Convention: a score is higher for fakes; a label is 1 for fakes; a face is called fake where its
score is at or above a threshold. Frame-level figures take each face by itself; video-level
figures take the mean log-odds of a video's faces.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from deepregions.roc import NAN, accuracy, area_under_curve, equal_error_rate, tally


class VerificationMetrics(Metric):
    """AUC, EER and accuracy over an epoch, at frame and at video level.

    Correct when several processes share an epoch: every process then sees all scores, and a face
    that a sampler handed out twice, to fill the last batch, counts once. ``methods`` are names of
    how fakes were made, for figures of each.
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
        """Takes the scores of a batch, each (N,); nothing is read back from the device.

        Faces of equal ``index`` count once, those of a negative one not at all; ``method`` is an
        index of ``methods``.
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
        numbers, first = np.unique(index.numpy(), return_index=True)
        chosen = torch.from_numpy(first[numbers >= 0])  # a face that comes twice counts once
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
            for name, value in zip(("auc", "eer", "accuracy"), _rates(x, y), strict=True):
                values[f"{level}_{name}"] = value
        if self.methods:
            method = _joined(self.method).cpu()[chosen]
            for number, name in enumerate(self.methods):
                own = (label == 0) | (method == number)
                if bool((label[own] == 1).any()):
                    values[f"frame_auc/{name}"] = _rates(logits[own], label[own])[0]
        return {name: torch.tensor(x, device=self.device) for name, x in values.items()}


def _rates(logits: Tensor, label: Tensor) -> tuple[float, float, float]:
    scores = logits.double().numpy()
    if np.isnan(scores).any():
        return NAN, NAN, NAN
    counts = tally(scores, (label == 1).numpy())
    return area_under_curve(counts), equal_error_rate(counts)[0], accuracy(counts, 0.0)


def _joined(state: list[Tensor] | Tensor) -> Tensor:
    """Returns a state as one tensor; it is one already after processes exchanged theirs."""
    if isinstance(state, Tensor):
        return state
    return torch.cat(state) if state else torch.empty(0, dtype=torch.int64)
