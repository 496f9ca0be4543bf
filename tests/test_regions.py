"""The geometry against the paper's own masks, and its symmetries."""

import json
from pathlib import Path

import numpy as np
import torch
from data_helpers import face_points
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from torch import Tensor

from deepregions.faces.cropping import segment
from deepregions.faces.rasterise import PARTS, part_masks, whole_mask
from deepregions.faces.regions import Outlines, canvas, mirror, outlines, region_boxes
from deepregions.types import REGIONS

FACE = torch.from_numpy(face_points())[None] * torch.tensor([100.0, 130.0])
NOISY = 20  # JPEG noise of black areas stays below


def masks(landmarks: Tensor, width: int, height: int) -> Tensor:
    """(4, height, width) bool, in the order of PARTS."""
    return part_masks(outlines(landmarks), width, height)[0].permute(1, 2, 0) > 0


def overlap(folder: Path) -> list[float]:
    """IoU of our native masks with the published ones, in the order of REGIONS."""
    entire = np.array(Image.open(folder / "entire.jpg").convert("RGB"))
    height, width = entire.shape[:2]
    landmarks = torch.tensor(json.loads((folder / "landmarks68.json").read_text())["points"])
    ours = segment(torch.full((3, height, width), 255, dtype=torch.uint8), landmarks)
    x0, y0, x1, y1 = canvas(landmarks[None])[0].tolist()
    scores = []
    for region in REGIONS:
        published = np.array(Image.open(folder / f"{region}.jpg").convert("RGB"))
        frame = np.zeros((3 * height, 3 * width), bool)  # the two canvases differ by some pixels
        frame[height + y0 : height + y1, width + x0 : width + x1] = ours[region][0].numpy() > 0
        mine = frame[height : 2 * height, width : 2 * width]
        theirs = published.max(axis=-1) > NOISY
        scores.append(float((mine & theirs).sum() / ((mine & ~theirs).sum() + theirs.sum())))
    return scores


def test_overlap_with_the_papers_own_masks(shared: Path) -> None:
    folders = sorted((shared / "seed-regions").iterdir())
    scores = np.array([overlap(folder) for folder in folders])
    assert scores.shape == (3, 5)
    assert scores.mean() >= 0.90, scores
    assert scores.min() >= 0.82, scores


def test_canvas_is_close_to_the_papers_own(shared: Path) -> None:
    for folder in sorted((shared / "seed-regions").iterdir()):
        width, height = Image.open(folder / "entire.jpg").size
        landmarks = torch.tensor(json.loads((folder / "landmarks68.json").read_text())["points"])
        box = canvas(landmarks[None])[0]
        assert (box - torch.tensor([0, 0, width, height])).abs().max() <= 6, folder.name


def test_rasteriser_agrees_with_pillow_inside_borders() -> None:
    """Pillow draws the border too, so compare only pixels that are not on one."""
    landmarks = FACE * 2 + 20.25
    parts = masks(landmarks, 250, 320)
    nose = Image.new("L", (250, 320))
    outline = [tuple(point) for point in outlines(landmarks).nose[0].tolist()]
    ImageDraw.Draw(nose).polygon(outline, fill=1)
    border = Image.new("L", (250, 320))
    ImageDraw.Draw(border).line([*outline, outline[0]], fill=1, width=3)
    inside = torch.from_numpy(np.array(border) == 0)
    drawn = torch.from_numpy(np.array(nose) > 0)
    assert torch.equal(parts[PARTS.index("nose")][inside], drawn[inside])


def test_rasteriser_is_half_open_and_winds() -> None:
    square = torch.tensor([[[1.0, 2.0], [4.0, 2.0], [4.0, 6.0], [1.0, 6.0]]])
    nowhere = torch.full((1, 3, 2), -9.0)
    twice = torch.cat((square, square), dim=1)
    for outline in (square, square.flip(1), twice):
        label = part_masks(Outlines(outline, nowhere, nowhere, nowhere), 8, 9)[0]
        expected = torch.zeros(8, 9, dtype=torch.uint8)
        expected[1:4, 2:6] = 1
        assert torch.equal(label[:, PARTS.index("rest")], expected)
        assert label.sum() == expected.sum()


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31 - 1),
    turn=st.floats(-3.1, 3.1),
    scale=st.floats(0.6, 3),
    x=st.integers(-40, 60),
    y=st.integers(-40, 60),
)
def test_symmetries(seed: int, turn: float, scale: float, x: int, y: int) -> None:
    noise = torch.randn(1, 68, 2, generator=torch.Generator().manual_seed(seed)) * 3
    landmarks = FACE + noise
    shape = outlines(landmarks)
    shift = torch.tensor([float(x), float(y)])
    cosine, sine = np.cos(turn), np.sin(turn)
    rotation = torch.tensor([[cosine, sine], [-sine, cosine]], dtype=torch.float32)
    moved = outlines(landmarks @ rotation * scale + shift)
    for before, after in zip(shape, moved, strict=True):
        assert torch.allclose(before @ rotation * scale + shift, after, atol=2e-2)
    for before, after in zip(shape, outlines(mirror(landmarks, 120)), strict=True):
        flipped = torch.stack((119 - before[..., 0], before[..., 1]), dim=-1)
        gap = torch.cdist(flipped, after)  # the same points, in another order
        assert gap.amin(dim=1).max() < 1e-2 and gap.amin(dim=2).max() < 1e-2
    box = canvas(landmarks)
    assert torch.equal(canvas(landmarks + shift), box + torch.tensor([x, y, x, y]))
    x0, y0, x1, y1 = box[0].tolist()
    assert canvas(mirror(landmarks, 120))[0].tolist() == [120 - x1, y0, 120 - x0, y1]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31 - 1),
    jitter=st.floats(0, 60),
    turn=st.floats(-3.2, 3.2),
    scale=st.floats(0.05, 2.5),
)
def test_parts_partition_the_face(seed: int, jitter: float, turn: float, scale: float) -> None:
    noise = torch.randn(1, 68, 2, generator=torch.Generator().manual_seed(seed)) * jitter
    cosine, sine = np.cos(turn), np.sin(turn)
    rotation = torch.tensor([[cosine, sine], [-sine, cosine]], dtype=torch.float32)
    landmarks = (FACE - 60) @ rotation * scale + 70 + noise
    parts = part_masks(outlines(landmarks), 150, 140)
    assert parts.max() <= 1
    assert torch.equal(parts.sum(dim=2, keepdim=True), whole_mask(parts).long())
    boxes = region_boxes(landmarks)
    assert (boxes[..., 2:] > boxes[..., :2]).all()
    assert (boxes[:, 1:, :2] >= boxes[:, :1, :2]).all()
    assert (boxes[:, 1:, 2:] <= boxes[:, :1, 2:]).all()
