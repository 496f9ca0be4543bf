"""A store of genuine faces and their forgeries, for evaluation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import starmap
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

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
from deepregions.forge.forger import ForgedBatch, Forger, draw_parts, make_method
from deepregions.forge.masks import CONFINED
from deepregions.forge.swap import choose_donors
from deepregions.pixels.face_rng import FaceRng, seeds_of
from deepregions.types import BONA_FIDE, FAKE

Progress = Callable[[int, int, int], None]

_BATCH = 32  # faces at a time, among whom donors are found


@dataclass
class ForgeReport:
    """What was written.

    Attributes:
        genuine: How many genuine faces.
        forged: How many forgeries, by method.
        skipped: How many could not be made, by method: nobody to swap with, or no face there.
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

    Splits are kept, and people swap faces with those of their own split only. Genuine faces and
    forgeries are alike encoded anew. ``method`` of a forgery is that of the forge, or
    ``METHOD:REGION`` if it is confined to a region. Fakes of the source are left out.

    Args:
        source: The store.
        out: The new store's folder.
        methods: Which forgeries.
        region_p: Share of forgeries that are confined to eyes, nose or mouth.
        seed: Another seed makes other forgeries.
        device: Where to compute.
        progress: Called with genuine faces done, all of them, and faces written.

    Raises:
        UsageError: An unknown method, or one twice; or a share that is none.
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
    writer = _Writer(source, forge, region_p, seed, device, report)

    def records() -> Iterator[FaceRecord]:
        for split in SPLITS:
            rows = np.flatnonzero(wanted & (source.splits == split))
            # Mixed, as neighbours are frames of one person, who has nobody to swap faces with.
            rows = np.random.default_rng(seed).permutation(rows)
            for first in range(0, len(rows), _BATCH):
                yield from writer(rows[first : first + _BATCH].tolist())
                if progress is not None:
                    written = report.genuine + report.forged.total()
                    progress(report.genuine, int(wanted.sum()), written)

    create_store(out, source.info, records())  # still that database: figures on it are within it
    return report


@dataclass
class _Writer:
    source: FaceStore
    forge: Forger
    region_p: float
    seed: int
    device: torch.device | str
    report: ForgeReport

    def __post_init__(self) -> None:
        self.persons = self.source.persons

    def __call__(self, rows: Sequence[int]) -> Iterator[FaceRecord]:
        """Yields some genuine faces and their forgeries."""
        faces = [self.source[row] for row in rows]
        pictures = [decode_image(face.image) for face in faces]
        image = stack(pictures)[0].to(self.device)
        landmarks = torch.from_numpy(np.stack([face.landmarks for face in faces])).to(self.device)
        person = torch.from_numpy(self.persons[rows]).to(self.device)
        draws = FaceRng(seeds_of([face.key for face in faces], self.seed))
        parts = draw_parts(draws.stream("region"), self.region_p)
        donors, _ = choose_donors(landmarks, person, draws.stream("donors"))
        for face, picture in zip(faces, pictures, strict=True):
            yield replace(face, image=encode_image(picture))
        self.report.genuine += len(faces)
        whole = zip(faces, pictures, parts, [faces[row] for row in donors.tolist()], strict=True)
        about = list(starmap(_About, whole))
        for number, method in enumerate(self.forge.methods):
            forged = self.forge(
                image,
                landmarks,
                draws,
                which=torch.full((len(faces),), number),
                parts=parts,
                person=person,
            )
            yield from self._records(about, forged, method.name, method.needs_donors)

    def _records(
        self, about: Sequence[_About], forged: ForgedBatch, name: str, donated: bool
    ) -> Iterator[FaceRecord]:
        images, done = forged.image.cpu(), forged.touched[:, 0].tolist()
        for each, image, possible in zip(about, images, done, strict=True):
            if not possible:
                self.report.skipped[name] += 1
                continue
            self.report.forged[name] += 1
            height, width = each.picture.shape[1:]
            region = [str(r) for r, own in zip(CONFINED, each.parts.tolist(), strict=True) if own]
            others = each.donor.identities[:1] if donated else ()
            yield replace(
                each.face,
                image=encode_image(image[:, :height, :width]),
                key=f"{each.face.key}~{name}",
                video=f"{each.face.video}~{name}",
                label=FAKE,
                method=":".join([name, *region]),
                identities=(*each.face.identities[:1], *others),
            )


@dataclass(frozen=True, eq=False)
class _About:
    """A genuine face, its picture, to which regions its forgeries are confined, and the donor."""

    face: FaceRecord
    picture: Tensor
    parts: Tensor
    donor: FaceRecord
