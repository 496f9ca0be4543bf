"""From a face image and its landmarks to the five region crops that detectors see.

As the original does it (README of the paper's repository; measured in its published images): a
region is not cut out, the rest of the face's canvas is blacked out, and the canvas is stretched to
a square with Pillow's antialiased bilinear filter. There is no loop over faces, and nothing waits
for the device.

Images are uint8 (B, 3, H, W), landmarks (B, 68, 2) float32. Crops are float32 in [0, 1], black
outside the region and the image: a canvas that reaches out of the image is not moved.
"""

from collections.abc import Sequence
from typing import get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from deepregions.errors import UsageError
from deepregions.faces.rasterise import PARTS, part_masks, whole_mask
from deepregions.faces.regions import Outlines, canvas, context_box, outlines, region_boxes
from deepregions.faces.resampling import Taps, box_taps, nearest_taps
from deepregions.faces.resampling import resample as resample_boxes
from deepregions.faces.thresholds import MIN_INSIDE
from deepregions.types import NUM_LANDMARKS, REGIONS, Layout, Region, Resample

MIN_AREA = 100.0
"""Pixels of the image that a region must cover to be valid: less is 10 x 10, no detail left."""
MIN_SEEN = 0.05
"""Share of the canvas inside the image below which :func:`segment` refuses."""

_FAR = 1e5  # landmarks are clamped to this many pixels, so that nothing overflows
_GRID = 64  # areas are counted on this many points per side of the canvas
_CHUNK_BYTES = {"cpu": 8 << 20}  # near the caches; elsewhere few and large kernels are better
_CHUNK_BYTES_ELSEWHERE = 1 << 30


