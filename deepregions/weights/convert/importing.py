"""Imports other people's checkpoints as bundles; the networks keep their scores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from deepregions.detectors import RegionDetector
from deepregions.detectors.capsule import vgg_trunk
from deepregions.detectors.pretrained import load_backbone
from deepregions.errors import AssetError, UnreadableError, UnsupportedError, UsageError, naming
from deepregions.files import atomic_file, sha256
from deepregions.safe_pickle import read_state_dict
from deepregions.system import TrainedNetwork
from deepregions.weights.bundle import save_bundle
from deepregions.weights.convert.keras import convert_keras
from deepregions.weights.convert.profiles import (
    CADENE,
    PROFILES,
    PROJECTS,
    check_project,
    database_of,
    region_of,
)
from deepregions.weights.convert.recognise import SUFFIXES, Checkpoint, recognise, stem_of
from deepregions.weights.convert.state_dicts import (
    capsule_state_dict,
    dsp_fwa_state_dict,
    stored_vgg,
    xception_backbone,
    xception_state_dict,
)

VGG = "vgg19.tv_in1k"


@dataclass(frozen=True)
class StartingWeights:
    """Weights to start a training from, for ``--model.init_args.backbone_file``.

    The arrays have timm's names; where they are from is JSON values.
    """

    name: str
    state: Mapping[str, Tensor]
    source: Mapping[str, Any]


Imported = TrainedNetwork | StartingWeights


class Importer:
    """Imports checkpoints, one at a time, with what these do not say themselves.

    ``vgg`` is a VGG-19 file (torchvision's or timm's) for Capsule checkpoints, most of which come
    without; by default it is timm's ``vgg19.tv_in1k``. Which class is fake is by default the
    program's own order; region and database are read from the file's name. ``project`` is a key of
    :data:`~deepregions.weights.convert.profiles.PROJECTS`.
    """

    def __init__(
        self,
        *,
        vgg: Path | None = None,
        fake_index: int | None = None,
        region: str | None = None,
        database: str | None = None,
        project: str | None = None,
    ) -> None:
        if fake_index not in (None, 0, 1):
            raise UsageError(f"the fake class cannot be number {fake_index}", "0 or 1")
        check_project(project)
        if vgg is not None and not vgg.is_file():
            raise UsageError(f"{vgg}: no such file", "--vgg names a file of VGG-19's weights")
        self._vgg_file = vgg
        self._fake_index = fake_index
        self._region = None if region is None else region_of(region)
        self._database = None if database is None else database_of(database)
        self._project = project

    def __call__(self, path: Path) -> Imported:
        """Imports a checkpoint, under the name that it was published with.

        Returns:
            A member of a bundle, in eval mode on the CPU; of ImageNet weights a backbone.

        Raises:
            UnreadableError: It is broken, would run code, or lacks an array.
            UnsupportedError: It is none of the known ones, or it could be several.
            AssetError: It needs VGG-19, which cannot be fetched.
        """
        found = recognise(path, self._project)
        with naming(path):
            if found.project == CADENE:
                source = _source(path, found)
                return StartingWeights(stem_of(path), xception_backbone(found.arrays), source)
            return self._member(path, found)

    def _member(self, path: Path, found: Checkpoint) -> TrainedNetwork:
        project, profile = PROJECTS[found.project], PROFILES[found.project, found.detector]
        region = self._region or found.region
        database = self._database or found.database
        if region is None or database is None:
            raise UnsupportedError(
                f"{path}: its name does not say what it was trained on",
                "--region REGION --database DATABASE",
            )
        if profile.layout == "context" and region != "entire":
            raise UsageError(
                f"{path}: {project.title} trains on whole faces",
                "leave --region out, or --project bida if it was trained on the paper's regions",
            )
        fake_index = project.fake_index if self._fake_index is None else self._fake_index
        state, settings, remarks = self._weights(path, found, fake_index)
        detector = profile.detector(**{**profile.settings, **settings})
        _load(detector, state)
        source = _source(path, found, fake_index, [*remarks, *profile.remarks])
        return TrainedNetwork(
            detector=detector.eval(),
            region=region,
            database=database,
            layout=profile.layout,
            training={"source": source},
            resample=profile.resample,
        )

    def _weights(
        self, path: Path, found: Checkpoint, fake_index: int
    ) -> tuple[Mapping[str, Tensor], Mapping[str, Any], Sequence[str]]:
        """Returns weights under the names used here, settings beyond the profile's, and remarks."""
        if found.format == "keras":
            converted = convert_keras(path, fake_index=self._fake_index)
            if converted.fake_index is None:
                raise UnsupportedError(
                    f"{path} has no class for fakes: its head is {converted.head}",
                    "tools/convert_keras.py makes a backbone of it",
                )
            remarks = [f"its last layer is {converted.head}", *converted.notes]
            return converted.state, converted.settings, remarks
        if found.detector == "dsp-fwa":
            bgr = found.project == "dsp-fwa"
            return dsp_fwa_state_dict(found.arrays, fake_index=fake_index, bgr=bgr), {}, ()
        if found.detector == "xception":
            return xception_state_dict(found.arrays, fake_index=fake_index), {}, ()
        remarks = []
        vgg = stored_vgg(found.arrays)
        if not vgg:
            vgg = self._vgg
            name = self._vgg_file.name if self._vgg_file else f"timm, {VGG}"
            remarks.append(f"VGG-19 is from {name}")
        if found.classes > 2:
            remarks.append(
                f"{found.classes} classes: genuine, and kinds of fakes, whose probabilities are "
                "added; the program itself only names the most probable class"
            )
        state = capsule_state_dict(found.arrays, vgg, fake_index=fake_index)
        return state, {"classes": found.classes}, remarks

    @cached_property
    def _vgg(self) -> dict[str, Tensor]:
        """VGG-19's arrays, in torchvision's names; read once."""
        if self._vgg_file is not None:
            return read_state_dict(self._vgg_file)
        trunk = vgg_trunk()
        try:
            load_backbone(trunk, VGG, None, prefix="features.")
        except AssetError as error:
            raise AssetError(
                str(error.args[0]),
                "a Capsule file comes without its VGG-19: have torchvision's as a file, "
                "and name it with --vgg FILE",
            ) from error
        return {f"features.{key}": value for key, value in trunk.state_dict().items()}


