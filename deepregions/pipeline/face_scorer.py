"""Faces to scores by PyTorch: quality gates, networks and fusion over batches of face patches."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from deepregions.errors import UsageError
from deepregions.faces.gates import judge
from deepregions.faces.judgement import HostJudgement, HostQuality
from deepregions.faces.quality import measure
from deepregions.faces.thresholds import Gates
from deepregions.pipeline.results import FacePatch
from deepregions.pipeline.scorer import Answers, PatchScorer, Seen, face_inputs, with_seen
from deepregions.pixels.tensors import as_tensor
from deepregions.system import System, SystemOutput
from deepregions.types import Region


class FaceScorer(PatchScorer):
    """Scores faces by a system on a device."""

    def __init__(self, system: System, gates: Gates, device: torch.device) -> None:
        super().__init__(gates)
        if device.type == "cpu":  # on a GPU this gains little; members stay as they are, on the CPU
            system.detectors = nn.ModuleList(each.detector.folded() for each in system.members)
        # Weights by pixel: 1.1 to 1.7 times as fast in float32 on a CPU, more in half precision.
        self.system = system.to(device).to(memory_format=torch.channels_last)
        self.rows, self.regions, self.cells = system.rows, system.regions, system.cells
        self.device = device

    @torch.inference_mode()
    def answer(self, faces: Sequence[FacePatch], *, pictures: bool) -> Answers:
        """See :meth:`PatchScorer.answer`."""
        given = face_inputs(faces, self.system.cuts)
        image, landmarks, extent, scale, confidence = (
            torch.from_numpy(given[name]).to(self.device)
            for name in ("image", "landmarks", "extent", "scale", "confidence")
        )
        quality = measure(image, landmarks, scale=scale, extent=extent, confidence=confidence)
        judged = judge(quality, self.gates)
        crops, present = self.system.crops(image, landmarks, extent, judged.regions)
        output = self.system.score(crops, present)
        seen = self._seen(crops, self.system.regions) if pictures else None
        return _on_host(output, quality.map(_array), judged.map(_array), seen)

    @torch.inference_mode()
    def answer_canvas(self, image: NDArray[np.uint8], region: Region) -> Answers:
        """See :meth:`PatchScorer.answer_canvas`."""
        return _on_host(self.system.forward_segmented(self._one(image), region))

    @torch.inference_mode()
    def with_crops(self, face: FacePatch, region: Region = Region.ENTIRE) -> FacePatch:
        """See :meth:`PatchScorer.with_crops`."""
        if face.landmarks is None:
            regions: Sequence[Region] = (region,)
            crops, _ = self.system.segmented_crops(self._one(face.image), region)
        else:
            regions = self.system.regions
            landmarks = torch.from_numpy(face.landmarks)[None].to(self.device)
            crops, _ = self.system.crops(self._one(face.image), landmarks)
        return with_seen([face], self._seen(crops, regions))[0]

    def free(self) -> None:
        """See :meth:`PatchScorer.free`."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _one(self, image: NDArray[np.uint8]) -> Tensor:
        return as_tensor(image)[None].to(self.device)

    def _seen(self, crops: Sequence[Tensor], regions: Sequence[Region]) -> Seen:
        by_cut = self.system.by_cut(crops)
        seen = {}
        for each in regions:
            for cut in self.system.cuts:
                users = tuple(
                    self.rows[row]
                    for member, (row, _) in zip(self.system.members, self.cells, strict=True)
                    if (member.cut, member.region) == (cut, each)
                )
                if users:
                    pixels = (by_cut[cut, each].clamp(0, 1) * 255).round().to(torch.uint8)
                    seen[each, users] = _array(pixels.permute(0, 2, 3, 1))
        return seen


def system_of(scorer: PatchScorer) -> System:
    """Returns the networks of a scorer as modules, to look into them.

    Raises:
        UsageError: They were exported.
    """
    if not isinstance(scorer, FaceScorer):
        raise UsageError(
            "an exported file does not show where its networks look",
            "give the folder of the bundle that it was made of",
        )
    return scorer.system


def _array(values: Tensor) -> NDArray[Any]:
    found: NDArray[Any] = values.cpu().numpy()
    return found


def _on_host(
    output: SystemOutput,
    quality: HostQuality | None = None,
    judged: HostJudgement | None = None,
    seen: Seen | None = None,
) -> Answers:
    logits, valid, present, fused = (each.cpu().numpy() for each in output)
    return Answers(logits, valid, present, fused, quality, judged, seen)