class RegionCropper(nn.Module):
    """Crops of the regions of a batch of faces, all of one size.

    Args:
        size: Side of the square crops in pixels.
        regions: Which regions, in which order.
        layout: ``"masked"``: every region in its place on the face's canvas, the canvas stretched
            to the crop, as the original. ``"tight"``: each region's own box stretched to the crop.
            ``"context"``: the entire face with what surrounds it, nothing blacked out; for
            detectors that other people trained.
        resample: ``"bilinear"``, antialiased, or ``"nearest"``.

    Raises:
        UsageError: An unknown region or layout, no region, or a size below 1.
    """

    def __init__(
        self,
        size: int = 200,
        regions: Sequence[Region] = REGIONS,
        layout: Layout = "masked",
        resample: Resample = "bilinear",
    ) -> None:
        super().__init__()
        unknown = [str(region) for region in regions if region not in tuple(REGIONS)]
        if unknown or not regions:
            what = f"unknown region {unknown[0]!r}" if unknown else "no region given"
            raise UsageError(what, f"one or more of {', '.join(REGIONS)}")
        if layout not in get_args(Layout):
            raise UsageError(f"unknown layout {layout!r}", "masked, tight or context")
        if resample not in get_args(Resample):
            raise UsageError(f"unknown filter {resample!r}", "bilinear or nearest")
        if layout == "context" and tuple(regions) != (Region.ENTIRE,):
            raise UsageError("the context layout shows the entire face", "regions: entire only")
        if size < 1:
            raise UsageError(f"crops cannot have size {size}", "1 pixel or more")
        self.size = size
        self.regions = tuple(Region(region) for region in regions)
        self.layout = layout
        self.resample = resample
        # Resizing is linear: on one canvas, the entire face is the sum of its parts.
        summed = layout == "masked" and set(PARTS) < set(self.regions)
        self._resized = PARTS if summed else self.regions

    def forward(
        self, image: Tensor, landmarks: Tensor, extent: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Crops every region of every face, each face as if it was alone in its batch.

        Pictures of other sizes are padded right and below; ``extent`` (B, 2) is width and height of
        each without that, all of ``image`` by default. Where landmarks are not finite or not a
        face, the region is not valid and its crop finite.

        Returns:
            Crops (B, R, 3, size, size) float32 in [0, 1], black outside the region unless the
            layout is ``"context"``; and valid (B, R) bool: landmarks are finite, at least
            ``MIN_AREA`` pixels of the region and ``MIN_INSIDE`` of it lie inside the image.

        Raises:
            ValueError: Shapes or types are not these.
        """
        check_faces(image, landmarks)
        batch, _, height, width = image.shape
        extent = full_extent(image) if extent is None else extent
        points, finite = tame(landmarks)
        points, origin = centred(points)
        shape, whole = outlines(points), canvas(points)
        boxes = shifted(self._boxes(points, whole), origin)
        # In chunks of the batch, whose largest temporary is within a budget.
        starts, step = range(0, 1), batch
        if not torch.compiler.is_exporting():  # the batch size is not a number yet
            budget = _CHUNK_BYTES.get(image.device.type, _CHUNK_BYTES_ELSEWHERE)
            step = max(1, min(batch, budget // (4 * 3 * len(self._resized) * height * width)))
            starts = range(0, batch, step)
        chunks = []  # none of an empty batch
        for start in starts:
            part = slice(start, start + step)
            lines = Outlines(*(line[part] for line in shape))
            taps = self._taps(boxes[part], extent[part], width, height)
            chunks.append(self._crop(image[part], lines, -origin[part], taps))
        empty = image.new_empty(
            (0, len(self.regions), 3, self.size, self.size), dtype=torch.float32
        )
        crops = chunks[0] if len(chunks) == 1 else torch.cat([empty, *chunks])
        area, inside = _areas(shape, whole, window(extent, origin))
        valid = (area >= MIN_AREA) & (inside >= MIN_INSIDE) & finite[:, None]
        return crops, _pick(valid, self.regions)

    def boxes(self, landmarks: Tensor) -> Tensor:
        """What of, or off, an image is stretched to each crop: (B, R, 4), upper ends exclusive."""
        points, origin = centred(tame(landmarks)[0])
        boxes = self._boxes(points, canvas(points))
        return shifted(boxes, origin).expand(-1, len(self.regions), -1)

    def masks(self, landmarks: Tensor, extent: Tensor) -> Tensor:
        """Where on its crop each region is, (B, R, S, S) bool, as far as it is inside the image."""
        points, origin = centred(tame(landmarks)[0])
        shape, whole = outlines(points), canvas(points)
        boxes = shifted(self.boxes(landmarks), -origin)
        inside = window(extent, origin)
        found = []
        for number, region in enumerate(self.regions):
            box = boxes[:, number]
            _, seen = canvas_masks(shape, box, inside, self.size)
            step = (torch.arange(self.size, device=box.device) + 0.5) / self.size
            point = box[:, None, :2] + step[:, None] * (box[:, None, 2:] - box[:, None, :2])
            on = ((point >= whole[:, None, :2]) & (point < whole[:, None, 2:])).movedim(-1, 0)
            mask = seen[:, :, REGIONS.index(region)].transpose(1, 2).bool()
            found.append(mask & on[0][:, None, :] & on[1][:, :, None])
        return torch.stack(found, dim=1)

    def _boxes(self, points: Tensor, whole: Tensor) -> Tensor:
        """What is stretched to the crop: (B, R, 4), or (B, 1, 4) where all regions share it."""
        if self.layout == "tight":
            return _pick(region_boxes(points), self._resized)
        return (context_box(points) if self.layout == "context" else whole)[:, None]

    def _taps(self, boxes: Tensor, extent: Tensor, width: int, height: int) -> tuple[Taps, Taps]:
        """Which pixels make each crop's, along x and along y; boxes are (B, R or 1, 4)."""
        start, length = (side.flatten(0, 1) for side in (boxes[..., :2], boxes[..., 2:]))
        length = length - start
        extent = extent[:, None].expand(-1, boxes.shape[1], -1).flatten(0, 1)
        taps = nearest_taps if self.resample == "nearest" else box_taps
        across = taps(start[:, 0], length[:, 0], width, self.size, extent[:, 0])
        index, weight = taps(start[:, 1], length[:, 1], height, self.size, extent[:, 1])
        return across, (index, weight / 255)

    def _crop(
        self, image: Tensor, shape: Outlines, corner: Tensor, taps: tuple[Taps, Taps]
    ) -> Tensor:
        """Returns (B, R, 3, S, S); all regions are resized at once where one box has all."""
        batch, _, height, width = image.shape
        parts = part_masks(shape, width, height, corner)
        masks = parts
        if self.layout == "context":
            masks = torch.ones_like(parts[:, :, :1])
        elif self._resized != PARTS:
            masks = torch.cat([_mask(parts, region) for region in self._resized], dim=2)
        tight = self.layout == "tight"
        axis = 1 if tight else 2
        picture = image.permute(0, 3, 1, 2).contiguous().unsqueeze(axis)
        masks = masks.unsqueeze(3).movedim(2, axis)
        table = (picture * masks).flatten(0, 1) if tight else (picture * masks).flatten(2, 3)
        table = table.to(torch.float32, memory_format=torch.contiguous_format)
        crops = resample_boxes(table, *taps)
        crops = crops.view(batch, len(self._resized), 3, self.size, self.size)
        if self.regions != self._resized:
            own = [
                crops[:, self._resized.index(each)] if each in self._resized else crops.sum(dim=1)
                for each in self.regions
            ]
            crops = torch.stack(own, dim=1)
        return crops.clamp(0, 1)


def segment(image: Tensor, landmarks: Tensor) -> dict[Region, Tensor]:
    """The region images of one face (3, H, W) at native size, as the original publishes them.

    For each region (3, h, w) uint8: the face's :func:`canvas`, black outside the region and outside
    the image.

    Raises:
        UsageError: The landmarks are not finite, or less than ``MIN_SEEN`` of the canvas lies in
            the image.
    """
    check_faces(image[None], landmarks[None])
    points, finite = tame(landmarks[None])
    points, origin = centred(points)
    height, width = image.shape[1:]
    x0, y0, x1, y1 = (int(value) for value in shifted(canvas(points), origin)[0])
    left, top, right, bottom = max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)
    seen = max(right - left, 0) * max(bottom - top, 0)
    if not finite or seen < MIN_SEEN * (x1 - x0) * (y1 - y0):
        raise UsageError(
            f"no face at these landmarks: they span x {x0} to {x1}, y {y0} to {y1} "
            f"of an image of {width} x {height}",
            "landmarks are 68 points in pixels of this image",
        )
    corner = torch.tensor([[left, top]]) - origin
    masks = part_masks(outlines(points), right - left, bottom - top, corner)
    picture = image[:, top:bottom, left:right]
    edges = (left - x0, x1 - right, top - y0, y1 - bottom)
    cut = {region: picture * _mask(masks, region)[0, :, 0].T for region in REGIONS}
    return {region: functional.pad(pixels, edges) for region, pixels in cut.items()}


