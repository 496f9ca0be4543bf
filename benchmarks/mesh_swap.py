"""Face swaps by another implementation than the package's: ``python benchmarks/mesh_swap.py``.

For tests only: networks that learned from ``deepregions forge``, or were chosen by it, must not be
judged by it alone. Nothing is shared with it: the donor's face is laid on the target's landmarks
triangle by triangle (Delaunay), each by its own affine map, and blended in by OpenCV's Poisson
cloning (Perez et al. 2003), where the package warps by a spline and matches colours.

    python benchmarks/mesh_swap.py --store stores/ffhq --out stores/ffhq-mesh --split test
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
from scipy.spatial import Delaunay

from deepregions.data.store import (
    SPLITS,
    FaceRecord,
    FaceStore,
    create_store,
    decode_image,
    encode_image,
)
from deepregions.types import BONA_FIDE, FAKE

METHOD = "mesh_swap"
_CANDIDATES = 20

Picture = npt.NDArray[np.uint8]
Points = npt.NDArray[np.float32]


def swap(target: Picture, points: Points, donor: Picture, donor_points: Points) -> Picture | None:
    """Lays a donor's face on a target's.

    Args:
        target: (H, W, 3).
        points: (68, 2) pixels of it.
        donor: (H, W, 3) of any size.
        donor_points: (68, 2) pixels of it.

    Returns:
        (H, W, 3), or None where nothing of it is left.
    """
    height, width = target.shape[:2]
    points = points.clip(2, [width - 3, height - 3]).astype(np.float32)  # the cloning needs a rim
    warped = np.zeros_like(target)
    for corners in Delaunay(points).simplices:
        _lay(warped, points[corners], donor, donor_points[corners])
    hull = cv2.convexHull(points).round().astype(np.int32)
    mask = np.zeros((height, width), np.uint8)
    cv2.fillConvexPoly(mask, hull, 255)
    mask = np.asarray(cv2.erode(mask, np.ones((5, 5), np.uint8)), np.uint8)
    mask[warped.sum(2) == 0] = 0
    x, y, w, h = cv2.boundingRect(mask)
    if not w or not h:
        return None
    cloned = cv2.seamlessClone(warped, target, mask, (x + w // 2, y + h // 2), cv2.NORMAL_CLONE)
    return np.asarray(cloned, np.uint8)


def _lay(canvas: Picture, corners: Points, donor: Picture, donor_corners: Points) -> None:
    """Draws one triangle of the donor onto the canvas."""
    x, y, w, h = cv2.boundingRect(corners)
    corners = (corners - np.array([x, y])).astype(np.float32)
    matrix = cv2.getAffineTransform(donor_corners, corners)
    patch = cv2.warpAffine(
        donor, matrix, (w, h), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
    )
    inside = np.zeros((h, w), np.uint8)
    cv2.fillConvexPoly(inside, corners.round().astype(np.int32), 1)
    place = canvas[y : y + h, x : x + w]
    shown = inside[: place.shape[0], : place.shape[1]].astype(bool)
    place[shown] = patch[: place.shape[0], : place.shape[1]][shown]


def _shape(points: Points) -> Points:
    """Landmarks without their place and size."""
    centred = points - points.mean(0)
    return np.asarray(centred / np.abs(centred).mean(), np.float32)


def _unlike(shape: Points, face: FaceRecord) -> float:
    return float(np.abs(_shape(face.landmarks) - shape).sum())


def swaps(
    store: FaceStore, splits: list[str], name: str, seed: int, most: int | None
) -> Iterator[FaceRecord]:
    """Yields genuine faces, each followed by its swap.

    The donor is the one of the same split whose landmarks are most alike, of some: a mesh folds
    between a frontal face and one that looks aside.
    """
    persons = store.persons
    random = np.random.default_rng(seed)
    for split in splits:
        rows = np.flatnonzero((store.labels == BONA_FIDE) & (store.splits == split))
        rows = random.permutation(rows)[:most]
        for row in rows.tolist():
            others = rows[persons[rows] != persons[row]]
            if not len(others):
                continue
            face = store[row]
            own = _shape(face.landmarks)
            some = random.choice(others, min(len(others), _CANDIDATES), replace=False)
            other = min((store[int(each)] for each in some), key=partial(_unlike, own))
            target, donor = (
                decode_image(each.image).permute(1, 2, 0).numpy() for each in (face, other)
            )
            made = swap(target, face.landmarks, donor, other.landmarks)
            if made is None:
                continue
            picture = torch.from_numpy(made).permute(2, 0, 1)
            again = encode_image(torch.from_numpy(target).permute(2, 0, 1))  # both encoded alike
            yield replace(face, image=again)
            yield replace(
                face,
                image=encode_image(picture),
                key=f"{face.key}~{name}",
                video=f"{face.video}~{name}",
                label=FAKE,
                method=name,
                identities=(*face.identities[:1], *other.identities[:1]),
            )


def main() -> None:
    """Writes a store of genuine faces and their swaps."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--split", nargs="+", choices=SPLITS, default=["test"])
    parser.add_argument("--database", help="what to call it; by default as the store")
    parser.add_argument("--most", type=int, help="genuine faces of a split")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    store = FaceStore(given.store)
    info = replace(store.info, database=given.database or store.info.database)
    records = swaps(store, given.split, METHOD, given.seed, given.most)
    made = create_store(given.out, info, records)
    print(f"{len(made)} faces: {given.out}")


if __name__ == "__main__":
    main()
