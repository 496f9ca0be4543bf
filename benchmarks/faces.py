"""Finding, following and gating faces, on real ones: ``python benchmarks/faces.py SHARED``.

SHARED is the folder of shared data (faces/, videos/, weights/). Prints how many faces are found and
may be judged, what the gates refuse, how far measures move with what they measure, which cuts are
found, who is taken for whom, and what all of it costs.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations, pairwise, permutations
from pathlib import Path

import cv2
import numpy as np
import torch
from decoding import frames
from jsonargparse import auto_cli
from numpy.typing import NDArray
from torch import Tensor

from deepregions.faces.appearance import appearance
from deepregions.faces.backends import landmark_detector
from deepregions.faces.gates import judge
from deepregions.faces.judgement import Quality, refusals
from deepregions.faces.landmarks import Face, LandmarkDetector
from deepregions.faces.patches import Pixels, crop_face
from deepregions.faces.quality import measure
from deepregions.faces.shots import ShotDetector
from deepregions.faces.thresholds import Gates
from deepregions.faces.tracks import Tracker
from deepregions.media.images import read_image
from deepregions.pixels.tensors import as_tensor, stack
from deepregions.types import REGIONS

SECTIONS = ("coverage", "gates", "shots", "tracks", "speed")


def link(
    faces: Sequence[Sequence[Face]],
    times: Sequence[float] | None = None,
    *,
    cuts: Collection[int] = (),
    looks: Sequence[Sequence[NDArray[np.float32] | None]] | None = None,
) -> list[list[int]]:
    """The track of each face of each frame; frames are a second apart if no times are given."""
    tracker = Tracker()
    return [
        tracker.update(
            found,
            times[frame] if times else float(frame),
            cut=frame in cuts,
            descriptors=looks[frame] if looks else None,
        )
        for frame, found in enumerate(faces)
    ]


@dataclass
class Seen:
    """A frame or photograph, and its faces."""

    image: Pixels
    time: float
    faces: list[Face]


def main(shared: Path, sections: list[str] | None = None, every: int = 1) -> None:
    """Measures on real faces.

    Args:
        shared: The folder of shared data.
        sections: Which of coverage, gates, shots, tracks and speed; all by default.
        every: Only every n-th photograph, to be quicker.
    """
    os.environ.setdefault("DEEPREGIONS_CACHE", str(shared / "weights"))
    photos = sorted((shared / "faces").rglob("*.jpg"))[::every]
    clips = sorted((shared / "videos").rglob("*.mp4"))
    chosen = sections or SECTIONS
    dlib = landmark_detector("dlib", "cpu")
    if "coverage" in chosen:
        for detector in (dlib, landmark_detector("dlib-hog", "cpu")):
            coverage(detector, photos, clips)
    if "gates" in chosen:
        gates(dlib, photos)
    if "shots" in chosen:
        shots(photos, clips)
    if "tracks" in chosen:
        tracks(dlib, photos, clips)
    if "speed" in chosen:
        speed(dlib, photos, clips)


def look(detector: LandmarkDetector, path: Path, count: int = 64) -> list[Seen]:
    return [Seen(f.image, f.time, detector([f.image])[0]) for f in frames(path, count)]


def measured(faces: list[tuple[Pixels, Face]]) -> Quality[Tensor]:
    cuts = [cut for image, face in faces if (cut := crop_face(image, face)) is not None]
    patches, points, scales = zip(*cuts, strict=True)
    nan = float("nan")
    return measure(
        stack([as_tensor(patch) for patch in patches])[0],
        torch.from_numpy(np.stack(points)),
        scale=torch.tensor(scales),
        extent=torch.tensor([(patch.shape[1], patch.shape[0]) for patch in patches]),
        confidence=torch.tensor(
            [nan if face.confidence is None else face.confidence for _, face in faces]
        ),
    )


def passing(faces: list[tuple[Pixels, Face]]) -> str:
    if not faces:
        return "no faces"
    quality = measured(faces)
    judged = judge(quality, Gates())
    shares = judged.regions.float().mean(dim=0).tolist()
    reasons = Counter(
        str(one)
        for own in refusals(quality.map(Tensor.numpy), judged.map(Tensor.numpy), Gates())
        for one in own
    )
    told = ", ".join(f"{number} {why}" for why, number in reasons.most_common(4))
    return " ".join(f"{share:6.1%}" for share in shares) + f"  {told}"


def coverage(detector: LandmarkDetector, photos: list[Path], clips: list[Path]) -> None:
    print(f"\nCOVERAGE, {detector.name}: {detector.version}")
    print(f"{'':24s} frames  with a face  tracks  may be judged: {' '.join(REGIONS)}")
    for path in clips:
        seen = look(detector, path)
        numbers = follow(seen)
        people = len({number for own in numbers for number in own})
        found = sum(bool(one.faces) for one in seen) / len(seen)
        first = [(one.image, one.faces[0]) for one in seen if one.faces]
        print(f"{path.stem:24s} {len(seen):6d}  {found:11.1%}  {people:6d}  {passing(first)}")
    for name in sorted({path.parent.name for path in photos}):
        own = [path for path in photos if path.parent.name == name]
        pairs = [(image, detector([image])[0]) for image in map(read_image, own)]
        first = [(image, faces[0]) for image, faces in pairs if faces]
        print(f"{name:24s} {len(own):6d}  {len(first) / len(own):11.1%}       -  {passing(first)}")


def follow(seen: list[Seen], *, with_cuts: bool = True, with_looks: bool = True) -> list[list[int]]:
    tracker, cut = Tracker(), ShotDetector()
    numbers = []
    for one in seen:
        changed = cut(one.image) if with_cuts else False
        looks = [appearance(one.image, face) for face in one.faces] if with_looks else None
        numbers.append(tracker.update(one.faces, one.time, cut=changed, descriptors=looks))
    return numbers


Change = Callable[[np.ndarray, float], np.ndarray]  # a picture and its face's width


def enlarged(pixels: float) -> Change:
    """Made so small that the face has this width, and large again."""

    def change(image: np.ndarray, width: float) -> np.ndarray:
        small = resized(image, pixels / width)
        return cv2.resize(small, image.shape[1::-1], interpolation=cv2.INTER_CUBIC)

    return change


def resized(image: np.ndarray, factor: float) -> np.ndarray:
    size = [max(1, round(side * factor)) for side in image.shape[1::-1]]
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, (size[0], size[1]), interpolation=how))


def blurred(share: float) -> Change:
    return lambda image, width: np.asarray(cv2.GaussianBlur(image, (0, 0), share * width))


def gates(detector: LandmarkDetector, photos: list[Path]) -> None:
    pairs = [(image, detector([image])[0]) for image in map(read_image, photos[::4])]
    faces = [(image, own[0]) for image, own in pairs if own]
    widths = measured(faces).size.tolist()
    print(f"\nGATES, {len(faces)} photographs, changed; landmarks those of the unchanged")
    print(f"{'':20s} sharpness of the face: 5 %, median, 95 %   may be judged: {' '.join(REGIONS)}")
    changes: dict[str, Change] = {
        "unchanged": lambda image, _: image,
        **{f"blurred by {share:.1%}": blurred(share) for share in (0.005, 0.01, 0.02, 0.03, 0.05)},
        **{f"enlarged from {size}": enlarged(size) for size in (128, 64, 40, 24, 16)},
        "black": lambda image, _: image // 32,
        "white": lambda image, _: np.clip(image.astype(int) * 8 + 200, 0, 255).astype(np.uint8),
        "brighter by 1.5": lambda image, _: cv2.convertScaleAbs(image, alpha=1.5),
        "darker by 3": lambda image, _: image // 3,
    }
    for name, change in changes.items():
        changed = [
            (change(image, width), face) for (image, face), width in zip(faces, widths, strict=True)
        ]
        sharp = torch.quantile(measured(changed).sharpness[:, 0], torch.tensor([0.05, 0.5, 0.95]))
        figures = "  ".join(f"{value:.2f}" for value in sharp.tolist())
        print(f"{name:20s} {figures}   {passing(changed)}")
    print("\nfaces made small, and found again in grey: width  found  landmarks off, of the outer")
    print("eye corners' distance (median, 95 %)  confidence (5 %)  may be judged")
    for size in (128, 64, 40, 32, 24, 20):
        small(detector, faces, widths, size)


def small(
    detector: LandmarkDetector, faces: list[tuple[Pixels, Face]], widths: list[float], size: int
) -> None:
    errors, sure, again = [], [], []
    for (image, face), width in zip(faces, widths, strict=True):
        less = resized(image, size / width)
        frame = np.full((480, 480, 3), 128, np.uint8)
        frame[: less.shape[0], : less.shape[1]] = less[:480, :480]
        found = detector([frame])[0]
        if not found:
            continue
        ratio = np.array([less.shape[1] / image.shape[1], less.shape[0] / image.shape[0]])
        points = (face.landmarks + 0.5) * ratio - 0.5
        off = np.linalg.norm(found[0].landmarks - points, axis=1).mean()
        errors.append(float(off / np.linalg.norm(points[36] - points[45])))
        sure.append(found[0].confidence or 0.0)
        again.append((frame, found[0]))
    found_share = len(again) / len(faces)
    middle, high = np.quantile(errors, [0.5, 0.95])
    low = np.quantile(sure, 0.05)
    print(f"{size:5d} {found_share:6.1%}   {middle:.3f} {high:.3f}   {low:.2f}   {passing(again)}")


def cut_numbers(images: list[Pixels]) -> list[int]:
    detector = ShotDetector()
    return [number for number, image in enumerate(images) if detector(image)]


def shots(photos: list[Path], clips: list[Path]) -> None:
    print("\nSHOT CHANGES")
    for count in (8, 16, 32, 64):
        sampled = {path.stem: [f.image for f in frames(path, count)] for path in clips}
        false = sum(len(cut_numbers(images)) for images in sampled.values())
        found, extra, joins = Counter[str](), Counter[str](), 0
        for one, other in permutations(sampled, 2):
            if one[:3] == other[:3]:  # the same scene with another face
                continue
            joins += 1
            for name, images, place in _joined(sampled[one], sampled[other]):
                cuts = cut_numbers(images)
                hit = [cut for cut in cuts if abs(cut - place) <= (len(images) - 2 * count)]
                found[name] += bool(hit)
                extra[name] += len(cuts) - bool(hit)
        told = ", ".join(f"{name} {found[name]} (+{extra[name]})" for name in found)
        print(f"{count:3d} frames a clip: {false} false cuts in {len(sampled)} clips; of {joins}")
        print(f"    joins found (and cuts that are none): {told}")
    rng = np.random.default_rng(0)
    images = [read_image(path) for path in photos if path.parent.name == "ffhq"]
    _pairs("two portraits (FFHQ)", list(pairwise(images)))
    people = [read_image(path) for path in photos if path.name.endswith("_neutral.jpg")]
    _pairs("two people in one studio", list(combinations(people, 2))[:: max(1, len(people) // 8)])
    names = [path for path in photos if path.name.endswith("_neutral.jpg")]
    smiles = [path.with_name(path.name.replace("neutral", "smiling")) for path in names]
    _pairs("one person, then smiling", list(zip(people, map(read_image, smiles), strict=True)))
    some = images[::4]
    for name, zoom, shift, turn in (("moved", 0.15, 0.15, 5), ("moved far", 0.25, 0.25, 10)):
        _pairs(f"a portrait, {name}", [(a, _moved(a, rng, zoom, shift, turn)) for a in some])
    _pairs("a portrait, a third as bright", [(a, a // 3) for a in some])
    _pairs("a portrait, in a flash", [(a, (a * 0.4 + 130).astype(np.uint8)) for a in some])
    for steps in (1, 2, 3):
        shares = [(n + 1) / (steps + 1) for n in range(steps)]
        found_in = [
            bool(cut_numbers([a, *((a + s * (b - 1.0 * a)).astype(np.uint8) for s in shares), b]))
            for a, b in pairwise(some)
        ]
        print(f"dissolve over {steps} frames     {np.mean(found_in):6.1%} found")


def _joined(one: list[Pixels], other: list[Pixels]) -> Iterator[tuple[str, list[Pixels], int]]:
    """Ways to put two clips together: a name, the frames, and where the cut is."""
    place = len(one)
    yield "plain", [*one, *other], place
    height, width = one[0].shape[:2]
    alike = [np.asarray(cv2.resize(image, (width, height)), np.uint8) for image in other]
    yield "same size", [*one, *alike], place
    zoomed = [
        np.asarray(
            cv2.resize(i[height // 8 : -height // 8, width // 8 : -width // 8], (width, height)),
            np.uint8,
        )
        for i in alike
    ]
    yield "zoomed", [*one, *zoomed], place
    yield "darker", [*one, *(image // 2 for image in other)], place
    yield "a white frame between", [*one, np.full_like(one[0], 255), *other], place
    fading = [image // 2 for image in (one[-1], other[0])]
    black = np.zeros_like(one[0])
    yield "a fade between", [*one, fading[0], black, fading[1], *other], place


def _moved(
    image: Pixels, rng: np.random.Generator, zoom: float, shift: float, turn: float
) -> Pixels:
    height, width = image.shape[:2]
    scale = float(np.exp(rng.uniform(0, 2 * zoom)))
    affine = cv2.getRotationMatrix2D((width / 2, height / 2), rng.uniform(-turn, turn), scale)
    affine = affine + np.array([[0, 0, width], [0, 0, height]]) * rng.uniform(-shift, shift, (2, 1))
    there = cv2.warpAffine(image, affine, (width, height), borderMode=cv2.BORDER_REFLECT)
    return np.asarray(there, np.uint8)


def _pairs(name: str, pairs: list[tuple[Pixels, Pixels]]) -> None:
    share = np.mean([bool(cut_numbers(list(pair))) for pair in pairs])
    print(f"{name:30s} {len(pairs):5d} pairs, {share:6.1%} are cuts")


def tracks(detector: LandmarkDetector, photos: list[Path], clips: list[Path]) -> None:
    print("\nTRACKS: numbers of people found in each clip (1 is right)")
    seen = {path.stem: look(detector, path) for path in clips}
    for step in (8, 4, 2, 1):
        for with_looks in (False, True):
            people = [
                len({n for own in follow(one[::step], with_looks=with_looks) for n in own})
                for one in seen.values()
            ]
            looks = "with" if with_looks else "without"
            print(f"{64 // step:3d} frames, {looks} looks: {people}")
    print("joins of two clips: kept apart, of all orders; then with no cut known, looks only")
    for step in (8, 4, 2, 1):
        apart, by_looks, joins = 0, 0, 0
        for one, other in permutations(seen, 2):
            if one[:3] == other[:3]:
                continue
            joins += 1
            first, second = seen[one][::step], seen[other][::step]
            gap = first[-1].time - first[-2].time
            later = [replace(s, time=s.time + first[-1].time + gap) for s in second]
            apart += _apart(follow([*first, *later]), len(first))
            by_looks += _apart(follow([*first, *later], with_cuts=False), len(first))
        print(f"{64 // step:3d} frames: {apart} of {joins}; {by_looks} of {joins}")
    swapped(detector, photos)


def _apart(numbers: list[list[int]], place: int) -> bool:
    before = {number for own in numbers[:place] for number in own}
    return not before & {number for own in numbers[place:] for number in own}


def swapped(detector: LandmarkDetector, photos: list[Path]) -> None:
    """Two people of the studio change sides between two frames, or stay."""
    looks = []
    for path in (one for one in photos if one.name.endswith("_neutral.jpg")):
        pair = [path, path.with_name(path.name.replace("neutral", "smiling"))]
        images = [read_image(one) for one in pair]
        looks.append([appearance(image, detector([image])[0][0]) for image in images])
    places = [
        Face(np.array([x, 100, x + 100, 230], np.float32), np.zeros((68, 2), np.float32), 1.0)
        for x in (100, 350)
    ]
    for gap in (0.4, 2.0, 5.0):
        right: Counter[str] = Counter()
        pairs = list(combinations(looks, 2))
        for one, other in pairs:
            for name, now, expected in (
                ("stay", [one[1], other[1]], [0, 1]),
                ("swap", [other[1], one[1]], [1, 0]),
            ):
                tracker = Tracker()
                tracker.update(places, 0.0, descriptors=[one[0], other[0]])
                right[name] += tracker.update(places, gap, descriptors=now) == expected
        told = ", ".join(f"{name} {number / len(pairs):.1%}" for name, number in right.items())
        print(f"{len(pairs)} pairs of people, {gap} s between frames, right where they: {told}")


def speed(detector: LandmarkDetector, photos: list[Path], clips: list[Path]) -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    print("\nSPEED, milliseconds of processor time on one thread")
    for count in (8, 64):
        images = [frame.image for path in clips for frame in frames(path, count)]
        took = _spent(partial(cut_numbers, images)) / len(images)
        print(f"{'shot changes, a frame':28s} {took:.2f}, of {count} a clip")
    seen = [one for path in clips for one in look(detector, path, 16)]
    known = [(one.image, one.faces[0]) for one in seen if one.faces]
    took = _spent(lambda: [appearance(*one) for one in known]) / len(known)
    print(f"{'looks, a face':28s} {took:.2f}")
    many = [[known[0][1]] * 8] * 50
    print(f"{'tracks, a frame of 8 faces':28s} {_spent(partial(link, many)) / len(many):.2f}")
    cuts = [crop_face(one, detector([one])[0][0]) for one in map(read_image, photos[:64])]
    patches = [one for one in cuts if one is not None]
    pieces = [as_tensor(one[0]) for one in patches]
    points = torch.from_numpy(np.stack([one[1] for one in patches]))
    for size in (1, 16, 64):
        took = _spent(partial(_gated, stack(pieces[:size])[0], points[:size])) / size
        print(f"{'quality and gates, a face':28s} {took:.2f}, in batches of {size}")


def _gated(images: Tensor, points: Tensor) -> object:
    return judge(measure(images, points), Gates())


def _spent(run: Callable[[], object]) -> float:
    best = float("inf")
    for _ in range(5):
        start = time.process_time()
        run()
        best = min(best, time.process_time() - start)
    return 1e3 * best


if __name__ == "__main__":
    auto_cli(main)
