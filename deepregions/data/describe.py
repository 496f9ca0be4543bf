"""Describes a face store, and warns of differences that a network could take for manipulation."""

from __future__ import annotations

import base64
import io
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.stats import fisher_exact, mannwhitneyu

from deepregions import pages
from deepregions.data.store import SPLITS, FaceRecord, FaceStore, decode_image
from deepregions.files import atomic_file
from deepregions.types import BONA_FIDE, FAKE

CLASSES = ((BONA_FIDE, "genuine"), (FAKE, "fake"))

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
        name: What it is.
        unit: Unit of its values.
        meaning: What changes it.
        edges: (bins + 1) the borders of the bins.
        genuine: (bins) the share of genuine faces in each bin.
        fake: (bins) the share of fake faces in each bin.
        medians: Medians over genuine and over fake faces.
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
        name: The folder's name.
        facts: How it was made: names and values.
        by_split: Counts by split and class.
        by_method: Counts by class, manipulation and compression.
        people: Who is in it, those with most faces first.
        more_people: How many are not in ``people``.
        measures: Empty unless there are faces of both classes.
        warnings: What to know before training on it, a line each.
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
    """Looks at the records of all faces, and at the pictures of some thousand.

    Raises:
        StoreError: A shard is missing or broken.
    """
    table = StoreColumns(store)
    order = {name: place for place, name in enumerate((*SPLITS, "genuine", "fake"))}
    by_split = table.counts(lambda row: [(table.splits[row], table.classes[row])])
    by_split.sort(key=lambda count: [order[name] for name in count.names])
    by_method = table.counts(
        lambda row: [(table.classes[row], table.methods[row], table.compressions[row])]
    )
    by_method.sort(key=lambda count: (order[count.names[0]], count.names))
    people = table.persons()
    measures = tuple(_measures(store, table))
    return Description(
        name=store.path.name,
        facts=tuple(_facts(store)),
        by_split=tuple(by_split),
        by_method=tuple(by_method),
        people=tuple(people[:_PEOPLE]),
        more_people=max(0, len(people) - _PEOPLE),
        measures=measures,
        warnings=(*_count_warnings(by_split, people), *_shortcuts(table, measures)),
    )


class StoreColumns:
    """The columns of a store, as lists.

    Args:
        store: The store.
    """

    def __init__(self, store: FaceStore) -> None:
        words = dict(CLASSES)
        self.labels = store.labels
        self.classes = [words[label] for label in self.labels.tolist()]
        self.splits: list[str] = store.splits.tolist()
        self.methods: list[str] = store.column("method").tolist()
        self.compressions: list[str] = store.column("compression").tolist()
        self.videos: list[str] = store.column("video").tolist()
        self.people = [tuple(map(str, names)) for names in store.column("identities")]
        self.resolutions = [f"{w} x {h}" for w, h in store.column("frame_size")]

    def rows(self, label: int, most: int) -> list[int]:
        """Returns rows of a class, evenly over the store."""
        rows = np.flatnonzero(self.labels == label)
        if len(rows) > most:
            rows = rows[np.linspace(0, len(rows) - 1, most).astype(int)]
        return [int(row) for row in rows]

    def counts(self, names: Callable[[int], Iterable[tuple[str, ...]]]) -> list[Count]:
        """Counts by the names that each row is counted under."""
        faces: Counter[tuple[str, ...]] = Counter()
        videos: dict[tuple[str, ...], set[str]] = {}
        people: dict[tuple[str, ...], set[str]] = {}
        for row, video in enumerate(self.videos):
            for name in names(row):
                faces[name] += 1
                videos.setdefault(name, set()).add(video)
                people.setdefault(name, set()).update(self.people[row])
        return [Count(n, faces[n], len(videos[n]), len(people[n])) for n in faces]

    def persons(self) -> list[PersonCount]:
        """Counts by person and split, those with most faces first."""
        found: dict[tuple[str, str], tuple[list[int], set[str]]] = {}
        for row, names in enumerate(self.people):
            for name in dict.fromkeys(names):
                labels, videos = found.setdefault((name, self.splits[row]), ([], set()))
                labels.append(int(self.labels[row]))
                videos.add(self.videos[row])
        persons = [
            PersonCount(*key, len(labels) - sum(labels), sum(labels), len(videos))
            for key, (labels, videos) in found.items()
        ]
        return sorted(persons, key=lambda p: (-p.genuine - p.fake, p.name, p.split))

    @cached_property
    def first_rows(self) -> dict[str, int]:
        """The first row of each video."""
        return {video: row for row, video in reversed(list(enumerate(self.videos)))}


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


