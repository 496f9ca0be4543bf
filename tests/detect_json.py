"""What every test that sees detect's JSON checks it with, and made results of any kind."""

import json
from typing import Any

import jsonschema
from hypothesis import strategies as st

from deepregions.fusion.calibration import Calibration, Development, Quantity
from deepregions.fusion.pooling import Pooling
from deepregions.media.provenance import (
    CREDENTIALS_STATES,
    Credentials,
    Provenance,
    received,
)
from deepregions.pipeline.results import FaceResult, Result, summarise_input
from deepregions.pipeline.schemas import schema_text
from deepregions.types import REGIONS, Status

FACTS: dict[str, Any] = {
    "models": [
        {
            "name": "xception_eyes.made",
            "detector": "xception",
            "region": "eyes",
            "database": "made",
            "sha256": "0123456789abcdef" * 4,
            "landmarks": {"name": "dlib68+yunet", "version": "1"},
        }
    ],
    "fusion": "mean of log-odds",
    "landmarks": {"name": "dlib68+hog", "version": "2"},
    "rules": {"faces": "mean of log-odds over its faces", "tracks": "highest track"},
    "gates": {"size": {"least": 48, "unit": "px"}},
    "command": ["deepregions", "detect", "a b.mp4"],
    "date": "2026-11-24T12:00:00+00:00",
    "device": "cpu",
    "runtime": "torch",
    "precision": "fp32",
    "fusion_sha256": "",
    "calibration": "uncalibrated",
    "versions": {"torch": "2.14.1"},
    "deepregions": "0.1.0",
}
"""What ``detect`` says of how its results were made."""

CALIBRATION = Calibration(
    "logistic",
    {"slope": 0.8, "offset": -0.5},
    lower=-3.0,
    upper=4.0,
    quantity=Quantity.pooled("video", Pooling()),
    development=Development(
        "dfdc", "0123abcd", "val", 60, 90, {"swap": 90}, None, {"folds": 5, "by": "people"}
    ),
)
CALIBRATED = {**FACTS, "fusion_sha256": "ab" * 32, "calibration": CALIBRATION.facts()}
"""The same of a bundle with a fusion and a calibration."""


def validator() -> jsonschema.Draft202012Validator:
    schema = json.loads(schema_text("detect"))
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def validate_detect(written: Any) -> None:
    """Fails where an object is not what ``deepregions schema detect`` says."""
    validator().validate(json.loads(json.dumps(written, allow_nan=False)))


def read_detect(line: str) -> Any:
    """Reads what ``detect --json`` printed, and validates it."""
    written = json.loads(line)
    validate_detect(written)
    return written


names = st.text(st.characters(exclude_categories=()), max_size=40)
_log_odds = st.floats(-1e30, 1e30) | st.floats(-20, 20)
_unjudged = st.sampled_from([Status.TOO_SMALL, Status.LOW_QUALITY, Status.ERROR])
_words = st.text(st.characters(exclude_categories=()), min_size=1, max_size=20)


@st.composite
def _faces(draw: st.DrawFn, layout: list[tuple[str, Any]], frame: int, track: int) -> FaceResult:
    fused = draw(st.none() | _log_odds)
    answers = st.none() if fused is None else st.none() | _log_odds
    cells = {cell: draw(answers) for cell in layout}
    x0, y0 = draw(st.floats(-100, 500)), draw(st.floats(-100, 500))
    side = draw(st.floats(0, 400))
    return FaceResult(
        frame=frame,
        time=frame / 7,
        track=track,
        box=(x0, y0, x0 + side, y0 + 1.3 * side),
        status=draw(_unjudged) if fused is None else Status.OK,
        log_odds=fused,
        cells=cells,
        reasons=tuple(draw(st.lists(_words, max_size=2))),
        quality=draw(st.dictionaries(names, st.none() | st.floats(-1e6, 1e6), max_size=3)),
    )


@st.composite
def provenances(draw: st.DrawFn) -> Provenance:
    """What a process may have said that a hostile file has taken over."""
    said = {name: draw(_words | st.lists(_words, max_size=2)) for name in vars(Provenance())}
    signed = {name: draw(_words | st.lists(_words, max_size=2)) for name in vars(Credentials())}
    signed["state"] = draw(st.sampled_from(CREDENTIALS_STATES))
    credentials = draw(st.sampled_from([None, received(Credentials, signed)]))
    return received(Provenance, said, credentials=credentials)


@st.composite
def input_results(draw: st.DrawFn) -> Result:
    """Results of inputs of every kind, as an analyser makes them."""
    path = draw(names)
    kind = draw(st.sampled_from(["image", "video", "regions"]))
    if draw(st.booleans()):
        status = draw(st.sampled_from([Status.UNREADABLE, Status.UNSUPPORTED]))
        return Result(path, kind, status, draw(_words))
    detectors = draw(st.lists(names, min_size=1, max_size=3, unique=True))
    layout = [(each, region) for each in detectors for region in REGIONS if draw(st.booleans())]
    count = draw(st.integers(1, 6)) if kind == "video" else 1
    faces = [
        draw(_faces(layout, frame, track))
        for frame in range(count)
        for track in range(draw(st.integers(0, 3)))
    ]
    return summarise_input(
        path,
        kind,
        count,
        faces,
        calibration=draw(st.sampled_from([None, CALIBRATION])),
        warnings=tuple(draw(st.lists(_words, max_size=2))),
        media={"width": 640, "height": 480, "duration": count / 7},
        provenance=draw(st.none() | provenances()),
        sampling={"how": "count", "count": count, "numbers": list(range(count))},
    )
