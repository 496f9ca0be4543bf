"""What another precision does to verdicts: the same faces scored by PyTorch and by a file."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from torch import Tensor

from deepregions.deploy.graph import Graph
from deepregions.deploy.runtimes import Runtime, TorchRuntime
from deepregions.errors import UndefinedMetricError
from deepregions.roc import Bools, Floats, area_under_curve, equal_error_rate, tally

AUC_LIMIT = 0.002
"""How much the AUC may differ from that of PyTorch's float32."""
FLIPS_LIMIT = 0.005
"""The share of faces that may be on the other side of the threshold."""

Part = Literal["val", "test"]


class Faces(NamedTuple):
    """A batch of faces whose truth is known."""

    image: Tensor
    """(B, 3, H, W) uint8 RGB."""
    landmarks: Tensor
    """(B, 68, 2) float32 pixels of ``image``."""
    extent: Tensor
    """(B, 2) int64, width and height of each picture without its padding."""
    fake: Tensor
    """(B,) bool."""


class Source(Protocol):
    """Where faces come from: a store, for those who know what that is."""

    @property
    def facts(self) -> dict[str, Any]:
        """Which it is, as JSON values: its name, its fingerprint, the seed of what is drawn."""

    def faces(self, part: Part, most: int | None = None) -> Iterator[Faces]:
        """Yields batches of the development (val) or evaluation (test) part.

        ``most`` faces are drawn at random; those that are checked, if it is left out.
        """


@dataclass(frozen=True)
class Drift:
    """How far verdicts are from those of PyTorch's float32.

    Attributes:
        faces: How many were compared: those that both score.
        lost: How many only one of the two scores.
        flips: The share of faces on another side of the threshold.
        threshold: On fused log-odds: that of equal errors on the development part, in float32; 0
            where that part is absent, or has one class.
    """

    faces: int
    lost: int
    expected: float
    auc: float
    flips: float
    threshold: float
    largest: float
    mean: float

    @property
    def small(self) -> bool:
        """Whether it is within the limits."""
        near = abs(self.auc - self.expected) <= AUC_LIMIT and self.flips <= FLIPS_LIMIT
        return near and not self.lost

    def __str__(self) -> str:
        said = (
            f"AUC {self.expected:.4f} in float32, here {self.auc:.4f} "
            f"(difference {self.auc - self.expected:+.4f}, at most {AUC_LIMIT:g}); "
            f"{self.flips:.2%} of verdicts flip at log-odds {self.threshold:+.2f} "
            f"(at most {FLIPS_LIMIT:.1%}); log-odds differ by {self.largest:.2g} at most, "
            f"{self.mean:.2g} in the mean, over {self.faces} faces"
        )
        return said + (f"; {self.lost} faces are scored by one only" if self.lost else "")


def measure(reference: Graph, runtime: Runtime, source: Source) -> Drift:
    """Scores the evaluation part of a source twice.

    Raises:
        UndefinedMetricError: There are not both classes, so there is no AUC.
    """
    exact = TorchRuntime(reference)
    (expected, got), fake = _fused((exact, runtime), reference, source, "test")
    (known,), truth = _fused((exact,), reference, source, "val")
    there = np.isfinite(known)
    threshold = equal_error_rate(tally(known[there].astype(np.float64), truth[there]))[1]
    return compare(expected, got, fake, threshold if np.isfinite(threshold) else 0.0)


def compare(expected: Floats, got: Floats, fake: Bools, threshold: float) -> Drift:
    """Compares fused log-odds (N,), NaN where there is none, of faces of which some are fake.

    Raises:
        UndefinedMetricError: Those that both score are of one class.
    """
    both = np.isfinite(expected) & np.isfinite(got)
    lost = int((np.isfinite(expected) != np.isfinite(got)).sum())
    one, other = expected[both].astype(np.float64), got[both].astype(np.float64)
    counts = [tally(scores, fake[both]) for scores in (one, other)]
    if not len(one) or not counts[0].two_classes:
        raise UndefinedMetricError(
            "the faces that have a score are not of both classes", "AUC needs genuine and fake ones"
        )
    difference = np.abs(one - other)
    return Drift(
        faces=len(one),
        lost=lost,
        expected=area_under_curve(counts[0]),
        auc=area_under_curve(counts[1]),
        flips=float(((one >= threshold) != (other >= threshold)).mean()),
        threshold=threshold,
        largest=float(difference.max()),
        mean=float(difference.mean()),
    )


def _fused(
    runtimes: Sequence[Runtime], graph: Graph, source: Source, part: Part
) -> tuple[list[Floats], Bools]:
    """Returns each runtime's fused log-odds (N,) of a part, and which of its faces are fake."""
    answers: list[list[Floats]] = [[np.empty(0)] for _ in runtimes]
    fake = [np.empty(0, dtype=np.bool_)]
    for batch in source.faces(part):
        for inputs in graph.feeds(batch.image, batch.landmarks, batch.extent):
            for runtime, own in zip(runtimes, answers, strict=True):
                own.append(runtime.run(inputs)["fused"])
        fake.append(batch.fake.numpy())
    return [np.concatenate(own) for own in answers], np.concatenate(fake)
