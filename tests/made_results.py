"""Results as an analyser makes them, without any network."""

from dataclasses import replace
from typing import Any

from detect_json import CALIBRATED, FACTS
from networks import pixels, points

from deepregions.pipeline.results import FacePatch, FaceResult, Result, summarise_input
from deepregions.pipeline.strip import Strip
from deepregions.types import REGIONS, Region, Status


def video(people: int = 2, frames: int = 6, **facts: Any) -> Result:
    """A video of people with gaps, without any network."""
    facts.setdefault("facts", CALIBRATED if "calibration" in facts else FACTS)
    faces, strip = [], Strip()
    crops = {(region, ("xception", "dsp-fwa")): pixels(64, 64) for region in REGIONS}
    patch = FacePatch(pixels(), points(), crops=crops)
    for frame in range(frames):
        strip.add(10 * frame, frame / 3, pixels(120, 160, seed=frame))
        for track in range(people):
            if track == 1 and frame == 2:
                continue  # not found
            judged = not (track == 0 and frame == 3)
            cells = {
                (detector, region): 0.1 * frame + track - index / 5
                if judged and region is not Region.REST
                else None
                for index, detector in enumerate(("xception", "dsp-fwa"))
                for region in REGIONS
            }
            faces.append(
                FaceResult(
                    10 * frame,
                    frame / 3,
                    track,
                    (10.0 + 60 * track, 20.0, 50.0 + 60 * track, 70.0),
                    Status.OK if judged else Status.LOW_QUALITY,
                    0.3 * frame - track + 0.123456 if judged else None,
                    cells,
                    ("rest: half of it is outside",) if judged else ("blurred",),
                    {"sharpness": 0.5 + frame / 10, "yaw": None},
                    patch if frame == frames - 1 else None,  # the highest
                )
            )
    return summarise_input(
        "case/a b.mp4",
        "video",
        frames,
        faces,
        media={"width": 160, "height": 120, "duration": frames / 3},
        sampling={"how": "count", "numbers": [10 * frame for frame in range(frames)]},
        strip=strip.thumbnails(),
        **facts,
    )


def photograph(**facts: Any) -> Result:
    """A photograph of one person."""
    return replace(video(people=1, frames=1, **facts), kind="image", input="a b.jpg")
