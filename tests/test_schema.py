"""The JSON Schema of detect's output, and the command that prints it."""

import json
from dataclasses import replace
from typing import Any

import jsonschema
import pytest
from detect_json import CALIBRATED, CALIBRATION, FACTS, input_results, validate_detect, validator
from hypothesis import given, settings

from deepregions.commands.cli import run
from deepregions.pipeline.results import FaceResult, Result, summarise_input
from deepregions.types import Region, Status


def one_face(log_odds: float | None = 1.5) -> dict[str, Any]:
    status = Status.OK if log_odds is not None else Status.LOW_QUALITY
    cells = {("xception", Region.EYES): log_odds}
    face = FaceResult(0, 0.0, 0, (1.0, 2.0, 3.0, 4.0), status, log_odds, cells, (), {"size": 50.0})
    result = summarise_input("a.jpg", "image", 1, (face,), calibration=CALIBRATION)
    written = replace(result, facts=CALIBRATED).to_dict()
    return json.loads(json.dumps(written))


@given(input_results())
@settings(max_examples=60)
def test_whatever_comes_of_an_input_is_as_the_schema_says(result):
    validate_detect(replace(result, facts=FACTS).to_dict())
    validate_detect(replace(result, facts={**FACTS, "landmarks": None}).to_dict())
    validate_detect(replace(result, facts=CALIBRATED).to_dict())


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("score",), None),
        (("status",), "fake"),
        (("status",), "low_quality"),  # with a score
        (("llr",), 1.5),
        (("llr", "log10_bounds"), [0.5]),
        (("llr", "verbal"), "certainly fake"),
        (("calibration",), "calibrated"),
        (("verdict",), "fake"),
        (("models",), []),
        (("models", 0, "sha256"), "abc"),
        (("sampling", "numbers"), [0, -1]),
        (("tracks", 0, "score"), None),
        (("faces", 0, "score"), None),
        (("faces", 0, "status"), "too_small"),
        (("faces", 0, "box"), [1, 2, 3]),
        (("faces", 0, "cells", 0, "score"), None),
    ],
)
def test_what_is_wrong_does_not_pass(place, value):
    written: Any = one_face()
    written["sampling"]["numbers"] = [0]
    validate_detect(written)
    inner = written
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        validate_detect(written)


def test_a_ratio_is_of_track_and_input_with_bounds_and_words():
    written = one_face(3.0)
    # 0.8 * 3 - 0.5 = 1.9, and 10 ** 0.825 is 6.7
    expected = {
        "log10": 0.82516,
        "log10_bounds": [-1.302883, 1.737178],
        "ln": 1.9,
        "limited": False,
        "verbal": "weak support for manipulated",
    }
    assert written["llr"].keys() == expected.keys()
    for key, value in expected.items():
        told = written["llr"][key]
        assert told == (value if isinstance(value, str) else pytest.approx(value, abs=1e-5)), key
    assert written["tracks"][0]["llr"] == written["llr"]
    assert "llr" not in written["faces"][0]
    high = one_face(99.0)["llr"]
    assert (high["ln"], high["limited"]) == (4.0, True)
    assert high["verbal"] == "moderate support for manipulated"
    assert one_face(-99.0)["llr"]["verbal"] == "moderate support for genuine"


def test_without_a_score_there_is_none_and_a_message():
    written = one_face(None)
    validate_detect(written)
    assert written["llr"] is None
    with pytest.raises(jsonschema.ValidationError):
        validate_detect({**written, "llr": one_face()["llr"]})
    with pytest.raises(jsonschema.ValidationError):
        validate_detect({**written, "score": 0.5, "log_odds": 0.0})
    with pytest.raises(jsonschema.ValidationError):
        validate_detect({**written, "message": ""})
    unread = Result("a.jpg", "image", Status.UNREADABLE, "a.jpg: damaged")
    validate_detect(replace(unread, facts=FACTS).to_dict())
    with pytest.raises(jsonschema.ValidationError):
        validate_detect(replace(unread, log_odds=0.1, facts=FACTS).to_dict())


def test_every_key_that_is_written_must_be_there():
    written = one_face()
    names = "rules gates command date device runtime precision fusion_sha256 versions"
    optional = set(names.split())
    for key in written:
        rest = {name: value for name, value in written.items() if name != key}
        assert validator().is_valid(rest) == (key in optional), key


def test_the_command_prints_the_schema(capsys):
    assert run(["schema", "detect"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == validator().schema
    assert run(["schema", "detct"]) == 2
    assert capsys.readouterr().out == ""
