"""Batches of region crops from a face store: bytes go to the device, the rest is done there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from deepregions.data.augment import Augmenter, Strengths
from deepregions.data.sampling import BalancedSampler, PairSampler
from deepregions.data.store import FaceStore, decode_image
from deepregions.errors import UsageError
from deepregions.faces.cropping import RegionCropper
from deepregions.forge.online import ForgeConfig, OnlineForger
from deepregions.people import Numbers
from deepregions.pixels.face_rng import FaceRng, seeds_of
from deepregions.pixels.tensors import stack
from deepregions.types import (
    BONA_FIDE,
    FAKE,
    ORIGINAL,
    REGIONS,
    FaceBatch,
    Layout,
    Region,
    RegionBatch,
)

ALL = "all"


class StoredFaces(Dataset[dict[str, Any]]):
    """The faces of some rows of a store, decoded, as :func:`collate` takes them.

    ``persons`` has numbers of who is in all rows; by default those of videos.
    """

    def __init__(self, store: FaceStore, rows: Numbers, persons: Numbers | None = None) -> None:
        self.store = store
        self.rows = rows
        self._videos = store.videos[rows]
        self._persons = self._videos if persons is None else persons[rows]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, position: int) -> dict[str, Any]:
        row = int(self.rows[position])
        face = self.store[row]
        region = face.method.partition(":")[2]  # of a fake that is confined to one: METHOD:REGION
        forged = (Region.ENTIRE, region) if region in tuple(REGIONS) else REGIONS
        return {
            "image": decode_image(face.image),
            "landmarks": face.landmarks,
            "label": face.label,
            "video": self._videos[position],
            "index": row,
            "key": face.key,
            "person": self._persons[position],
            "region_label": [face.label * (each in forged) for each in REGIONS],
            "method": face.method,
        }


_NUMBERS = ("landmarks", "label", "video", "index", "person", "region_label")


def collate(faces: Sequence[Mapping[str, Any]]) -> FaceBatch:
    """Returns faces as one batch, smaller ones padded with black right and below."""
    image, extent = stack([face["image"] for face in faces])
    numbers = {name: np.stack([face[name] for face in faces]) for name in _NUMBERS}
    return FaceBatch(
        image=image,
        extent=extent,
        key=tuple(face["key"] for face in faces),
        method=tuple(face["method"] for face in faces),
        **{name: torch.from_numpy(values) for name, values in numbers.items()},
    )


class RegionDataModule(LightningDataModule):
    """Trains, validates and tests on a face store.

    Worker processes decode JPEG bytes to uint8 images; these go to the device, where training
    faces are altered at random and every face is cut into regions.

    Args:
        store: The store's folder; or several, which are trained on together.
        region: One region, or ``"all"`` five: ``RegionBatch.crops`` has R = 1 or 5.
        size: Side of the crops in pixels: the detector's.
        layout: See :class:`deepregions.faces.cropping.RegionCropper`.
        batch_size: Faces a batch, on each device, twins included in training.
        workers: Processes that read and decode, for each device; 0 is the training process.
        augment: How training faces are altered; ``false`` leaves them as they are, ``true`` is the
            default strengths.
        forge: Make fakes of genuine faces, on the device: each face of a batch then comes with its
            forged twin, and the store needs no fakes. Faces for validation and tests are forged
            once by each method, always in the same way.
        balanced: Train on as many genuine as fake faces, instead of on each face once an epoch.
        paired: Balanced, each fake of the same person as the genuine face before it; where the
            store has none, ``forge`` makes one.
        alter_in_workers: Alter, forge and cut training faces in the worker processes, not on the
            device: for training on CPUs, where a network leaves a core idle.
        faces_per_epoch: How many faces an epoch draws if balanced; as many as there are by default.
        seed: Random seed of the order of training faces and of forgeries.

    ``region``, ``size`` and ``layout`` are attributes too, and ``forging``, which is None where no
    fakes are made.

    Raises:
        UsageError: A misspelt region or layout, or a number that makes no sense.
    """

    def __init__(
        self,
        store: str | list[str],
        region: str = "entire",
        *,
        size: int = 200,
        layout: Layout = "masked",
        batch_size: int = 32,
        workers: int = 2,
        augment: Strengths | bool = True,
        forge: ForgeConfig | bool = False,
        balanced: bool = True,
        paired: bool = False,
        alter_in_workers: bool = False,
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
        self._paths = [store] if isinstance(store, str) else store
        self._path = ", ".join(self._paths)
        self._batch_size = batch_size
        self._workers = workers
        self._balanced = balanced
        self._paired = paired
        self._alter_in_workers = alter_in_workers
        self._faces_per_epoch = faces_per_epoch
        self._seed = seed
        regions = REGIONS if region == ALL else (Region(region),)
        self._cropper = RegionCropper(size, regions, layout)
        strengths = Strengths() if augment is True else augment
        self._augmenter = Augmenter(strengths) if strengths is not False else None
        self.forging = (ForgeConfig() if forge is True else forge) or None

    @cached_property
    def store(self) -> FaceStore:
        """The store, opened; several as one."""
        return FaceStore(*self._paths)

    def setup(self, stage: Literal["fit", "validate", "test", "predict"] | str) -> None:
        """Checks that the store has what the stage needs.

        Raises:
            UsageError: A split has no faces, or the training split has one class only.
        """
        needed = {"fit": ("train", "val"), "validate": ("val",)}.get(stage, ("test",))
        for split in needed:
            self._rows(split)
        if stage == "fit":
            labels = self.store.labels[self._rows("train")]
            needs_fakes = self.forging is None or self.forging.share < 1
            for label, name in ((BONA_FIDE, "genuine"), (FAKE, "fake"))[: 1 + needs_fakes]:
                if label not in labels:
                    raise UsageError(
                        f"the training split of {self._path} has no {name} faces",
                        "training needs both: prepare a store of genuine and fake clips, or make "
                        "fakes of genuine faces with --data.forge true",
                    )

    def train_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Returns batches of the training split, shuffled; an incomplete last one is left out."""
        faces = self._faces("train")
        size, draws = self._batch_size, self._faces_per_epoch
        if self._forges_all:  # a twin is added to each
            size, draws = max(1, size // 2), draws and max(1, draws // 2)
        labels, ranks = self.store.labels[faces.rows], self._ranks()
        sampler: DistributedSampler[int]
        if self._paired and not self._forges_all:
            persons = self.store.persons[faces.rows]
            sampler = PairSampler(faces, labels, persons, *ranks, draws=draws, seed=self._seed)
        elif self._balanced or self.forging:
            sampler = BalancedSampler(faces, labels, *ranks, draws=draws, seed=self._seed)
        else:
            sampler = DistributedSampler(faces, *ranks, shuffle=True, seed=self._seed)
        if self.trainer is not None:
            # Lightning tells the sampler only after worker processes have drawn from it: where a
            # training is resumed, its first faces would be those of the very first epoch again.
            progress: Any = self.trainer.fit_loop.epoch_progress.current
            sampler.set_epoch(progress.processed)
        loader = self._loader(faces, sampler, size, drop_last=len(sampler) >= size)
        if self._alter_in_workers:
            loader.collate_fn = self._collated_and_cut
        return loader

    def val_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Returns batches of the validation split, in the same order each time."""
        return self._unshuffled(self._faces("val"))

    def test_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Returns batches of the test split, in the same order each time."""
        return self._unshuffled(self._faces("test"))

    def predict_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Returns batches of the test split, in order; nothing is forged."""
        faces = StoredFaces(self.store, np.flatnonzero(self.store.splits == "test"))
        return self._unshuffled(faces)

    def transfer_batch_to_device(
        self,
        batch: FaceBatch | RegionBatch,
        device: torch.device,
        dataloader_idx: int,  # noqa: ARG002
    ) -> FaceBatch | RegionBatch:
        """Sends a batch without waiting for the device."""
        return batch.to(device, non_blocking=True)

    def on_after_batch_transfer(
        self,
        batch: FaceBatch | RegionBatch,
        dataloader_idx: int,  # noqa: ARG002
    ) -> RegionBatch:
        """Alters the faces if the trainer is training, and cuts them into regions, on the device.

        The trainer's state decides, not a module's, which may be in training mode in validation.
        """
        if isinstance(batch, RegionBatch):
            return batch  # a worker process has done it
        trainer = self.trainer
        if trainer is not None and trainer.training:
            return self._altered(batch, trainer.global_step)
        if self.forging is not None and not (trainer is not None and trainer.predicting):
            draws = FaceRng(seeds_of(batch.key, self._seed))
            return self._cut(self._pairing.evaluate(batch, draws), self._pairing.names)
        return self._cut(batch)

    def _collated_and_cut(self, faces: Sequence[Mapping[str, Any]]) -> RegionBatch:
        """Does a worker process's part and the device's: a worker draws its own numbers."""
        return self._altered(collate(faces), int(torch.randint(2**31, ())))

    def _altered(self, batch: FaceBatch, step: int) -> RegionBatch:
        """Training faces, altered, with their forged twins if any, and cut."""
        if self.forging is not None:
            return self._cut(self._forged(batch, step), self._pairing.names)
        if self._augmenter is not None:
            image, landmarks = self._augmenter(batch.image, batch.landmarks, extent=batch.extent)
            batch = replace(batch, image=image, landmarks=landmarks)
        return self._cut(batch)

    def _forged(self, batch: FaceBatch, step: int) -> FaceBatch:
        """A training batch with its forged twins, altered as it is."""
        draws = FaceRng(seeds_of(batch.key, self._seed, step))
        if self._augmenter is None:
            return self._pairing.train(batch, draws)[0]
        extent = batch.extent
        image, landmarks = self._augmenter.move(batch.image, batch.landmarks, draws, extent=extent)
        pairs, rows = self._pairing.train(replace(batch, image=image, landmarks=landmarks), draws)
        image = self._augmenter.degrade(pairs.image, draws[rows], extent=pairs.extent)
        landmarks = self._augmenter.misplace(pairs.landmarks, draws[rows])
        return replace(pairs, image=image, landmarks=landmarks)

    def _cut(self, batch: FaceBatch, methods: tuple[str, ...] = ()) -> RegionBatch:
        cropper = self._cropper.to(batch.image.device)
        crops, valid = cropper(batch.image, batch.landmarks, batch.extent)
        labels = batch.region_label
        if labels is not None and self.region != ALL:
            labels = labels[:, [*REGIONS].index(Region(self.region)), None]
        names = (ORIGINAL, *methods) if methods else ()
        known = [names.index(name) if name in names else len(names) for name in batch.method]
        return RegionBatch(
            crops,
            valid,
            batch.label,
            batch.video,
            batch.index,
            batch.key,
            region_label=labels,
            method=torch.tensor(known).to(crops.device, non_blocking=True) if names else None,
            methods=names,
        )

    @cached_property
    def _pairing(self) -> OnlineForger:
        detail = None if self.layout == "tight" else self.size
        return OnlineForger(self.forging or ForgeConfig(), len(self.store), detail)

    @property
    def _forges_all(self) -> bool:
        return self.forging is not None and self.forging.share == 1

    def _faces(self, split: str) -> StoredFaces:
        """The faces of a split; only genuine ones where all fakes are made of them."""
        rows = self._rows(split)
        if self.forging is None:
            return StoredFaces(self.store, rows)
        # Neighbours are frames of one person, who has nobody to swap faces with.
        rows = np.random.default_rng(self._seed).permutation(rows)
        return StoredFaces(self.store, rows, self.store.persons)

    def _rows(self, split: str) -> Numbers:
        wanted = self.store.splits == split
        if self._forges_all:
            wanted &= self.store.labels == BONA_FIDE
        rows = np.flatnonzero(wanted)
        if not len(rows):
            kind = "genuine faces" if self._forges_all else "faces"
            raise UsageError(
                f"the store {self._path} has no {kind} in the split {split!r}",
                "prepare more photos or videos: a split is given whole people only",
            )
        return rows

    def _ranks(self) -> tuple[int, int]:
        """How many there are, and which this is."""
        return (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)

    def _unshuffled(self, faces: StoredFaces) -> DataLoader[dict[str, Any]]:
        # Several ranks repeat a few faces to be equally long: metrics know them by their index.
        sampler: DistributedSampler[int] = DistributedSampler(faces, *self._ranks(), shuffle=False)
        return self._loader(faces, sampler, self._batch_size)

    def _loader(
        self,
        faces: StoredFaces,
        sampler: DistributedSampler[int],
        batch_size: int,
        drop_last: bool = False,
    ) -> DataLoader[dict[str, Any]]:
        return DataLoader(
            faces,
            batch_size=batch_size,  # by name: to predict, Lightning makes the loader again
            sampler=sampler,
            num_workers=self._workers,
            collate_fn=collate,
            drop_last=drop_last,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=self._workers > 0,
        )
