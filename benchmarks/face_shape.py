"""The mean face of ``faces/pose.py``, measured: ``python benchmarks/face_shape.py SHARED``.

Factorisation (Tomasi and Kanade, IJCV 1992) of the landmarks of photographs under weak perspective:
many people, turned this way and that, are taken for one rigid face with noise. Prints the singular
values (three stand out where that is fair), the difference from the constants, and the constants.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from jsonargparse import auto_cli
from numpy.typing import NDArray

from deepregions.faces.backends import landmark_detector
from deepregions.faces.pose import mean_shape
from deepregions.faces.regions import MIRROR
from deepregions.media.images import read_image

Array = NDArray[np.float64]


def main(shared: Path, backend: str = "dlib", rounds: int = 200) -> None:
    """Measures the mean face on the photographs of a folder.

    Args:
        shared: The folder of shared data: photographs in faces/, YuNet in weights/.
        backend: Which landmarks.
        rounds: How often poses are made rotations and the face is solved for again.
    """
    os.environ.setdefault("DEEPREGIONS_CACHE", str(shared / "weights"))
    detector = landmark_detector(backend, "cpu")
    found = []
    for path in sorted((shared / "faces").rglob("*.jpg")):
        faces = detector(read_image(path)[None])[0]
        if faces and (faces[0].confidence is None or faces[0].confidence >= 0.5):
            found.append(faces[0].landmarks.astype(np.float64))
    own = np.stack(found)
    mirrored = own[:, list(MIRROR)] * (-1, 1)
    points = np.concatenate([own, mirrored])
    points -= points.mean(axis=1, keepdims=True)
    points /= np.sqrt(np.square(points).sum(axis=(1, 2), keepdims=True) / 68)
    shape = factorise(points.transpose(0, 2, 1).reshape(-1, 68), rounds)
    print(f"{len(own)} faces of {backend} and their mirror images")
    off = shape - mean_shape().double().numpy()
    print(f"differs from the constants by at most {np.abs(off).max():.3f} of the face's width")
    rows = np.round(100 * shape).astype(int)
    for start in range(0, 68, 5):
        print("    " + "  ".join(" ".join(map(str, row)) for row in rows[start : start + 5]))


def factorise(measured: Array, rounds: int) -> Array:
    """Returns the face, (68, 3), of (2 F, 68) x and y in F pictures."""
    left, values, right = np.linalg.svd(measured, full_matrices=False)
    print("singular values:", " ".join(f"{value:.0f}" for value in values[:6]))
    poses, shape = left[:, :3] * values[:3], right[:3]
    upgrade = _metric(poses.reshape(-1, 2, 3))
    poses, shape = poses @ upgrade, np.linalg.solve(upgrade, shape)
    for _ in range(rounds):
        rotations = _scaled_rotations(poses)
        shape = np.asarray(np.linalg.lstsq(rotations, measured, rcond=None)[0], np.float64)
        poses = measured @ np.linalg.pinv(shape)
    return _upright(shape, rotations)


def _metric(poses: Array) -> Array:
    """The 3 x 3 matrix that makes the two rows of each pose orthogonal and equally long."""

    def products(one: Array, other: Array) -> Array:
        a, b, c = one.T
        d, e, f = other.T
        return np.stack([a * d, a * e + b * d, a * f + c * d, b * e, b * f + c * e, c * f], axis=1)

    x, y = poses[:, 0], poses[:, 1]
    length = products(x[:1], x[:1]) + products(y[:1], y[:1])  # fixes the scale
    equations = np.concatenate([products(x, y), products(x, x) - products(y, y), length])
    right = np.zeros(len(equations))
    right[-1] = 1
    q = np.linalg.lstsq(equations, right, rcond=None)[0]
    symmetric = q[[0, 1, 2, 1, 3, 4, 2, 4, 5]].reshape(3, 3)
    values, vectors = np.linalg.eigh(symmetric)
    if values.min() <= 0:
        raise SystemExit(f"not one rigid face: {values}")
    metric: Array = vectors * np.sqrt(values)
    return metric


def _scaled_rotations(poses: Array) -> Array:
    left, values, right = np.linalg.svd(poses.reshape(-1, 2, 3), full_matrices=False)
    rotations: Array = values.mean(axis=1)[:, None, None] * (left @ right)
    return rotations.reshape(-1, 3)


def _upright(shape: Array, rotations: Array) -> Array:
    """Turned so that x is from ear to ear, y down in the mean picture; symmetric, of width 1."""
    across = np.linalg.svd(shape - shape[:, list(MIRROR)])[0][:, 0]
    across *= np.sign(across @ (shape[:, 45] - shape[:, 36]))
    down = rotations.reshape(-1, 2, 3).mean(axis=0)[1]
    down = down - (down @ across) * across
    down /= np.linalg.norm(down)
    away = np.cross(across, down)
    turned = np.stack([across, down, away]) @ shape
    turned[2] *= -np.sign(turned[2, 30] - turned[2, 36]) or 1  # the nose's tip is nearer
    turned -= turned.mean(axis=1, keepdims=True)
    turned = (turned + np.array([[-1], [1], [1]]) * turned[:, list(MIRROR)]) / 2
    upright: Array = (turned / (turned[0, 16] - turned[0, 0])).T
    return upright


if __name__ == "__main__":
    torch.set_num_threads(1)
    auto_cli(main)