def resize(image: Tensor, size: int, resample: Resample = "bilinear") -> Tensor:
    """Stretches images, (B, 3, H, W) uint8 or floating point in [0, 1], to squares of float32."""
    scaled = image.float() if image.is_floating_point() else image.float() / 255
    if resample == "nearest":
        for axis in (-1, -2):
            side = torch.tensor([scaled.shape[axis]], device=image.device)
            index, _ = nearest_taps(torch.zeros_like(side), side, scaled.shape[axis], size, side)
            scaled = scaled.index_select(axis, index.flatten())
        return scaled
    resized = functional.interpolate(scaled, (size, size), mode="bilinear", antialias=True)
    return resized.clamp(0, 1)


def check_faces(image: Tensor, landmarks: Tensor) -> None:
    """Raises ValueError where shapes or types are not (B, 3, H, W) uint8 and (B, 68, 2)."""
    if image.dtype != torch.uint8 or image.ndim != 4 or image.shape[1] != 3:
        raise ValueError(f"image must be (B, 3, H, W) uint8, not {[*image.shape]} {image.dtype}")
    if landmarks.shape[1:] != (NUM_LANDMARKS, 2) or landmarks.shape[0] != image.shape[0]:
        raise ValueError(f"landmarks must be ({image.shape[0]}, 68, 2), not {[*landmarks.shape]}")


