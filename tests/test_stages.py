"""``deepregions benchmark --video``: which stage took what, on a real face in a real video."""

import json

import pytest
import stages
from data_helpers import write_video
from networks import dsp_fwa, member, xception
from stages import STAGES

from deepregions.commands.cli import run_program
from deepregions.deploy.parity import portrait
from deepregions.types import Region
from deepregions.weights.bundle import save_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    path = tmp_path_factory.mktemp("stages") / "bundle"
    save_bundle([member(dsp_fwa()), member(xception(), Region.EYES)], path)
    return str(path)


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """Two seconds of a person who does not move."""
    face = portrait()[0].permute(1, 2, 0).numpy()
    return str(write_video(tmp_path_factory.mktemp("clips") / "clip.mp4", [face] * 20, rate=10))


@pytest.mark.parametrize(
    ("options", "frames"), [(["--rate", "2"], 4), (["--frames", "3"], 3), ([], 20)]
)
def test_every_stage_of_a_video_is_timed(bundle, video, options, frames, capsys):
    command = ["--bundle", bundle, "--file", video, "--runtime", "torch", "--json"]
    assert run_program(stages.main, [*command, *options]) == 0
    (made,) = json.loads(capsys.readouterr().out)
    assert (made["runtime"], made["frames"], made["faces"]) == ("torch", frames, frames)
    assert made["scored"] == frames
    seconds = made["seconds"]
    assert tuple(seconds) == STAGES and min(seconds.values()) > 0
    assert made["bound"] == max(seconds, key=lambda name: seconds[name])
    rest = sum(seconds.values()) - seconds["decode"] + made["waited"]
    assert rest == pytest.approx(made["total"], rel=0.05)  # nothing is counted twice or missed
