"""A store of genuine faces and their forgeries, for evaluation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from deepregions.data.store import (
    SPLITS,
    FaceRecord,
    FaceStore,
    create_store,
    decode_image,
    encode_image,
)
from deepregions.errors import StoreError, UsageError
from deepregions.faces.patches import stack
from deepregions.forge.forger import Forger, draw_parts, make_method
from deepregions.forge.masks import CONFINED
from deepregions.pixels.face_rng import FaceRng, seeds_of
from deepregions.types import BONA_FIDE, FAKE

Progress = Callable[[int, int, int], None]

_BATCH = 32  # faces at a time, among whom donors are found


@dataclass
class ForgeReport:
    """What was written.

    Attributes:
        genuine: Number of genuine faces.
        forged: Number of forgeries by method.
        skipped: Number that could not be made, by method: nobody to swap with, or no face.
    """

    genuine: int = 0
    forged: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)


def forge_store(
    source: FaceStore,
    out: Path,
    methods: Sequence[str],
    *,
    region_p: float = 0.0,
    seed: int = 0,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> ForgeReport:
    """Writes every genuine face of a store, and a forgery of it by each method.

    Splits are kept, and people swap faces only within their split. Genuine faces and forgeries
    are both encoded again. A forgery's ``method`` is the forging method's name, or
    ``METHOD:REGION`` if it is confined to a region. Fakes in the source are left out.

    Args:
        source: The store.
        out: The new store's folder.
        methods: Names of the forging methods.
        region_p: Share of forgeries confined to eyes, nose or mouth.
        seed: Random seed.
        device: Where to compute.
        progress: Called with genuine faces done, all of them, and faces written.

    Raises:
        UsageError: A method is unknown or given twice, or the share is not from 0 to 1.
        StoreError: The source has no genuine faces, or there is something at ``out``.
        OSError: The store cannot be written.
    """
    if not methods or len(set(methods)) < len(methods):
        raise UsageError(f"methods {list(methods)}", "give one or more, each once")
    if not 0 <= region_p <= 1:
        raise UsageError(f"the share of confined forgeries must be from 0 to 1, not {region_p}")
    # Genuine faces stay as they are; see SelfBlend.
    forge = Forger([make_method(name, target_p=0.0) for name in methods])
    wanted = source.labels == BONA_FIDE
    if not wanted.any():
        raise StoreError(f"{source.path} has no genuine faces", "forgeries are made of these")
    report = ForgeReport()

    def records() -> Iterator[FaceRecord]:
        for split in SPLITS:
            rows = np.flatnonzero(wanted & (source.splits == split))
            # Mixed, as neighbours are frames of one person, who has nobody to swap faces with.
            rows = np.random.default_rng(seed).permutation(rows)
            for first in range(0, len(rows), _BATCH):
                batch = _Batch(source, rows[first : first + _BATCH], region_p, seed, device)
                yield from batch.genuine(report)
                for number in range(len(forge.methods)):
                    yield from batch.forged(forge, number, report)
                if progress is not None:
                    written = report.genuine + report.forged.total()
                    progress(report.genuine, int(wanted.sum()), written)

    create_store(out, source.info, records())  # still that database: figures on it are within it
    return report


class _Batch:
    """Some genuine faces of a store, and what is drawn for their forgeries."""

    def __init__(
        self,
        source: FaceStore,
        rows: NDArray[np.intp],
        region_p: float,
        seed: int,
        device: torch.device | str,
    ) -> None:
        self.faces = [source[row] for row in rows.tolist()]
        self.pictures = [decode_image(face.image) for face in self.faces]
        self.image = stack(self.pictures)[0].to(device)
        landmarks = np.stack([face.landmarks for face in self.faces])
        self.landmarks = torch.from_numpy(landmarks).to(device)
        self.person = torch.from_numpy(source.persons[rows]).to(device)
        self.draws = FaceRng(seeds_of([face.key for face in self.faces], seed))
        self.parts = draw_parts(self.draws.stream("region"), region_p)

    def genuine(self, report: ForgeReport) -> Iterator[FaceRecord]:
        """Yields the faces themselves, encoded as the forgeries are."""
        for face, picture in zip(self.faces, self.pictures, strict=True):
            yield replace(face, image=encode_image(picture))
        report.genuine += len(self.faces)

    def forged(self, forge: Forger, number: int, report: ForgeReport) -> Iterator[FaceRecord]:
        """Yields a forgery of each face by one of the methods, where it can be made."""
        method = forge.methods[number]
        which = torch.full((len(self.faces),), number)
        made = forge(
            self.image,
            self.landmarks,
            self.draws,
            which=which,
            parts=self.parts,
            person=self.person,
        )
        images, done = made.image.cpu(), made.touched[:, 0].tolist()
        donors = None if made.donors is None else made.donors.tolist()
        for row, face in enumerate(self.faces):
            if not done[row]:
                report.skipped[method.name] += 1
                continue
            report.forged[method.name] += 1
            height, width = self.pictures[row].shape[1:]
            own = zip(CONFINED, self.parts[row].tolist(), strict=True)
            donor = () if donors is None else self.faces[donors[row]].identities[:1]
            yield replace(
                face,
                image=encode_image(images[row, :, :height, :width]),
                key=f"{face.key}~{method.name}",
                video=f"{face.video}~{method.name}",
                label=FAKE,
                method=":".join([method.name, *(str(region) for region, there in own if there)]),
                identities=(*face.identities[:1], *donor),
            )
