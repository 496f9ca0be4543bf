"""What a bundle answers on a few faces, and whether these answers can be right at all."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from deepregions.data.store import FaceStore
from deepregions.devices import choose_device
from deepregions.errors import UsageError, require
from deepregions.evaluation.store_scorer import patch_of
from deepregions.faces.backends import landmark_detector
from deepregions.faces.thresholds import Gates
from deepregions.forge.photos import find_portrait, forge_photo
from deepregions.fusion.pooling import probability
from deepregions.media import MediaReader
from deepregions.pipeline.build import build_analyser
from deepregions.pipeline.face_scorer import FaceScorer
from deepregions.pipeline.results import FaceResult
from deepregions.roc import NAN
from deepregions.types import Region, Status
from deepregions.weights.bundle import Bundle

LANDMARKS = "dlib-hog"  # its model comes with a package: nothing is fetched
TOLERANCE = 1e-3
"""How far log-odds may differ between machines and versions of libraries."""

_FORGED = {
    "fwa": ("fwa", None),
    "self_blend": ("self_blend", None),
    "fwa, mouth": ("fwa", Region.MOUTH),
}
_DRAWN = 32  # faces of a store
_SAME = 0.01  # scores within such a range are all the same

Answers = Sequence[tuple[str, FaceResult]]
"""Faces by name, and what came of them."""


def known_answers(bundle: Bundle | Path) -> Answers:
    """Scores the portrait of Eileen Collins (NASA, public domain) as it is, forged, compressed.

    A bundle's folder stands for its graph.

    Raises:
        MissingExtraError: scikit-image, which has the portrait, is not installed.
    """
    portrait = Image.fromarray(np.asarray(require("skimage.data", "demo").astronaut()))
    with TemporaryDirectory() as folder:
        paths = {name: Path(folder) / f"{name}.png" for name in ("portrait", *_FORGED)}
        portrait.save(paths["portrait"])
        found = find_portrait(paths["portrait"], landmark_detector(LANDMARKS, "cpu"))
        if found is None:
            raise UsageError(f"{LANDMARKS} finds no face on the portrait", "install dlib again")
        for name, (method, region) in _FORGED.items():
            forged = forge_photo(found, method, region=region).image
            Image.fromarray(forged.permute(1, 2, 0).numpy()).save(paths[name])
        paths["JPEG 20"] = Path(folder) / "portrait.jpg"
        portrait.save(paths["JPEG 20"], quality=20)
        names = {str(path): name for name, path in paths.items()}
        found_faces = photo_answers(bundle, [*paths.values()])
        return [(names[path], face) for path, face in found_faces]


def photo_answers(bundle: Bundle | Path, paths: Sequence[Path]) -> Answers:
    """Scores the faces of photographs and videos, as ``detect`` does; a folder by its graph."""
    analyser = build_analyser(bundle, landmarks=LANDMARKS, device="cpu", pictures=False)
    with MediaReader() as reader:
        results = list(analyser.analyse(paths, reader))
    return [(result.input, face) for result in results for face in result.faces]


def store_answers(bundle: Bundle, store: FaceStore) -> Answers:
    """Scores some faces of a store, drawn at random, of both classes alike if it has both."""
    order, labels = np.random.default_rng(0).permutation(len(store)), store.labels
    classes = [order[labels[order] == label] for label in np.unique(labels)]
    drawn = [store[int(row)] for own in classes for row in own[: _DRAWN // len(classes)]]
    scorer = FaceScorer(bundle.system(), Gates(), choose_device("cpu"))
    faces = scorer.score([patch_of(record) for record in drawn])
    return [(record.key, face) for record, face in zip(drawn, faces, strict=True)]


def network_scores(answers: Answers) -> dict[str, dict[str, float]]:
    """Returns the scores in [0, 1] of each network by face; NaN where they are no numbers."""
    found: dict[str, dict[str, float]] = {}
    for name, face in answers:
        for (detector, region), log_odds in face.cells.items():
            own = found.setdefault(f"{detector} {region}", {})
            if log_odds is not None or face.status is Status.ERROR:
                own[name] = NAN if log_odds is None else probability(log_odds) or 0.0
    return found


def fused_log_odds(answers: Answers) -> dict[str, float]:
    """Returns the fused log-odds of the faces that have a score."""
    return {name: face.log_odds for name, face in answers if face.log_odds is not None}


def doubt(scores: Mapping[str, float]) -> str:
    """Returns why a network's scores cannot be right; empty if nothing says so."""
    values = np.array([*scores.values()])
    if not len(values):
        return "no face could be judged"
    if lost := int((~np.isfinite(values)).sum()):
        return f"answers on {lost} of {len(values)} faces are not numbers"
    if len(values) > 1 and float(np.ptp(values)) < _SAME:
        near = "near 0" if values.max() < 0.1 else "near 1" if values.min() > 0.9 else "alike"
        return (
            f"answers on {len(values)} faces are all {near} ({values.min():.3f} to "
            f"{values.max():.3f}): check its class of the fake, its scaling of pixels, its weights"
        )
    return ""


def deviations(answers: Answers, expected: Mapping[str, float]) -> Iterator[str]:
    """Yields where fused log-odds are not those that were expected."""
    found = fused_log_odds(answers)
    for name, value in expected.items():
        here = found.get(name, math.nan)
        if not abs(here - value) <= TOLERANCE:
            yield f"log-odds of {name} are {here:+.4f}, not {value:+.4f}"
