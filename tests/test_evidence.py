import io

import numpy as np
import pytest
import torch
from PIL import Image

from deepregions.pipeline.top_faces import STRIP, THUMBNAIL, Strip


@pytest.mark.parametrize("count", [0, 1, STRIP - 1, STRIP, STRIP + 1, 2 * STRIP, 1000])
def test_a_strip_is_even_and_short_however_many_frames_there_were(count: int) -> None:
    strip = Strip()
    image = torch.zeros(3, 6, 8, dtype=torch.uint8)
    for number in range(count):
        strip.add(number, number / 10, image)
        assert len(strip._kept) < 2 * STRIP  # memory does not grow
    shown = strip.thumbnails()
    assert len(shown) == min(count, len(shown))
    assert min(count, STRIP // 2) <= len(shown) <= STRIP
    numbers = [each.frame for each in shown]
    assert numbers == sorted(set(numbers))
    if count > 2 * STRIP:
        steps = np.diff(numbers)
        assert steps.max() <= 2 * steps.min()
        assert numbers[0] == 0 and numbers[-1] > 0.9 * count


def test_a_thumbnail_is_the_frame_made_small() -> None:
    image = torch.zeros(3, 720, 1280, dtype=torch.uint8)
    image[0, :, 640:] = 255
    strip = Strip()
    strip.add(7, 0.5, image)
    (shown,) = strip.thumbnails()
    pixels = np.asarray(Image.open(io.BytesIO(shown.jpeg)))
    assert pixels.shape == (180, THUMBNAIL, 3)
    assert shown.scale == pytest.approx(0.25)
    assert pixels[90, 10, 0] < 20 and pixels[90, 310, 0] > 235
