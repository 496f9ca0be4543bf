"""What a training step takes, and the wait for data: ``python benchmarks/training.py STORE``.

The whole way of ``deepregions fit``: worker processes decode, the device alters, forges and crops,
and each detector learns. A step's time is the median of those after the first; the wait is the
share of these steps' time in which nothing but the next batch's decoding was waited for. With
``--plain true``, float32 and torch's own layout and memory: what ``fit`` does on CPUs left out.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

import torch
from jsonargparse import auto_cli
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.profilers import SimpleProfiler

from deepregions.data.datamodule import RegionDataModule
from deepregions.detectors import DSPFWA, Backbone, Capsule, Xception
from deepregions.detectors.training import DetectorTraining
from deepregions.memory import keep_freed

_NEXT = "[_TrainingEpochLoop].train_dataloader_next"
_FIRST = 3  # steps that do not count: kernels are chosen, workers start


_DETECTORS = {"backbone": Backbone, "xception": Xception, "dsp-fwa": DSPFWA, "capsule": Capsule}


class _Plain(DetectorTraining):
    """Trains as Lightning would by itself."""

    def on_fit_start(self) -> None:
        """Changes nothing."""


class _Clock(SimpleProfiler):
    """Knows when each step ended, and how long its batch was waited for."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device = device
        self.ends: list[float] = []

    def summary(self) -> str:
        """Nothing: :func:`main` tells what matters."""
        return ""

    def stop(self, action_name: str) -> None:
        super().stop(action_name)
        if action_name == "run_training_batch":
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            self.ends.append(time.perf_counter())


def main(
    store: Path,
    *,
    size: int = 200,
    batch: int = 32,
    steps: int = 20,
    workers: int = 2,
    precision: str = "bf16-mixed",
    device: str = "cpu",
    forge: bool = True,
    detectors: list[str] = [*_DETECTORS],  # noqa: B006 - read only
    plain: bool = False,
) -> None:
    """Prints images a second of each detector's training, and the share of waiting.

    Args:
        store: Faces; genuine ones are enough where fakes are made of them.
        size: Side of the crops.
        batch: Faces a step.
        steps: How many are measured.
        workers: Processes that decode.
        precision: Lightning's.
        device: cpu or cuda.
        forge: Make fakes on the way.
        detectors: Which of backbone (EfficientNet-Lite0), xception, dsp-fwa and capsule.
        plain: See above.
    """
    place = torch.device(device)
    if not plain:
        keep_freed()
    training = _Plain if plain else DetectorTraining
    precision = "32-true" if plain else precision
    for kind in (_DETECTORS[name] for name in detectors):
        data = RegionDataModule(
            str(store), size=size, batch_size=batch, workers=workers, forge=forge
        )
        network = training(kind(size))
        clock = _train(network, data, steps + _FIRST, precision, place)
        waits = clock.recorded_durations[_NEXT][_FIRST : steps + _FIRST]
        spans = [b - a for a, b in zip(clock.ends[_FIRST - 1 :], clock.ends[_FIRST:], strict=False)]
        rate = batch / statistics.median(spans)
        share = sum(waits) / sum(spans)
        name = network.detector.name
        print(f"{name:22} {rate:7.1f} images/s, {share:6.2%} of the time waiting for data")


def _train(
    network: LightningModule,
    data: RegionDataModule,
    steps: int,
    precision: Any,
    device: torch.device,
) -> _Clock:
    clock = _Clock(device)
    Trainer(
        accelerator="gpu" if device.type == "cuda" else "cpu",
        devices=1,
        max_steps=steps,
        precision=precision,
        profiler=clock,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    ).fit(network, data)
    return clock


if __name__ == "__main__":
    auto_cli(main)
