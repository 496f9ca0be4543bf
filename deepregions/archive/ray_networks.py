"""Networks in Ray actors of their own, one for each GPU; others decode, find faces and ask them."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import cycle
from typing import TYPE_CHECKING, Any

from deepregions.errors import DeepregionsError, UnreachableError, require

if TYPE_CHECKING:
    from deepregions.archive.scoring import ScorerFactory
    from deepregions.pipeline.analyser import Analyser
    from deepregions.pipeline.results import FacePatch, FaceResult

_DEATHS = 2  # of networks that work on a file's faces, after which its process gives up too
_BUSY = 60.0  # seconds in which networks begin with faces; then others are asked
_PATIENCE = 600.0  # seconds in which some do
_PAUSE = 0.5  # seconds before others are asked
# That the answer is not worked on before it is known that it is.
_STREAMING = {"num_returns": "streaming", "_generator_backpressure_num_objects": 1}
_FAN = "fan+"  # what the one landmark backend that runs on a GPU is called


class _NetworkActor:
    """What Ray runs in a process of its own, beside a GPU."""

    def __init__(self, make: ScorerFactory) -> None:
        self._make = make

    @cached_property
    def analyser(self) -> Analyser:
        return self._make.analyser()

    def facts(self) -> Mapping[str, Any]:
        return self.analyser.facts

    def ask(self, method: str, given: Sequence[Any], how: Mapping[str, Any]) -> Iterator[Any]:
        """Says that it begins, so that it is known who is to blame if it ends; then the answer."""
        asked = getattr(self.analyser.scorer, method)
        yield None
        yield asked(*given, **how)


class RemoteNetworks:
    """Stands for a scorer of faces in the process that finds them; asks actors that score."""

    def __init__(self, actors: Sequence[Any], facts: Mapping[str, Any]) -> None:
        self._actors, self.facts = tuple(actors), dict(facts)

    def score(
        self, faces: Sequence[FacePatch | None], *, pictures: bool = False
    ) -> list[FaceResult]:
        """Scores faces as :class:`~deepregions.pipeline.scorer.PatchScorer` does."""
        scored: list[FaceResult] = self._asked("score", faces, pictures=pictures)
        return scored

    def with_crops(self, face: FacePatch) -> FacePatch:
        """Returns a face with what the networks see of it."""
        seen: FacePatch = self._asked("with_crops", face)
        return seen

    def _asked(self, method: str, *given: Any, **how: Any) -> Any:
        """Asks one actor after the other until one answers; each that ends is started again."""
        ray: Any = require("ray", "ray")
        deaths, since = 0, time.monotonic()
        for actor in cycle(random.sample(self._actors, len(self._actors))):
            if time.monotonic() - since > _PATIENCE:
                break
            stream, begun = actor.ask.options(**_STREAMING).remote(method, given, how), False
            try:
                if ray.wait([stream], timeout=_BUSY)[0]:
                    ray.get(next(stream))
                    begun = True
                    return ray.get(next(stream))
            except ray.exceptions.RayTaskError as error:
                raise error.cause from error
            except ray.exceptions.RayError:  # its process or its node has ended
                deaths += begun
                since = time.monotonic() if begun else since
                if deaths == _DEATHS:
                    raise RuntimeError("the networks' processes end of its faces") from None
                time.sleep(_PAUSE)
        raise UnreachableError("no GPU's networks answer", "the same command goes on")


class RayNetworks:
    """Starts the actors that run networks."""

    def __init__(self, make: ScorerFactory) -> None:
        self._make = make

    def start(self, ray: Any, gpus: int) -> ScorerFactory | None:
        """Returns what makes scorers that ask actors; None where finding faces needs GPUs too.

        Raises:
            DeepregionsError: The networks cannot be loaded.
        """
        made = ray.remote(_NetworkActor).options(num_cpus=0, num_gpus=1, max_restarts=-1)
        actors = [made.remote(self._make)]
        try:
            facts = ray.get(actors[0].facts.remote())
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, DeepregionsError):
                raise error.cause from error
            raise
        except ray.exceptions.RayError as error:
            raise DeepregionsError("networks do not start (their process ends)") from error
        if facts["landmarks"]["name"].startswith(_FAN):
            ray.kill(actors[0])
            return None
        settled = replace(self._make, runtime=facts["runtime"])  # what is fastest holds for all
        actors += [made.remote(settled) for _ in range(1, gpus)]
        return replace(settled, networks=RemoteNetworks(actors, facts))