def _measures(store: FaceStore, table: StoreColumns) -> Iterator[FaceMeasure]:
    rows = {label: table.rows(label, _MEASURED) for label, _ in CLASSES}
    if not all(rows.values()):
        return
    values = {label: np.array([_measured(store[row]) for row in rows[label]]) for label in rows}
    named = {label: [table.videos[row] for row in rows[label]] for label in rows}
    for column, about in enumerate(_MEASURES):
        genuine, fake = values[BONA_FIDE][:, column], values[FAKE][:, column]
        edges = np.histogram_bin_edges(np.concatenate([genuine, fake]), _BINS)
        shares = [np.histogram(each, edges)[0] / len(each) for each in (genuine, fake)]
        ours, theirs = (_by_video(v, named[n]) for v, n in ((genuine, BONA_FIDE), (fake, FAKE)))
        test = mannwhitneyu(theirs.tolist(), ours.tolist())
        yield FaceMeasure(
            *about,
            tuple(edges.tolist()),
            tuple(shares[0].tolist()),
            tuple(shares[1].tolist()),
            (float(np.median(genuine)), float(np.median(fake))),
            float(test.statistic / (len(ours) * len(theirs))),
            float(test.pvalue),
        )


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


def _measured(face: FaceRecord) -> list[float]:
    """Measures of a face, in the order of ``_MEASURES``."""
    image = decode_image(face.image)
    width = float(np.ptp(face.landmarks[:, 0])) / face.scale
    detail = len(face.image) / (image.shape[1] * image.shape[2])
    return [width, float(face.frame_size[1]), detail, float(image.float().mean())]


def _by_video(values: npt.NDArray[np.float64], videos: list[str]) -> npt.NDArray[np.float64]:
    names, places = np.unique(np.array(videos), return_inverse=True)
    sums = np.bincount(places, values, len(names))
    means: npt.NDArray[np.float64] = sums / np.bincount(places, minlength=len(names))
    return means


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


def _shortcuts(table: StoreColumns, measures: Iterable[FaceMeasure]) -> Iterator[str]:
    """What differs between the classes and has nothing to do with manipulation."""
    for name, values, certain in (
        ("compression", table.compressions, True),  # the database's own word: no chance in it
        ("resolution", table.resolutions, False),
    ):
        for value, genuine, fake in _shares(table, values, certain=certain):
            yield (
                f"{name} {value or 'not named'}: {genuine:.0%} of genuine videos and {fake:.0%} "
                "of fake ones; a network may learn that instead"
            )
    for measure in measures:
        if measure.tells:
            genuine, fake = measure.medians
            yield (
                f"{measure.name} tells genuine from fake videos at an AUC of "
                f"{max(measure.auc, 1 - measure.auc):.2f} (medians {genuine:.3g} and {fake:.3g} "
                f"{measure.unit}; {measure.meaning})"
            )


def _shares(
    table: StoreColumns, values: list[str], *, certain: bool
) -> Iterator[tuple[str, float, float]]:
    """Yields values of which one class has more videos than the other."""
    found = {label: Counter[str]() for label, _ in CLASSES}
    for row in table.first_rows.values():
        found[int(table.labels[row])][values[row]] += 1
    totals = [found[label].total() for label, _ in CLASSES]
    if not all(totals):
        return
    for value in sorted(set(found[BONA_FIDE]) | set(found[FAKE])):
        have = [found[label][value] for label, _ in CLASSES]
        shares = [number / total for number, total in zip(have, totals, strict=True)]
        if abs(shares[0] - shares[1]) <= _SHARE:
            continue
        lack = [total - number for number, total in zip(have, totals, strict=True)]
        if certain or fisher_exact(np.array([have, lack])).pvalue < _CHANCE:
            yield value, shares[0], shares[1]


def write_page(store: FaceStore, description: Description, path: Path) -> None:
    """Writes a description as one HTML file, whole or not at all; it needs nothing else.

    Raises:
        OSError: It cannot be written.
    """
    template = pages.environment("deepregions.data").get_template("store.html.j2")
    page = template.render(about=description, sheets=_contact_sheets(store))
    with atomic_file(path) as partial:
        partial.write_text(page, encoding="utf-8")


def _contact_sheets(store: FaceStore) -> dict[str, list[tuple[str, str]]]:
    """Returns pictures (data URIs) and captions of each class, one face of each of some videos."""
    table = StoreColumns(store)
    sheets = {}
    for label, word in CLASSES:
        first = sorted(row for row in table.first_rows.values() if table.labels[row] == label)
        places = np.linspace(0, len(first) - 1, min(len(first), _PICTURED)).astype(int)
        chosen = [first[place] for place in places]
        sheets[word] = [(_picture(store[row].image), table.videos[row]) for row in chosen]
    return sheets


def _picture(data: bytes) -> str:
    buffer = io.BytesIO()
    image = Image.fromarray(decode_image(data).permute(1, 2, 0).numpy())
    image.thumbnail((_PICTURE, _PICTURE), Image.Resampling.LANCZOS)
    image.save(buffer, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
