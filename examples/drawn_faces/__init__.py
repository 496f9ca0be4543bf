"""Example data made by code: drawn faces with known landmarks, genuine and manipulated."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch

import deepregions
from deepregions.data.store import FaceRecord, StoreInfo, create_store, encode_image
from deepregions.types import BONA_FIDE, FAKE
from drawn_faces.drawing import draw_face as draw_face
from drawn_faces.forgery import forge as forge
from drawn_faces.people import Picture, draw_person, f32

FRAMES = 2  # genuine pictures of a person, and as many manipulated ones
SWAPS = 0.3  # share of the manipulated ones that have somebody else's face


def write_drawn_store(out: Path, count: int = 600, seed: int = 0, size: int = 160) -> None:
    """Writes a face store of drawn people, each genuine and manipulated.

    Every person is in :data:`FRAMES` genuine pictures, one video, and in as many manipulated ones,
    another. Manipulated pictures are copies of genuine ones; both then get the same noise, resizing
    and JPEG compression. Of the people, 70 % are for training, 15 % each for validation and test;
    who lends a face to a swap is of the same part. The same arguments give the same bytes.

    Args:
        out: The store's folder.
        count: Faces in all, rounded up to whole people: half of them are manipulated.
        seed: Which people.
        size: Width and height of the pictures, in pixels.

    Raises:
        StoreError: There is something at ``out`` already.
        OSError: The store cannot be written.
    """
    info = StoreInfo("drawn", "drawn", deepregions.__version__, frames_per_video=FRAMES)
    people = max(6, -(-count // (2 * FRAMES)))
    create_store(out, info, _records(people, seed, size))


def _records(people: int, seed: int, size: int) -> Iterator[FaceRecord]:
    held_out = max(2, round(0.15 * people))
    bounds = {
        "train": (0, people - 2 * held_out),
        "val": (people - 2 * held_out, people - held_out),
        "test": (people - held_out, people),
    }
    for split, (first, last) in bounds.items():
        for number in range(first, last):
            donor = first + (number - first + 1) % (last - first)
            yield from _person(seed, number, donor, split, size)


def _person(seed: int, number: int, donor: int, split: str, size: int) -> Iterator[FaceRecord]:
    """One person's pictures, genuine and manipulated."""
    rng = np.random.default_rng((seed, number))
    me = draw_person(rng)
    other = draw_person(np.random.default_rng((seed, donor)))
    for frame in range(FRAMES):
        image, landmarks = draw_face(rng, size, me)
        donated = draw_face(rng, size, other) if rng.uniform() < SWAPS else None
        fake, method = forge(image, landmarks, rng, donated)
        landmarks += rng.normal(0, 0.01 * size / 3, landmarks.shape).astype(np.float32)
        wear = int(rng.integers(2**31))
        for label, picture in ((BONA_FIDE, image), (FAKE, fake)):
            swapped = method == "swap" and label == FAKE
            kind = method if label == FAKE else "original"
            video = f"{number:04d}" + ("_fake" if label == FAKE else "")
            pixels = _age(picture, np.random.default_rng(wear))
            yield FaceRecord(
                image=encode_image(torch.from_numpy(pixels).permute(2, 0, 1)),
                landmarks=landmarks,
                key=f"{video}/{frame}",
                video=video,
                label=label,
                split=split,
                frame=frame,
                time=float(frame),
                method=kind,
                identities=(f"{number:04d}", f"{donor:04d}") if swapped else (f"{number:04d}",),
                frame_size=(size, size),
            )


def _age(image: Picture, rng: np.random.Generator) -> Picture:
    """What befalls pictures on their way, genuine or not: resizing, noise, JPEG compression."""
    size, pixels = (image.shape[1], image.shape[0]), f32(image)
    if rng.uniform() < 0.3:
        scale = rng.uniform(0.75, 1)
        small = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        pixels = f32(cv2.resize(small, size, interpolation=cv2.INTER_CUBIC))
    pixels = pixels + f32(rng.normal(0, rng.choice((0, 0.5, 1.5)), pixels.shape))
    image = np.clip(np.round(pixels), 0, 255).astype(np.uint8)
    if rng.uniform() < 0.6:
        quality = int(rng.integers(70, 99))
        data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        image = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)[..., ::-1].copy()
    return image
