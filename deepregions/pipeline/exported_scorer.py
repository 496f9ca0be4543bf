"""Faces to scores by an exported file: the same as by PyTorch, without it."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepregions.deploy.exported import ExportedSystem
from deepregions.deploy.runtimes import Arrays
from deepregions.faces.judgement import Judgement, Quality
from deepregions.faces.thresholds import Gates
from deepregions.pipeline.results import FacePatch
from deepregions.pipeline.scorer import Answers, PatchScorer, Seen, face_inputs, with_seen
from deepregions.types import Region


class ExportedScorer(PatchScorer):
    """Scores faces by a system that was exported."""

    def __init__(self, system: ExportedSystem, gates: Gates) -> None:
        super().__init__(gates)
        self.system = system
        self.rows, self.regions, self.cells = system.rows, system.regions, system.cells
        self._threads = ThreadPoolExecutor(system.runtime.at_once)

    def answer(self, faces: Sequence[FacePatch], *, pictures: bool) -> Answers:
        """See :meth:`PatchScorer.answer`."""
        # One by one: more at once take more memory, are hardly faster, and are padded.
        parts = list(self._threads.map(partial(self._answer, pictures=pictures), faces))
        whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        return Answers(
            whole["logits"],
            whole["valid"],
            whole["present"],
            whole["fused"],
            Quality(*(whole[f"quality_{one.name}"] for one in fields(Quality))),
            Judgement(*(whole[f"judged_{one.name}"] for one in fields(Judgement))),
            self._seen(whole) if pictures else None,
        )

    def _answer(self, face: FacePatch, *, pictures: bool) -> Arrays:
        given = face_inputs([face], self.system.cuts)
        answers = self.system.run(given, self.gates, pictures=pictures)
        return answers | {"quality_confidence": given["confidence"]}

    def with_crops(
        self,
        face: FacePatch,
        region: Region = Region.ENTIRE,  # noqa: ARG002 - of canvases, which it has none of
    ) -> FacePatch:
        """See :meth:`PatchScorer.with_crops`."""
        seen = self.answer([face], pictures=True).seen
        return face if seen is None else with_seen([face], seen)[0]

    def _seen(self, answers: dict[str, NDArray[Any]]) -> Seen:
        seen = {}
        for number, (cut, regions) in enumerate(self.system.cuts.items()):
            for place, region in enumerate(regions):
                users = tuple(
                    each.detector
                    for each in self.system.networks
                    if (each.cut, each.region) == (cut, region)
                )
                seen[region, users] = answers[f"seen_{number}"][:, place]
        return seen
