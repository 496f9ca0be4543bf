"""JPEG's losses, against Pillow's."""

import io

import numpy as np
import pytest
import torch
from drawn_faces import draw_face
from PIL import Image
from torch import Tensor

from deepregions.pixels.jpeg import compress


@pytest.fixture(scope="module")
def faces() -> Tensor:
    drawn = [draw_face(np.random.default_rng(seed), 150)[0] for seed in range(3)]
    return torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2)[..., :139, :]  # no multiple of 8


def pillow(image: Tensor, quality: int, halved: bool) -> Tensor:
    buffer = io.BytesIO()
    pixels = image.permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality, subsampling=2 if halved else 0)
    return torch.from_numpy(np.array(Image.open(buffer))).permute(2, 0, 1)


@pytest.mark.parametrize("halved", [True, False])
@pytest.mark.parametrize("quality", [5, 30, 50, 75, 90, 100])
def test_loses_what_pillow_loses(faces: Tensor, quality: int, halved: bool) -> None:
    ours = compress(faces.float(), torch.full((3,), float(quality)), halved=halved)
    theirs = torch.stack([pillow(face, quality, halved) for face in faces]).float()
    loss = (theirs - faces).abs().mean()
    # libjpeg's integer transform rounds some coefficients otherwise.
    assert (ours - theirs).abs().mean() < max(0.12 * loss, 0.35)
    assert ((ours - theirs).abs() > 4).float().mean() < 0.01
    wrong = compress(faces.float(), torch.full((3,), float(quality)), halved=not halved)
    assert (wrong - theirs).abs().mean() > 2 * (ours - theirs).abs().mean()


def test_each_face_has_its_own_quality(faces: Tensor) -> None:
    same = faces[:1].expand(3, -1, -1, -1).float()
    mixed = compress(same, torch.tensor([10.0, 50.0, 95.0]))
    for row, quality in enumerate((10.0, 50.0, 95.0)):
        alone = compress(same[:1], torch.tensor([quality]))
        assert torch.equal(mixed[row : row + 1], alone)
    errors = (mixed - same).abs().mean((1, 2, 3))
    assert errors[0] > 1.5 * errors[1] > 2 * errors[2]


def test_values_stay_whole_and_in_range() -> None:
    noise = torch.randint(0, 2, (2, 3, 24, 40), generator=torch.Generator().manual_seed(0)) * 255
    result = compress(noise.float(), torch.tensor([1.0, 40.7]))
    assert result.min() == 0 and result.max() == 255
    assert torch.equal(result, result.round())
