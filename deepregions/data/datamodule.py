"""Batches of region crops from a face store: bytes go to the device, the rest is done there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from deepregions.data.augment import Augmenter, Strengths
from deepregions.data.store import FaceStore, decode_image
from deepregions.errors import UsageError
from deepregions.faces.cropping import Layout, RegionCropper
from deepregions.faces.patches import stack
from deepregions.types import BONA_FIDE, FAKE, REGIONS, FaceBatch, Region, RegionBatch

ALL = "all"


@dataclass(frozen=True)
class Face:
    """One face of a store, decoded: fields as in :class:`deepregions.types.FaceBatch`."""

    image: Tensor
    landmarks: Tensor
    label: int
    video: int
    index: int
    key: str


class StoredFaces(Dataset[Face]):
    """The faces of some rows of a store.

    Args:
        store: The store.
        rows: (N,) which rows.
    """

    def __init__(self, store: FaceStore, rows: npt.NDArray[np.int64]) -> None:
        self.store = store
        self.rows = rows
        self._videos = store.videos[rows]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, position: int) -> Face:
        row = int(self.rows[position])
        face = self.store[row]
        landmarks = torch.from_numpy(face.landmarks)
        video = int(self._videos[position])
        return Face(decode_image(face.image), landmarks, face.label, video, row, face.key)


def collate(faces: Sequence[Face]) -> FaceBatch:
    """Returns faces as one batch, smaller ones padded with black right and below."""
    return FaceBatch(
        image=stack([face.image for face in faces]),
        landmarks=torch.stack([face.landmarks for face in faces]),
        label=torch.tensor([face.label for face in faces]),
        video=torch.tensor([face.video for face in faces]),
        index=torch.tensor([face.index for face in faces]),
        key=tuple(face.key for face in faces),
    )


class BalancedSampler(DistributedSampler[int]):
    """Draws as many genuine as fake faces, the same on every rank but for the share that it takes.

    An epoch goes through each class in random order, again from the start when it is used up. A
    genuine and a fake face follow each other, so batches of even size are balanced too; ranks take
    turns by such pairs, so no draw is made on two of them.

    Args:
        dataset: What the positions are of.
        labels: (N,) the label of each position; both classes must be there.
        num_replicas: How many ranks.
        rank: Which of them this is.
        draws: How many faces an epoch has over all ranks; as many as there are by default. What
            does not divide into a pair per rank is left out.
        seed: Another seed gives another order.
    """

    def __init__(
        self,
        dataset: Dataset[Face],
        labels: npt.NDArray[np.int64],
        num_replicas: int = 1,
        rank: int = 0,
        *,
        draws: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(dataset, num_replicas, rank, shuffle=True, seed=seed)
        self._classes = [np.flatnonzero(labels == label) for label in (BONA_FIDE, FAKE)]
        wanted = len(labels) if draws is None else draws
        self._pairs = max(1, wanted // (2 * num_replicas))  # of this rank
        self.num_samples = 2 * self._pairs
        self.total_size = self.num_samples * num_replicas

    def __iter__(self) -> Iterator[int]:
        generator = np.random.default_rng([self.seed, self.epoch])
        pairs = np.stack([self._draw(rows, generator) for rows in self._classes], 1)
        return iter(pairs[self.rank :: self.num_replicas].ravel().tolist())

    def _draw(
        self, rows: npt.NDArray[np.int64], generator: np.random.Generator
    ) -> npt.NDArray[np.int64]:
        count = self._pairs * self.num_replicas
        rounds = -(-count // len(rows))
        return np.concatenate([generator.permutation(rows) for _ in range(rounds)])[:count]


class RegionDataModule(LightningDataModule):
    """Trains, validates and tests on a face store.

    Worker processes decode JPEG bytes to uint8 images; these go to the device, where training
    faces are altered at random and every face is cut into regions.

    Args:
        store: The store's folder.
        region: One region, or ``"all"`` five: ``RegionBatch.crops`` has R = 1 or 5.
        size: Side of the crops in pixels: the detector's.
        layout: See :class:`deepregions.faces.cropping.RegionCropper`.
        batch_size: Faces a batch, on each device.
        workers: Processes that read and decode, for each device; 0 is the training process.
        augment: How training faces are altered; ``false`` leaves them as they are, ``true`` is the
            default strengths.
        balanced: Train on as many genuine as fake faces, instead of on each face once an epoch.
        faces_per_epoch: How many faces an epoch draws if balanced; as many as there are by default.
        seed: Of the order of training faces.

    ``region``, ``size`` and ``layout`` are attributes too.

    Raises:
        UsageError: A misspelt region or layout, or a number that makes no sense.
    """

    def __init__(
        self,
        store: str,
        region: str = "entire",
        *,
        size: int = 200,
        layout: Layout = "masked",
        batch_size: int = 32,
        workers: int = 2,
        augment: Strengths | bool = True,
        balanced: bool = True,
        faces_per_epoch: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if region not in (*REGIONS, ALL):
            raise UsageError(f"unknown region {region!r}", f"one of {', '.join((*REGIONS, ALL))}")
        for name, value, least in (
            ("batch_size", batch_size, 1),
            ("workers", workers, 0),
            ("faces_per_epoch", 2 if faces_per_epoch is None else faces_per_epoch, 2),
        ):
            if value < least:
                raise UsageError(f"{name} must be at least {least}, not {value}")
        self.region = region
        self.size = size
        self.layout = layout
        self._path = store
        self._batch_size = batch_size
        self._workers = workers
        self._balanced = balanced
        self._faces_per_epoch = faces_per_epoch
        self._seed = seed
        regions = REGIONS if region == ALL else (Region(region),)
        self._cropper = RegionCropper(size, regions, layout)
        strengths = Strengths() if augment is True else augment
        self._augmenter = Augmenter(strengths) if strengths is not False else None

    @cached_property
    def store(self) -> FaceStore:
        """The store, opened.

        Raises:
            StoreError: It is missing or broken.
        """
        return FaceStore(self._path)

    def setup(self, stage: Literal["fit", "validate", "test", "predict"] | str) -> None:
        """Checks that the store has what the stage needs.

        Raises:
            StoreError: The store is missing or broken.
            UsageError: A split has no faces, or the training split has one class only.
        """
        needed = {"fit": ("train", "val"), "validate": ("val",)}.get(stage, ("test",))
        for split in needed:
            self._rows(split)
        if stage == "fit":
            labels = self.store.labels[self._rows("train")]
            for label, name in ((BONA_FIDE, "genuine"), (FAKE, "fake")):
                if label not in labels:
                    raise UsageError(
                        f"the training split of {self._path} has no {name} faces",
                        "training needs both: prepare a store of genuine and fake clips",
                    )

    def train_dataloader(self) -> DataLoader[Face]:
        """Returns batches of the training split, shuffled; an incomplete last one is left out."""
        faces = StoredFaces(self.store, self._rows("train"))
        if self._balanced:
            labels = self.store.labels[faces.rows]
            sampler: DistributedSampler[int] = BalancedSampler(
                faces, labels, *self._ranks(), draws=self._faces_per_epoch, seed=self._seed
            )
        else:
            sampler = DistributedSampler(faces, *self._ranks(), shuffle=True, seed=self._seed)
        return self._loader(faces, sampler, drop_last=len(sampler) >= self._batch_size)

    def val_dataloader(self) -> DataLoader[Face]:
        """Returns batches of the validation split, in order."""
        return self._in_order("val")

    def test_dataloader(self) -> DataLoader[Face]:
        """Returns batches of the test split, in order."""
        return self._in_order("test")

    def predict_dataloader(self) -> DataLoader[Face]:
        """Returns batches of the test split, in order."""
        return self._in_order("test")

    def transfer_batch_to_device(
        self,
        batch: FaceBatch,
        device: torch.device,
        dataloader_idx: int,  # noqa: ARG002
    ) -> FaceBatch:
        """Sends a batch without waiting for the device."""
        return batch.to(device, non_blocking=True)

    def on_after_batch_transfer(
        self,
        batch: FaceBatch,
        dataloader_idx: int,  # noqa: ARG002
    ) -> RegionBatch:
        """Alters the faces if the trainer is training, and cuts them into regions, on the device.

        The trainer's state decides, not a module's: a module may be in training mode while the
        trainer validates, and the other way round.
        """
        image, landmarks = batch.image, batch.landmarks
        if self._augmenter is not None and self.trainer is not None and self.trainer.training:
            image, landmarks = self._augmenter.to(image.device)(image, landmarks)
        crops, valid = self._cropper.to(image.device)(image, landmarks)
        return RegionBatch(crops, valid, batch.label, batch.video, batch.index, batch.key)

    def _rows(self, split: str) -> npt.NDArray[np.int64]:
        rows = np.flatnonzero(self.store.splits == split)
        if not len(rows):
            raise UsageError(
                f"the store {self._path} has no faces in the split {split!r}",
                "prepare more photos or videos: a split is given whole people only",
            )
        return rows

    def _ranks(self) -> tuple[int, int]:
        """How many there are, and which this is."""
        return (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)

    def _in_order(self, split: str) -> DataLoader[Face]:
        faces = StoredFaces(self.store, self._rows(split))
        # Several ranks repeat a few faces to be equally long: metrics know them by their index.
        return self._loader(faces, DistributedSampler(faces, *self._ranks(), shuffle=False))

    def _loader(
        self, faces: StoredFaces, sampler: DistributedSampler[int], drop_last: bool = False
    ) -> DataLoader[Face]:
        return DataLoader(
            faces,
            self._batch_size,
            sampler=sampler,
            num_workers=self._workers,
            collate_fn=collate,
            drop_last=drop_last,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=self._workers > 0,
        )
