"""Describes a face store, and warns of differences that a network could take for manipulation."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image
from scipy.stats import fisher_exact, mannwhitneyu

from deepregions import pages
from deepregions.data.store import SPLITS, FaceRecord, FaceStore, decode_image
from deepregions.files import atomic_file
from deepregions.types import BONA_FIDE, FAKE

_MEASURED = 4000  # faces of each class that are measured, evenly over the store
_PEOPLE = 60  # listed; the others are counted
_PICTURED = 24  # faces of each class, of as many videos
_PICTURE = 128  # pixels of a picture's longer side
_BINS = 24
_IMBALANCE = 2.0
_FEW = 5  # people
# A measure tells the classes apart if a video of one has more of it than a video of the other in
# this share of pairs, and chance alone gives that in one store of a hundred.
_TELLING = 0.6
_CHANCE = 0.01
_SHARE = 0.1  # by which the classes' shares of a compression or a resolution may differ

_CLASSES = ("genuine", "fake")
_MEASURES = (
    ("face width", "px of the frame", "how near people were filmed, and at what resolution"),
    ("frame height", "px", "the videos' resolution; landscape and portrait"),
    (
        "detail",
        "bytes per pixel",
        "compression, blur and enlargement lower it; so may the manipulation itself",
    ),
    ("brightness", "0 to 255", "light and camera"),
)
_Key = TypeVar("_Key")


@dataclass(frozen=True)
class Count:
    """Faces, videos and people of one kind, such as of one split and class."""

    names: tuple[str, ...]
    faces: int
    videos: int
    people: int


@dataclass(frozen=True)
class PersonCount:
    """Faces and videos that somebody is in, also with somebody else."""

    name: str
    split: str
    genuine: int
    fake: int
    videos: int


@dataclass(frozen=True)
class FaceMeasure:
    """A measure of faces that should not depend on whether they are genuine.

    Attributes:
        meaning: What changes it.
        edges: (bins + 1) the borders of the bins.
        genuine: (bins) the share of genuine faces in each bin, as ``fake`` of fake ones.
        medians: Over genuine and over fake faces.
        auc: In which share of pairs of a fake and a genuine video the fake one has more of it.
        chance: How likely it is to be as far from a half by chance (Mann and Whitney 1947).
    """

    name: str
    unit: str
    meaning: str
    edges: tuple[float, ...]
    genuine: tuple[float, ...]
    fake: tuple[float, ...]
    medians: tuple[float, float]
    auc: float
    chance: float

    @property
    def tells(self) -> bool:
        """Whether it tells the classes apart."""
        return max(self.auc, 1 - self.auc) > _TELLING and self.chance < _CHANCE


@dataclass(frozen=True)
class Description:
    """What there is to say about a store.

    Attributes:
        people: Who is in it, those with most faces first; ``more_people`` are not listed.
        measures: Empty unless there are faces of both classes.
    """

    name: str
    facts: tuple[tuple[str, str], ...]
    by_split: tuple[Count, ...]
    by_method: tuple[Count, ...]
    people: tuple[PersonCount, ...]
    more_people: int
    measures: tuple[FaceMeasure, ...]
    warnings: tuple[str, ...]


def describe(store: FaceStore) -> Description:
    """Looks at the records of all faces, and at the pictures of some thousand."""
    labels: list[int] = store.labels.tolist()
    splits: list[str] = store.splits.tolist()
    methods, compressions, videos = (
        store.column(name).tolist() for name in ("method", "compression", "video")
    )
    people = [tuple(map(str, names)) for names in store.column("identities")]
    resolutions = [f"{w} x {h}" for w, h in store.column("frame_size")]

    def counts(names: Iterable[tuple[str, ...]]) -> list[Count]:
        return [
            Count(
                name,
                len(rows),
                len({videos[row] for row in rows}),
                len({person for row in rows for person in people[row]}),
            )
            for name, rows in _rows_of([name] for name in names).items()
        ]

    order = {name: place for place, name in enumerate((*SPLITS, *_CLASSES))}
    classes = [_CLASSES[label] for label in labels]
    by_split = counts(zip(splits, classes, strict=True))
    by_split.sort(key=lambda count: [order[name] for name in count.names])
    by_method = counts(zip(classes, methods, compressions, strict=True))
    by_method.sort(key=lambda count: (order[count.names[0]], count.names))
    shown = _rows_of(
        [(name, split) for name in dict.fromkeys(names)]
        for names, split in zip(people, splits, strict=True)
    )
    persons = []
    for (name, split), rows in shown.items():
        fake = sum(labels[row] for row in rows)
        own = len({videos[row] for row in rows})
        persons.append(PersonCount(name, split, len(rows) - fake, fake, own))
    persons.sort(key=lambda p: (-p.genuine - p.fake, p.name, p.split))
    measures = tuple(_measures(store, videos))
    firsts = _firsts(store)
    return Description(
        name=store.path.name,
        facts=tuple(_facts(store)),
        by_split=tuple(by_split),
        by_method=tuple(by_method),
        people=tuple(persons[:_PEOPLE]),
        more_people=max(0, len(persons) - _PEOPLE),
        measures=measures,
        warnings=(
            *_count_warnings(by_split, persons),
            # A compression is the database's own word: there is no chance in it.
            *_differences("compression", compressions, firsts, certain=True),
            *_differences("resolution", resolutions, firsts, certain=False),
            *_telling(measures),
        ),
    )


def _rows_of(keys: Iterable[Iterable[_Key]]) -> dict[_Key, list[int]]:
    """Returns the rows that each key is given for."""
    rows: dict[_Key, list[int]] = {}
    for row, own in enumerate(keys):
        for key in own:
            rows.setdefault(key, []).append(row)
    return rows


def _firsts(store: FaceStore) -> tuple[list[int], list[int]]:
    """Returns the first row of each video, of genuine ones and of fake ones."""
    first = np.sort(np.unique(store.videos, return_index=True)[1])
    labels = store.labels[first]
    return first[labels == BONA_FIDE].tolist(), first[labels == FAKE].tolist()


def _facts(store: FaceStore) -> Iterator[tuple[str, str]]:
    info = store.info
    yield "database", info.database
    yield "faces", f"{len(store):,}"
    yield "landmarks", f"{info.landmarks} ({info.landmarks_version})"
    yield "frames of each video", str(info.frames_per_video)
    yield "people of each video", info.tracks
    yield "margin", f"{info.margin:g} of the face on each side"
    yield "largest picture", f"{info.max_size} px"
    yield "written by", f"deepregions {info.package}"
    yield "fingerprint", store.fingerprint
    try:
        report: dict[str, Any] = json.loads((store.path / "report.json").read_text())
        yield "clips", f"{report['clips']:,}, of which {len(report['failures']):,} gave no face"
        for reason, number in report["left_out"].items():
            yield "left out", f"{number:,}: {reason}"
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return  # a store that create_store wrote has none


def _measures(store: FaceStore, videos: list[str]) -> Iterator[FaceMeasure]:
    labels = store.labels
    values, named = [], []
    for label in (BONA_FIDE, FAKE):
        rows = _evenly(np.flatnonzero(labels == label).tolist(), _MEASURED)
        if not rows:
            return
        values.append(np.array([_measured(store[row]) for row in rows]))
        named.append(np.unique([videos[row] for row in rows], return_inverse=True)[1])
    for column, about in enumerate(_MEASURES):
        both = [each[:, column] for each in values]
        edges = np.histogram_bin_edges(np.concatenate(both), _BINS)
        shares = [np.histogram(each, edges)[0] / len(each) for each in both]
        ours, theirs = (
            np.bincount(video, each) / np.bincount(video)
            for video, each in zip(named, both, strict=True)
        )
        test = mannwhitneyu(theirs.tolist(), ours.tolist())
        yield FaceMeasure(
            *about,
            edges=tuple(edges.tolist()),
            genuine=tuple(shares[0].tolist()),
            fake=tuple(shares[1].tolist()),
            medians=(float(np.median(both[0])), float(np.median(both[1]))),
            auc=float(test.statistic / (len(ours) * len(theirs))),
            chance=float(test.pvalue),
        )


def _evenly(rows: list[int], most: int) -> list[int]:
    """At most so many of some rows, evenly."""
    if len(rows) <= most:
        return rows
    return [rows[place] for place in np.linspace(0, len(rows) - 1, most).astype(int)]


def _measured(face: FaceRecord) -> list[float]:
    """Measures of a face, in the order of ``_MEASURES``."""
    image = decode_image(face.image)
    width = float(np.ptp(face.landmarks[:, 0])) / face.scale
    detail = len(face.image) / (image.shape[1] * image.shape[2])
    return [width, float(face.frame_size[1]), detail, float(image.float().mean())]


def _count_warnings(by_split: Iterable[Count], persons: Iterable[PersonCount]) -> Iterator[str]:
    faces = {count.names: count.faces for count in by_split}
    people: dict[str, set[str]] = {split: set() for split in SPLITS}
    for person in persons:
        people[person.split].add(person.name)
    for split in SPLITS:
        genuine, fake = faces.get((split, "genuine"), 0), faces.get((split, "fake"), 0)
        for word, number in (("genuine", genuine), ("fake", fake)):
            if not number:
                yield f"{split} has no {word} faces"
        if genuine and fake and max(genuine, fake) > _IMBALANCE * min(genuine, fake):
            yield (
                f"{split} has {genuine:,} genuine and {fake:,} fake faces: accuracy means little "
                "there (training draws as many of each unless --data.balanced is false)"
            )
        if 0 < len(people[split]) < _FEW:
            yield f"{split} shows {len(people[split])} people only: its figures are uncertain"
    for one, other in (("train", "val"), ("train", "test"), ("val", "test")):
        both = sorted(people[one] & people[other])
        if both:
            yield f"{one} and {other} share {len(both)} people: {', '.join(both[:3])}"


def _differences(
    name: str, values: list[str], firsts: tuple[list[int], list[int]], *, certain: bool
) -> Iterator[str]:
    """What one class has in more videos than the other, though it is no manipulation."""
    genuine, fake = (Counter(values[row] for row in rows) for rows in firsts)
    if not (genuine and fake):
        return
    for value in sorted(genuine | fake):
        have = [genuine[value], fake[value]]
        lack = [genuine.total() - have[0], fake.total() - have[1]]
        shares = have[0] / genuine.total(), have[1] / fake.total()
        if abs(shares[0] - shares[1]) > _SHARE and (
            certain or fisher_exact(np.array([have, lack])).pvalue < _CHANCE
        ):
            yield (
                f"{name} {value or 'not named'}: {shares[0]:.0%} of genuine videos and "
                f"{shares[1]:.0%} of fake ones; a network may learn that instead"
            )


def _telling(measures: Iterable[FaceMeasure]) -> Iterator[str]:
    for measure in measures:
        if measure.tells:
            genuine, fake = measure.medians
            yield (
                f"{measure.name} tells genuine from fake videos at an AUC of "
                f"{max(measure.auc, 1 - measure.auc):.2f} (medians {genuine:.3g} and {fake:.3g} "
                f"{measure.unit}; {measure.meaning})"
            )


def write_page(store: FaceStore, description: Description, path: Path) -> None:
    """Writes a description as one HTML file, whole or not at all; it needs nothing else."""
    template = pages.environment("deepregions.data").get_template("store.html.j2")
    videos = store.column("video")
    sheets = {
        word: [(_picture(store[row].image), videos[row]) for row in _evenly(rows, _PICTURED)]
        for word, rows in zip(_CLASSES, _firsts(store), strict=True)
    }
    with atomic_file(path) as partial:
        partial.write_text(template.render(about=description, sheets=sheets), encoding="utf-8")


def _picture(data: bytes) -> str:
    buffer = io.BytesIO()
    image = Image.fromarray(decode_image(data).permute(1, 2, 0).numpy())
    image.thumbnail((_PICTURE, _PICTURE), Image.Resampling.LANCZOS)
    image.save(buffer, "JPEG", quality=85)
    return pages.data_uri("jpeg", buffer.getvalue())
