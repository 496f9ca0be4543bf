"""Pictures as arrays, put together for networks."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def padded(images: Sequence[NDArray[np.uint8]]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Puts B images (h, w, 3) of any size together, padded with black right and below.

    Returns:
        (B, 3, H, W), and each image's own width and height, (B, 2).
    """
    height, width = (max(image.shape[axis] for image in images) for axis in (0, 1))
    batch = np.zeros((len(images), 3, height, width), np.uint8)
    for row, image in zip(batch, images, strict=True):
        row[:, : image.shape[0], : image.shape[1]] = image.transpose(2, 0, 1)
    return batch, np.array([(image.shape[1], image.shape[0]) for image in images], np.int64)
