"""How long a study takes, and how much disk: from one measured step of each network here."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import yaml

import deepregions.detectors
from deepregions.data.store import FaceStore
from deepregions.devices import choose_device
from deepregions.errors import StoreError, UsageError
from deepregions.media import find_media, is_video
from deepregions.people import FRACTIONS
from deepregions.study.plan import DatabasePlan, DetectorPlan, Plan, Step

_PREPARED_PER_SECOND = 25.0  # faces on two cores: see benchmarks/prepare.py
_FORGED_PER_SECOND = 90.0  # and encoded, on two cores; measured on the shared photographs
_START = 10.0  # seconds of a training's process: imports, and the best epoch validated again
_FRAMES = 32  # of a video, by default
_BATCH = 16
_FACE_BYTES = 60_000  # with its margin, as JPEG of quality 95; of the shared photographs
_SCORE_BYTES = 60  # a face and network, compressed
_CHECKPOINTS = 6  # weights, and twice the optimizer's, of the best and of the last epoch


@dataclass(frozen=True)
class Estimate:
    """What a kind of step takes.

    Attributes:
        seconds: On one device of this machine.
        size: Bytes on disk.
    """

    seconds: float
    size: float

    def __add__(self, other: Estimate) -> Estimate:
        return Estimate(self.seconds + other.seconds, self.size + other.size)


def estimates(plan: Plan, steps: Sequence[Step]) -> dict[str, Estimate]:
    """Estimates each step by name.

    Raises:
        UsageError: A root is not there, or a config is refused; the message is ``fit``'s own.
    """
    configs = {detector.title: _config(detector) for detector in plan.detectors}
    estimator = Estimator(plan, configs)
    databases = {each.title: each for each in plan.databases}
    detectors = {each.title: each for each in plan.detectors}
    found = {}
    for step in steps:
        what, *rest = step.name.split("/")
        if what == "prepare":
            found[step.name] = estimator.prepare(databases[rest[0]])
        elif what == "forge":
            found[step.name] = estimator.forge(databases[rest[0]])
        elif what == "fit":
            detector = detectors[rest[2].rpartition("-")[0]]
            found[step.name] = estimator.fit(databases[rest[1]], detector)
        else:
            found[step.name] = estimator.evaluate()
    return found


def _config(detector: DetectorPlan) -> str:
    """What ``fit`` makes of a detector's configs."""
    command = [sys.executable, "-m", "deepregions", "fit"]
    for config in detector.config:
        command += ["--config", config]
    command += ["--data.store", "store", *detector.options, "--print_config"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it cannot be read"])[-1]
        message = last.removeprefix("deepregions: ").removeprefix("error: ")
        raise UsageError(f"the detector {detector.title}: {message}", "see its config in the plan")
    return done.stdout


class Estimator:
    """Estimates the steps of a plan.

    Args:
        plan: The study.
        configs: Of each detector, by title, what ``deepregions fit --print_config`` says.
    """

    def __init__(self, plan: Plan, configs: Mapping[str, str]) -> None:
        self._plan = plan
        self._configs = {title: yaml.safe_load(text) for title, text in configs.items()}

    def prepare(self, database: DatabasePlan) -> Estimate:
        """Decoding, finding and landmarks, at the rate that benchmarks/prepare.py found."""
        faces = self._faces(database)
        return Estimate(faces / _PREPARED_PER_SECOND, faces * _FACE_BYTES)

    def forge(self, database: DatabasePlan) -> Estimate:
        """Encoding the forgeries is most of it."""
        faces = self._faces(database) * (1 + len(database.forge))
        return Estimate(faces / _FORGED_PER_SECOND, faces * _FACE_BYTES)

    def fit(self, database: DatabasePlan, detector: DetectorPlan) -> Estimate:
        """Epochs times faces times the measured time of one, and of forging it."""
        config = self._configs[detector.title]
        forged = bool(config["data"].get("forge"))
        faces = FRACTIONS["train"] * self._faces(database) * (2 if forged else 1)
        faces = float(config["data"].get("faces_per_epoch") or faces)
        cost = _cost(yaml.safe_dump(config["model"]), str(config["trainer"]["precision"]))
        epochs = int(config["trainer"]["max_epochs"] or 1)
        face = cost.training + forged / _FORGED_PER_SECOND
        return Estimate(_START + epochs * faces * face, (1 + _CHECKPOINTS) * cost.weights)

    def evaluate(self) -> Estimate:
        """Every network that was trained for a seed scores every face that was not trained on."""
        plan = self._plan
        held_out = 1 - FRACTIONS["train"]
        faces = sum(held_out * self._faces(each) * (1 + len(each.forge)) for each in plan.databases)
        networks = len(plan.regions) * sum(each.train for each in plan.databases)
        costs = [
            _cost(yaml.safe_dump(each["model"]), str(each["trainer"]["precision"]))
            for each in self._configs.values()
        ]
        seconds = faces * networks * sum(cost.scoring for cost in costs)
        return Estimate(seconds, faces * networks * len(costs) * _SCORE_BYTES)

    def _faces(self, database: DatabasePlan) -> int:
        """How many there are, or will be."""
        try:
            return len(FaceStore(self._plan.out / "stores" / database.title))
        except StoreError:
            pass
        words = dict(pairwise(database.options))
        if database.root is None:
            return int(words.get("--count", "") or 600)
        root = Path(database.root)
        if not root.exists():
            raise UsageError(
                f"{root}, the root of {database.title}, is not there", "change it in the plan"
            )
        files = find_media([root if root.is_dir() else root.parent])
        frames = int(words.get("--frames", "") or _FRAMES)
        return sum(frames if is_video(path) else 1 for path in files)


@dataclass(frozen=True)
class _Cost:
    """Seconds a face, and bytes of weights."""

    training: float
    scoring: float
    weights: float


@cache
def _cost(model: str, precision: str) -> _Cost:
    """Measures a network on this machine as it is trained, with random pictures."""
    described: dict[str, Any] = yaml.safe_load(model)
    name = str(described["class_path"]).rpartition(".")[2]
    make = getattr(deepregions.detectors, name)
    left_out = ("optimizer", "lr_scheduler", "pretrained", "backbone_file")
    settings = {k: v for k, v in described["init_args"].items() if k not in left_out}
    network = make(**settings).train()
    device = choose_device("auto")
    network = network.to(device, memory_format=torch.channels_last)
    kind = torch.bfloat16 if "bf16" in precision else torch.float16
    mixed = torch.autocast(device.type, kind, enabled="16" in precision)
    crops = torch.rand(_BATCH, 3, network.size, network.size, device=device)
    label = torch.arange(_BATCH, device=device) % 2

    def train() -> None:
        with mixed:
            loss = network.losses(crops, label).mean()
        loss.backward()

    def score() -> None:
        with torch.inference_mode():
            network(crops)

    training = _measured(train)
    network.eval()
    weights = sum(each.numel() * each.element_size() for each in network.state_dict().values())
    return _Cost(training / _BATCH, _measured(score) / _BATCH, weights)


def _measured(run: Callable[[], None]) -> float:
    run()
    begun = time.perf_counter()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - begun