def full_extent(image: Tensor) -> Tensor:
    """The extent (B, 2), width and height, of pictures (B, 3, H, W) without padding."""
    batch, _, height, width = image.shape
    if torch.compiler.is_exporting():  # sizes are not numbers yet
        sides = [torch.full((batch,), side, dtype=torch.int64) for side in (width, height)]
        return torch.stack(sides, dim=1)
    return torch.tensor([width, height], device=image.device).expand(batch, -1)


def tame(landmarks: Tensor) -> tuple[Tensor, Tensor]:
    """Landmarks that no arithmetic can make infinite, and which faces needed no change, (B,)."""
    landmarks = landmarks.detach().float()
    tame = landmarks.nan_to_num(0.0).clamp(-_FAR, _FAR)
    return tame, (tame == landmarks).flatten(1).all(dim=1)


def centred(points: Tensor) -> tuple[Tensor, Tensor]:
    """Landmarks (B, 68, 2) less the pixel of the tip of each nose, and that pixel, (B, 2) int64.

    How coordinates are rounded then does not depend on where on its picture a face lies.
    """
    origin = points[:, 30].floor()
    return points - origin[:, None], origin.long()


def shifted(boxes: Tensor, origin: Tensor) -> Tensor:
    """Returns boxes, (B, 4) or (B, R, 4), moved by (B, 2)."""
    by = torch.cat((origin, origin), dim=1)
    return boxes + (by if boxes.ndim == 2 else by[:, None])


def window(extent: Tensor, origin: Tensor) -> Tensor:
    """Returns boxes (B, 4) of the pictures, seen from each face's origin."""
    return torch.cat((-origin, extent - origin), dim=1)


def _pick(values: Tensor, regions: Sequence[Region]) -> Tensor:
    """(B, 5, ...) of ``REGIONS`` -> (B, R, ...); indexing with a list would wait for the device."""
    return torch.stack([values[:, REGIONS.index(region)] for region in regions], dim=1)


def _mask(parts: Tensor, region: Region) -> Tensor:
    """(B, W, 4, H) of ``PARTS`` -> (B, W, 1, H)."""
    if region is Region.ENTIRE:
        return whole_mask(parts)
    index = PARTS.index(region)
    return parts[:, :, index : index + 1]


def _areas(outline: Outlines, whole: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
    """Area inside the image in pixels, and share of the area inside, both (B, R) of REGIONS."""
    # Counted on a grid, as the host does not know the canvas's size, nor all of it has pixels.
    masks, seen = canvas_masks(outline, whole, inside, _GRID)
    total, visible = (part.float().sum(dim=(1, 3)) for part in (masks, seen))
    pixel = (whole[:, 2:] - whole[:, :2])[:, None].float().prod(dim=-1) / _GRID**2
    return visible * pixel, visible / total.clamp(min=1)


def canvas_masks(
    outline: Outlines, whole: Tensor, window: Tensor, grid: int
) -> tuple[Tensor, Tensor]:
    """Where regions lie on a grid of points over faces' canvases (B, 4), as if stretched to it.

    Masks of ``REGIONS``, and of what is inside the images, which are at ``window`` (B, 4), both
    (B, grid, R, grid) uint8, transposed.
    """
    origin, side = whole[:, None, :2].float(), (whole[:, None, 2:] - whole[:, None, :2]).float()
    scaled = Outlines(*((part - origin + 0.5) * (grid / side) - 0.5 for part in outline))
    parts = part_masks(scaled, grid, grid)
    masks = torch.cat([_mask(parts, region) for region in REGIONS], dim=2)
    step = torch.arange(grid, device=whole.device)[:, None] + 0.5
    point = origin + step * (side / grid) - 0.5  # (B, grid, 2)
    low, high = (window[:, None].float() - 0.5).split_with_sizes([2, 2], dim=-1)
    inside = ((point >= low) & (point < high)).movedim(-1, 0)
    return masks, masks * (inside[0][:, :, None] & inside[1][:, None, :])[:, :, None]
