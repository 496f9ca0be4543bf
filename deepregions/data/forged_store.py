"""A store of genuine faces and their forgeries, for evaluation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from deepregions.data.store import (
    SPLITS,
    FaceRecord,
    FaceStore,
    create_store,
    decode_image,
    encode_image,
)
from deepregions.errors import StoreError, UsageError
from deepregions.forge.forger import ForgedBatch, Forger, draw_parts, make_method
from deepregions.forge.masks import CONFINED
from deepregions.pixels.face_rng import FaceRng, seeds_of
from deepregions.pixels.tensors import stack
from deepregions.roc import Bools
from deepregions.types import BONA_FIDE, FAKE

Progress = Callable[[int, int, int], None]

_BATCH = 32  # faces at a time, among whom donors are found


@dataclass
class ForgeReport:
    """How many genuine faces and, by method, forgeries were written, and how many were not."""

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

    Splits are kept, and people swap faces only within their split. Genuine faces and forgeries are
    both encoded again. A forgery's ``method`` is the forging method's name, or ``METHOD:REGION``
    for the share ``region_p`` that is confined to eyes, nose or mouth. Fakes in the source are left
    out. ``progress`` is called with genuine faces done, all of them, and faces written.

    Raises:
        StoreError: The source has no genuine faces, or there is something at ``out``.
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
    report, persons = ForgeReport(), source.persons

    def records() -> Iterator[FaceRecord]:
        for split in SPLITS:
            # Mixed, as neighbours are frames of one person, who has nobody to swap faces with.
            rows = np.flatnonzero(wanted & (source.splits == split))
            rows = np.random.default_rng(seed).permutation(rows)
            for first in range(0, len(rows), _BATCH):
                some = rows[first : first + _BATCH]
                faces = [source[row] for row in some.tolist()]
                pictures = [decode_image(face.image) for face in faces]
                for face, picture in zip(faces, pictures, strict=True):
                    yield replace(face, image=encode_image(picture))
                report.genuine += len(faces)
                image = stack(pictures)[0].to(device)
                landmarks = np.stack([face.landmarks for face in faces])
                draws = FaceRng(seeds_of([face.key for face in faces], seed))
                parts = draw_parts(draws.stream("region"), region_p)
                for number, method in enumerate(forge.methods):
                    made = forge(
                        image,
                        torch.from_numpy(landmarks).to(device),
                        draws,
                        which=torch.full((len(faces),), number),
                        parts=parts,
                        person=torch.from_numpy(persons[some]).to(device),
                    )
                    done = made.touched[:, 0].tolist()
                    report.forged += Counter({method.name: sum(done)})
                    report.skipped += Counter({method.name: len(done) - sum(done)})
                    yield from _forged(faces, pictures, method.name, made, parts)
                if progress is not None:
                    written = report.genuine + report.forged.total()
                    progress(report.genuine, int(wanted.sum()), written)

    create_store(out, source.info, records())  # still that database: figures on it are within it
    return report


def made_here(store: FaceStore) -> Bools:
    """(N,), which faces :func:`forge_store` has made, whatever others call their methods."""
    named = zip(store.column("video"), store.column("method"), strict=True)
    marked = [str(video).endswith(f"~{str(method).partition(':')[0]}") for video, method in named]
    return np.asarray(np.array(marked) & (store.labels == FAKE), dtype=np.bool_)


def _forged(
    faces: Sequence[FaceRecord],
    pictures: Sequence[torch.Tensor],
    name: str,
    made: ForgedBatch,
    parts: torch.Tensor,
) -> Iterator[FaceRecord]:
    """Yields the forgeries that could be made, without their padding."""
    images, done = made.image.cpu(), made.touched[:, 0].tolist()
    for row, face in enumerate(faces):
        if not done[row]:
            continue
        height, width = pictures[row].shape[1:]
        own = zip(CONFINED, parts[row].tolist(), strict=True)
        donor = () if made.donors is None else faces[int(made.donors[row])].identities[:1]
        yield replace(
            face,
            image=encode_image(images[row, :, :height, :width]),
            key=f"{face.key}~{name}",
            video=f"{face.video}~{name}",
            label=FAKE,
            method=":".join([name, *(str(region) for region, there in own if there)]),
            identities=(*face.identities[:1], *donor),
        )