def find_checkpoints(sources: Sequence[Path]) -> Iterator[Path]:
    """Yields the files of sources: files as they are, of folders all that look like checkpoints.

    Raises:
        UsageError: There is no such file, or a folder holds no checkpoint.
    """
    for source in sources:
        if source.is_file():
            yield source
            continue
        if not source.is_dir():
            raise UsageError(f"{source}: no such file or folder")
        inside = sorted(each for each in source.rglob("*") if each.is_file())
        files = [each for each in inside if each.name.lower().endswith(SUFFIXES)]
        if not files:
            raise UsageError(f"{source} holds no checkpoint", f"they end in {', '.join(SUFFIXES)}")
        yield from files


def target_of(imported: Imported, folder: Path) -> Path:
    """Returns where :func:`save_imported` writes."""
    ending = ".safetensors" if isinstance(imported, StartingWeights) else ""
    return folder / f"{imported.name}{ending}"


def save_imported(imported: Imported, folder: Path) -> Path:
    """Writes a bundle, or a backbone's file, over an earlier one, and returns its path.

    Raises:
        UsageError: There is something else of its name.
        OSError: It cannot be written.
    """
    path = target_of(imported, folder)
    if isinstance(imported, TrainedNetwork):
        save_bundle([imported], path)
        return path
    if path.is_dir():
        raise UsageError(f"{path} is a folder", "name another folder with --out")
    # Copies: arrays may be views of one storage, which safetensors does not write.
    state = {key: value.clone().contiguous() for key, value in imported.state.items()}
    facts = {key: str(imported.source[key]) for key in ("project", "sha256")}
    with atomic_file(path) as partial:
        partial.write_bytes(save(state, metadata=facts))
    return path


def _source(
    path: Path, found: Checkpoint, fake_index: int | None = None, remarks: Sequence[str] = ()
) -> dict[str, Any]:
    project = PROJECTS[found.project]
    return {
        "file": path.name,
        "sha256": sha256(path),
        "format": found.format,
        "project": project.title,
        "fake_index": fake_index,
        "licence": project.licence,
        "citation": project.citation,
        "remarks": list(remarks),
    }


def _load(detector: RegionDetector, state: Mapping[str, Tensor]) -> None:
    """Loads weights, all of them and nothing else."""
    name = type(detector).__name__
    for key, value in state.items():
        counter = key.endswith("num_batches_tracked")
        if not counter and not (value.is_floating_point() and bool(torch.isfinite(value).all())):
            raise UnreadableError(f"{name}'s array {key} holds what are no finite numbers")
    try:
        result = detector.load_state_dict(state, strict=False)
    except RuntimeError as error:  # of shapes, one a line
        raise UnreadableError(f"{name}: {str(error).splitlines()[-1].strip()}") from error
    missing = [key for key in result.missing_keys if not key.endswith("num_batches_tracked")]
    if missing or result.unexpected_keys:
        what = "lacks" if missing else "has, unasked,"
        raise UnreadableError(f"{name} {what} the array {(missing or result.unexpected_keys)[0]}")
