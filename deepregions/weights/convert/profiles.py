"""How other programs call their networks: size, filter, colours, crop, class order.

Checkpoints hold none of this, yet scores depend on it. Values are from the programs' own code.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from deepregions.detectors import DSPFWA, Capsule, RegionDetector, Xception
from deepregions.errors import UsageError
from deepregions.types import Layout, Region, Resample


@dataclass(frozen=True)
class Project:
    """A program that publishes checkpoints.

    Attributes:
        fake_index: Which class is fake in its networks of two classes.
        database: What its networks were trained on; empty where file names say it.
    """

    title: str
    licence: str
    citation: str
    fake_index: int
    database: str


@dataclass(frozen=True)
class Profile:
    """How a program calls a network.

    Attributes:
        settings: Arguments with which the class computes the same.
        remarks: Where the program differs from this package.
    """

    detector: type[RegionDetector]
    settings: Mapping[str, int | float | str]
    layout: Layout
    resample: Resample = "bilinear"
    remarks: tuple[str, ...] = ()


CADENE = "cadene"  # not a program that detects fakes: its networks only start trainings

PROJECTS: Mapping[str, Project] = {
    "bida": Project(
        title="BiDAlab/DeepFakes_FacialRegions",
        licence="none stated",
        citation="Tolosana et al. 2022, DeepFakes detection across generations: analysis of "
        "facial regions, fusion, and performance evaluation, "
        "doi 10.1016/j.engappai.2022.104673",
        fake_index=0,  # its folders are called fake and real
        database="",
    ),
    "capsule-v2": Project(
        title="nii-yamagishilab/Capsule-Forensics-v2",
        licence="BSD-3-Clause",
        citation="Nguyen, Yamagishi and Echizen 2019, Use of a capsule network to detect fake "
        "images and videos, arXiv 1910.12467",
        fake_index=1,  # its folders are called 0_original, 1_deepfakes, ...
        database="ffpp",
    ),
    "dsp-fwa": Project(
        title="yuezunli/DSP-FWA",
        licence="CC-BY-NC-SA-4.0",
        citation="Li and Lyu 2019, Exposing DeepFake videos by detecting face warping "
        "artifacts, arXiv 1811.00656",
        fake_index=0,
        database="warped",  # genuine faces, and the same faces warped
    ),
    "faceforensics": Project(
        title="ondyari/FaceForensics",
        licence="MIT (code); none stated for the weights",
        citation="Roessler et al. 2019, FaceForensics++: learning to detect manipulated facial "
        "images, arXiv 1901.08971",
        fake_index=1,
        database="ffpp",
    ),
    "deepfakebench": Project(
        title="SCLBD/DeepfakeBench",
        licence="CC-BY-NC-4.0",
        citation="Yan et al. 2023, DeepfakeBench: a comprehensive benchmark of deepfake "
        "detection, arXiv 2307.01426",
        fake_index=1,
        database="ffpp",
    ),
    CADENE: Project(
        title="Cadene/pretrained-models.pytorch",
        licence="BSD-3-Clause (code); MIT (Keras's weights)",
        citation="Chollet 2017, Xception: deep learning with depthwise separable convolutions, "
        "arXiv 1610.02357",
        fake_index=1,
        database="imagenet",
    ),
}

_OPENFACE = "faces were found and landmarks placed by OpenFace 2"
_CADENE_XCEPTION: dict[str, int | float | str] = {
    "bn_eps": 1e-5,
    "padding": "symmetric",
    "normalisation": "centred",
}
_ALIGNED = "faces were turned upright, by a similarity of 81 landmarks enlarged by 1.3"

PROFILES: Mapping[tuple[str, str], Profile] = {
    ("bida", "capsule"): Profile(
        Capsule, {"size": 200, "double_softmax": True}, "masked", remarks=(_OPENFACE,)
    ),
    ("bida", "dsp-fwa"): Profile(DSPFWA, {"size": 200}, "masked", remarks=(_OPENFACE,)),
    ("bida", "xception"): Profile(  # the size and epsilon are the file's own
        Xception, {"padding": "same"}, "masked", "nearest", (_OPENFACE,)
    ),
    ("capsule-v2", "capsule"): Profile(
        Capsule,
        {"size": 300, "double_softmax": True},
        "context",
        remarks=("faces were cut around FaceForensics++'s masks, enlarged by 1.3",),
    ),
    ("dsp-fwa", "dsp-fwa"): Profile(
        DSPFWA,
        {"size": 224, "normalisation": "caffe"},
        "context",
        remarks=(
            "the score of a face was the mean of the 5 highest of 10 random crops; "
            "here it is that of one crop",
            "crops were resized by OpenCV, which does not smooth when it shrinks",
        ),
    ),
    ("faceforensics", "xception"): Profile(
        Xception,
        {"size": 299, **_CADENE_XCEPTION},
        "context",
        remarks=("the square is that of dlib's face finder, enlarged by 1.3",),
    ),
    ("deepfakebench", "xception"): Profile(
        Xception, {"size": 256, **_CADENE_XCEPTION}, "context", remarks=(_ALIGNED,)
    ),
    ("deepfakebench", "capsule"): Profile(
        Capsule,
        {"size": 256, "double_softmax": True, "normalisation": "centred"},
        "context",
        remarks=(_ALIGNED,),
    ),
}

DATABASES: Mapping[str, str] = {  # in small letters, without - _ + and spaces
    "uadfv": "uadfv",
    "ffpp": "ffpp",
    "ff": "ffpp",
    "faceforensics": "ffpp",
    "celebdf": "celebdf",
    "celebdfv2": "celebdf",
    "dfdc": "dfdc",
    "dfdcpreview": "dfdc",
}

REGION_ALIASES: Mapping[str, str] = {
    "face": "entire",
    "full": "entire",
    "whole": "entire",
    "eye": "eyes",
    "other": "rest",
    "remaining": "rest",
}

_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


def check_project(name: str | None) -> None:
    """Refuses a program whose detectors are not known; the error's hint names those that are."""
    known = dict.fromkeys(project for project, _ in PROFILES)
    if name is not None and name not in known:
        raise UsageError(f"there is no project {name!r}", f"one of {', '.join(known)}")


def region_of(name: str) -> Region:
    """Returns the region of a name in any usual spelling; of others the error names them all."""
    lower = name.lower()
    try:
        return Region(REGION_ALIASES.get(lower, lower))
    except ValueError as error:
        raise UsageError(f"there is no region {name!r}", f"one of {', '.join(Region)}") from error


def database_of(name: str) -> str:
    """Returns a database's name here; an unknown one is returned as it is.

    Raises:
        UsageError: It cannot be part of a file name.
    """
    known = DATABASES.get(plain_label(name))
    if known is None and not _LABEL.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot be a database's name", "letters, digits, - and _ are what names take"
        )
    return known or name


def plain_label(name: str) -> str:
    """Returns a name in small letters, without what separates words."""
    return re.sub(r"[-_+ ]", "", name.lower())
