"""Averages the weights of networks that were trained on from one another; see ``--help``."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import torch

from deepregions.commands.cli import run_program
from deepregions.errors import UsageError
from deepregions.system import TrainedNetwork
from deepregions.weights.bundle import load_bundle, save_bundle


def average_bundles(bundles: list[Path], *, out: Path, half: bool = False) -> int:
    """Writes a bundle whose networks have the mean of the weights of several bundles' networks.

    Fine-tuned from one another, such networks often err less together than any of them, at the
    price of one (model soups, Wortsman et al. 2022). Measure it before you believe it. What the
    bundle says of itself is the last one's; it has no fusion and no calibration, as these would be
    another network's.

    Args:
        bundles: At least two, with the same networks.
        out: The new bundle.
        half: Store the weights in float16.
    """
    if len(bundles) < 2:
        raise UsageError("there is nothing to average", "give at least two bundles")
    loaded = [load_bundle(path) for path in bundles]
    for path, each in zip(bundles[1:], loaded[1:], strict=True):
        if [_kind(member) for member in each] != [_kind(member) for member in loaded[0]]:
            raise UsageError(f"{path} has other networks than {bundles[0]}", "in the same order")
    members = [_mean(several) for several in zip(*loaded, strict=True)]
    facts = replace(loaded[-1].facts, operating_points=(), degradation=(), answers={})
    save_bundle(members, out, facts=facts, half=half)
    sys.stdout.write(f"bundle: {out}\n")
    return 0


def _kind(member: TrainedNetwork) -> tuple[object, ...]:
    settings = sorted(member.detector.settings().items())
    return type(member.detector), settings, member.name, member.cut, member.region


def _mean(members: tuple[TrainedNetwork, ...]) -> TrainedNetwork:
    """The last network with the mean of all weights; its validation was of other weights."""
    states = [member.detector.state_dict() for member in members]
    last = members[-1]
    for name, value in last.detector.state_dict().items():
        if value.is_floating_point():
            value.copy_(torch.stack([state[name].double() for state in states]).mean(0))
    training = {key: value for key, value in last.training.items() if key != "validation"}
    return replace(last, training=training | {"averaged": [member.sha256 for member in members]})


if __name__ == "__main__":
    sys.exit(run_program(average_bundles, sys.argv[1:]))
