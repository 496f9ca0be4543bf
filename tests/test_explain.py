"""``deepregions explain``, its pictures, and heat on forgeries, from end to end."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from attribution import measure, summarise
from data_helpers import INFO, record, small_store
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.colors import to_rgba
from networks import Bright, dsp_fwa, landmarks, member, points, xception
from PIL import Image
from score_tables import make_table

from deepregions.commands.cli import run
from deepregions.data.store import FaceStore, create_store, decode_image, encode_image
from deepregions.errors import StoreError, UsageError
from deepregions.evaluation.report.grid import (
    Example,
    Pick,
    decision_grid,
    heat_picture,
    pick_examples,
)
from deepregions.evaluation.store_faces import load_examples
from deepregions.faces.cropping import RegionCropper
from deepregions.fusion.score_table import Origin
from deepregions.pipeline.explain.compute import explain_faces, to_json
from deepregions.pipeline.explain.gradcam import heats
from deepregions.pipeline.report.explanation import (
    draw_heat,
    draw_shares,
    heatmaps_of,
    write_explanation,
)
from deepregions.pipeline.report.heat import outlined, overlay
from deepregions.pipeline.results import FacePatch, FaceResult, Result, summarise_input
from deepregions.system import System
from deepregions.types import Region, Status
from deepregions.weights.bundle import save_bundle

LANDMARKS = ["--landmarks", "dlib-hog"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A network that sees nothing (its answer is always the same), and two that do."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("bundles") / "a"
    networks = [
        member(xception(2.0)),
        member(xception(), Region.MOUTH),
        member(dsp_fwa(), Region.EYES),
    ]
    save_bundle(networks, path)
    return str(path)


def test_explains_a_photograph(
    portrait: Path, bundle: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["explain", str(portrait), "--bundle", bundle, "--out", str(tmp_path), *LANDMARKS]
    assert run([*command, "--json", "--device", "cpu"]) == 0
    printed = capsys.readouterr()
    assert not printed.err
    folder = tmp_path / "portrait"
    names = {path.name for path in folder.iterdir()}
    assert names == {"explain.html", "explain.json", "track-0.png", "track-0-shares.png"}

    told = json.loads((folder / "explain.json").read_text())
    assert json.loads(printed.out) == told
    assert run(["detect", str(portrait), "--bundle", bundle, "--json", *LANDMARKS]) == 0
    detected = json.loads(capsys.readouterr().out)
    assert (told["schema"], told["version"]) == ("deepregions.explain", 1)
    assert told["models"] == detected["models"]
    (face,), (same,) = told["faces"], detected["faces"]
    assert face["log_odds"] == same["log_odds"]
    assert [(cell["detector"], cell["region"], cell["log_odds"]) for cell in face["cells"]] == [
        (cell["detector"], cell["region"], cell["log_odds"]) for cell in same["cells"]
    ]
    shares = [cell["shapley"] for cell in face["cells"]]
    assert sum(shares) == pytest.approx(face["log_odds"], abs=1e-5)
    assert sum(face["by_region"].values()) == pytest.approx(face["log_odds"], abs=1e-5)
    assert set(face["by_detector"]) == {"xception", "dsp-fwa"}
    blind, *others = face["cells"]
    assert (blind["region"], blind["inside"], blind["empty"]) == ("entire", None, True)
    assert 0.5 < blind["area"] < 1
    assert any(cell["inside"] is not None and 0 <= cell["inside"] <= 1 for cell in others)
    assert all(cell["area"] < blind["area"] for cell in others)

    assert '"./portrait/explain.html"' in (tmp_path / "index.html").read_text()
    page = (folder / "explain.html").read_text()
    assert "Heat-map of dsp-fwa on region eyes of person 1" in page
    assert "no heat: nothing in this map" in page
    assert "What the score of that face is made of" in page
    assert page.count("data:image/jpeg") >= 5
    with Image.open(folder / "track-0.png") as picture:
        assert picture.width > 700  # three columns, two rows
        assert picture.height > 500

    assert run(command) == 2
    assert "--overwrite replaces" in capsys.readouterr().err


def test_what_cannot_be_judged_is_said(
    bundle: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blank, broken = tmp_path / "blank.png", tmp_path / "broken.jpg"
    Image.new("RGB", (90, 90), (200, 200, 200)).save(blank)
    broken.write_text("no picture")
    out = tmp_path / "out"
    command = ["explain", str(blank), str(broken), "--bundle", bundle, "--out", str(out)]
    assert run([*command, *LANDMARKS]) == 5
    printed = capsys.readouterr().err
    assert "no face was found" in printed
    assert "broken.jpg" in printed
    for name, status in (("blank", "no_face"), ("broken", "unreadable")):
        told = json.loads((out / name / "explain.json").read_text())
        assert (told["status"], told["score"], told["faces"]) == (status, None, [])
        assert sorted(path.name for path in (out / name).iterdir()) == [
            "explain.html",
            "explain.json",
        ]


def test_explains_a_region_canvas(
    bundle: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    canvas = np.zeros((80, 120, 3), np.uint8)
    canvas[20:40, 30:90] = np.random.default_rng(0).integers(0, 255, (20, 60, 3))
    Image.fromarray(canvas).save(tmp_path / "eyes.png")
    out = tmp_path / "out"
    command = ["explain", str(tmp_path / "eyes.png"), "--bundle", bundle, "--out", str(out)]
    command += ["--segmented", "--region"]
    assert run([*command, "eyes"]) == 0
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("dsp-fwa eyes", "adds", "fused", str(out / "eyes")))
    told = json.loads((out / "eyes" / "explain.json").read_text())
    (cell,) = told["faces"][0]["cells"]
    assert (told["kind"], told["towards"], cell["region"]) == ("regions", "fake", "eyes")
    assert cell["area"] == pytest.approx(20 * 60 / (80 * 120), abs=0.03)
    assert cell["shapley"] == pytest.approx(cell["log_odds"], abs=1e-5)

    assert run([*command, "entire", "--overwrite", "--towards", "genuine"]) == 0
    assert "no heat" in capsys.readouterr().out
    told = json.loads((out / "eyes" / "explain.json").read_text())
    (cell,) = told["faces"][0]["cells"]
    assert (told["towards"], cell["detector"], cell["empty"]) == ("genuine", "xception", True)


# ---------------------------------------------------------------- pictures


def spotted() -> tuple[np.ndarray, np.ndarray]:
    """A black picture with a bright spot at the eye on its right; and its face."""
    image = np.zeros((240, 240, 3), np.uint8)
    image[96:104, 128:140] = 255
    return image, points(centre=105.0) + np.float32([0, 20])


def explained(*networks: tuple[Region, float | None]) -> tuple[Result, list]:
    """A face of which networks that look for light have said this."""
    system = System([member(Bright(), region) for region, _ in networks])
    cells = {("bright", region): answer for region, answer in networks}
    known = [answer for _, answer in networks if answer is not None]
    mean = sum(known) / len(known) if known else None
    status = Status.OK if known else Status.LOW_QUALITY
    box, patch = (40.0, 60.0, 170.0, 190.0), FacePatch(*spotted())
    face = FaceResult(0, 0.0, 0, box, status, mean, cells, patch=patch)
    result = summarise_input("$x_{1}^2$ <b>.png", "image", 1, [face])
    return result, list(explain_faces(result, system))


def hottest(picture: np.ndarray) -> tuple[int, int]:
    """The middle (x, y) of the reddest pixels."""
    red = picture[..., 0].astype(int) - picture[..., 2]
    rows, columns = np.nonzero(red >= 0.8 * red.max())
    return round(columns.mean()), round(rows.mean())


def test_heat_is_drawn_where_it_is() -> None:
    result, (face,) = explained((Region.ENTIRE, 1.0), (Region.EYES, None), (Region.MOUTH, 2.0))
    entire, eyes, mouth = face.cells
    assert not entire.empty
    assert (eyes.log_odds, eyes.share, eyes.inside) == (None, None, None)
    assert not eyes.empty
    assert mouth.empty
    assert mouth.inside is None

    box = RegionCropper(200).boxes(torch.from_numpy(spotted()[1])[None])[0, 0]
    x0, y0, x1, y1 = box.tolist()
    x, y = ((134 - x0) * 200 / (x1 - x0), (100 - y0) * 200 / (y1 - y0))
    picture = np.asarray(draw_heat(result, face))
    tile = picture[92:292, 130:330]
    assert hottest(tile) == (pytest.approx(x, abs=4), pytest.approx(y, abs=4))
    missing = picture[92:292, 342:542]
    assert (missing[5] == 238).any()  # not a picture of heat, but a place that says so
    third = picture[92:292, 554:754].astype(int)
    assert np.ptp(third, axis=2).max() == 0  # grey: no colour where there is no heat

    maps = heatmaps_of(face)
    assert [(cell.region, cell.empty) for cell, _ in maps] == [
        (Region.ENTIRE, False),
        (Region.MOUTH, True),
    ]
    shown = np.asarray(maps[0][1])
    assert hottest(shown)[0] > shown.shape[1] / 2 + 10  # on the right, as the spot


def test_the_page_and_bars_hold_what_was_said(tmp_path: Path) -> None:
    result, faces = explained((Region.ENTIRE, 1.0), (Region.NOSE, -4.0))
    write_explanation(result, faces, tmp_path / "x")
    page = (tmp_path / "x" / "explain.html").read_text()
    assert "&lt;b&gt;" in page
    assert "<b>.png" not in page
    picture = np.asarray(draw_shares(faces[0])).astype(int)
    red, green, blue = np.moveaxis(picture, -1, 0)
    fake = (blue > 180) & (green < 110) & (red < 130)
    genuine = (abs(red - 156) < 8) & (abs(blue - 168) < 8)
    assert genuine.sum() > fake.sum() > 100  # -4 outweighs 1
    assert np.nonzero(fake)[0].mean() < np.nonzero(genuine)[0].mean()  # entire is above nose
    told = to_json(result, faces)["faces"][0]
    # Alone 1 and -4, together -1.5: each is met first in one of two orders.
    assert told["by_region"] == {"entire": 1.75, "nose": -3.25}
    assert told["by_detector"] == {"bright": -1.5}


def test_an_interrupted_explanation_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result, faces = explained((Region.ENTIRE, 1.0))

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("deepregions.pipeline.report.explanation.write_page", fail)
    with pytest.raises(OSError, match="No space"):
        write_explanation(result, faces, tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=30)
@given(st.integers(0, 2**31), st.booleans())
def test_overlay_colours_heat_and_nothing_else(seed: int, cold: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    picture = torch.randint(0, 256, (3, 9, 7), generator=generator, dtype=torch.uint8)
    heat = torch.rand(9, 7, generator=generator) * (torch.rand(9, 7, generator=generator) > 0.5)
    heat = heat * (not cold)
    found = overlay(picture, heat)
    assert (found.shape, found.dtype) == (picture.shape, torch.uint8)
    grey = found[:, heat == 0].int()
    assert grey.amax(0).eq(grey.amin(0)).all()
    assert torch.equal(found, overlay(picture, heat * 1e-6))  # colours go to the picture's own most
    if heat.any():
        top = heat.flatten().argmax()
        red, _, blue = found.flatten(1)[:, top].int().tolist()
        assert red > blue


def test_outline_is_at_the_masks_edge() -> None:
    mask = torch.zeros(20, 20, dtype=torch.bool)
    mask[5:12, 8:15] = True
    found = outlined(torch.full((3, 20, 20), 99, dtype=torch.uint8), mask)[0]
    assert (found[5, 8:15] == 255).all()
    assert (found[4, 8:15] == 0).all()
    assert (found[7:10, 10:13] == 99).all()
    assert (found[:3] == 99).all()
    everywhere = torch.ones(20, 20, dtype=torch.bool)
    assert (outlined(torch.full((3, 20, 20), 99, dtype=torch.uint8), everywhere) == 99).all()


# ---------------------------------------------------------------- the grid of decisions


def table_of(log_odds: np.ndarray, labels: list[int]):
    detectors, regions = ("xception", "capsule"), (Region.ENTIRE, Region.EYES)
    common = {"track": 0, "compression": "", "method": "", "split": "test", "status": "ok"}
    rows = [
        {"key": f"k{n}", "video": f"v{n}", "identities": (), "label": label, "log_odds": own}
        for n, (label, own) in enumerate(zip(labels, log_odds, strict=True))
    ]
    return make_table(Origin("made"), detectors, regions, [row | common for row in rows])


@settings(max_examples=40)
@given(st.data())
def test_picks_are_the_farthest_from_the_threshold(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 12))
    numbers = st.floats(-9, 9, width=32) | st.just(math.nan)
    flat = data.draw(st.lists(numbers, min_size=4 * count, max_size=4 * count))
    labels = data.draw(st.lists(st.integers(0, 1), min_size=count, max_size=count))
    log_odds = np.array(flat, np.float64).reshape(count, 2, 2)
    thresholds = {"xception": 0.5, "capsule": -2.0}
    found = pick_examples(table_of(log_odds, labels), Region.EYES, thresholds)
    expected = []
    for number, (detector, threshold) in enumerate(thresholds.items()):
        for label in (0, 1):
            for right in (True, False):
                rows = [
                    row
                    for row in range(count)
                    if labels[row] == label
                    and not math.isnan(log_odds[row, number, 1])
                    and ((log_odds[row, number, 1] >= threshold) == bool(label)) == right
                ]
                if rows:
                    best = max(rows, key=lambda row: abs(log_odds[row, number, 1] - threshold))
                    expected.append((detector, label, right, f"k{best}"))
    assert [(pick.detector, pick.label, pick.right, pick.key) for pick in found] == expected
    assert all(pick.region is Region.EYES for pick in found)


def test_grid_frames_what_is_right_and_says_what_is_not_there() -> None:
    pixels = torch.full((3, 50, 50), 128, dtype=torch.uint8)
    places = {("xception", 0): 1.5, ("xception", 1): 2.5, ("capsule", 1): -0.2}
    examples = [
        Example(Pick("k", detector, Region.ENTIRE, label, answer, 0.0), pixels, None)
        for (detector, label), answer in places.items()
    ]
    detectors = ["xception", "capsule", "dsp-fwa"]
    figure = decision_grid(examples, detectors)
    drawn = {}
    for number, axes in enumerate(figure.axes[:12]):
        place = (detectors[number % 6 // 2], number // 6, number % 2 == 0)
        (said,) = [text.get_text() for text in axes.texts] or [axes.get_xlabel()]
        drawn[place] = (said.split("\n")[0], axes.spines["top"].get_edgecolor())
    blue, orange = to_rgba("#0072b2"), to_rgba("#d55e00")
    assert drawn["xception", 0, False] == ("0.818: called fake", orange)
    assert drawn["xception", 1, True] == ("0.924: called fake", blue)
    assert drawn["capsule", 1, False] == ("0.450: called real", orange)
    rest = [said for place, (said, _) in drawn.items() if place[:2] not in places]
    assert rest == ["no right decision", "no wrong decision"] * 3
    assert "capsule, fake: 0.450: called real" in figure.get_label()
    assert len(decision_grid(examples).axes) == 2 * 4 + 1
    with pytest.raises(UsageError, match="no decisions"):
        decision_grid([])
    with pytest.raises(UsageError, match="two examples of xception"):
        decision_grid([examples[0], examples[0]])


def test_examples_are_read_from_a_store(tmp_path: Path) -> None:
    store = small_store(tmp_path / "store", ["test"] * 3, size=160)
    system = System([member(Bright(), Region.EYES), member(Bright())])
    picks = [Pick("k2", "bright", Region.EYES, 0, 1.0, 0.0)]
    (example,) = load_examples(picks, store, system)
    image, points = decode_image(store[2].image)[None], torch.from_numpy(store[2].landmarks)[None]
    heat = next(each for each in heats(system, image, points) if each.region is Region.EYES)
    picture, inside = heat_picture(heat)
    assert torch.equal(example.image, picture)
    assert example.inside == inside
    assert picture.shape == (3, 180, 180)
    with pytest.raises(StoreError, match="no face k9"):
        load_examples([Pick("k9", "bright", Region.EYES, 0, 1.0, 0.0)], store, system)
    with pytest.raises(UsageError, match="no network capsule eyes"):
        load_examples([Pick("k2", "capsule", Region.EYES, 0, 1.0, 0.0)], store, system)


# ---------------------------------------------------------------- heat on forgeries


@pytest.fixture(scope="module")
def painted(tmp_path_factory: pytest.TempPathFactory) -> FaceStore:
    """Grey faces, brighter towards the chin, and forgeries: one region of each painted green."""
    faces = []
    regions = (Region.EYES, Region.NOSE, Region.MOUTH)
    for number in range(9):
        ramp = torch.linspace(40, 140, 200)[:, None].expand(3, 200, 200)
        grey = ramp.to(torch.uint8)
        common = {"landmarks": points(), "split": "test", "identities": (f"p{number}",)}
        own = {"image": encode_image(grey), "key": f"k{number}", "label": 0}
        faces.append(record(number, **common | own))
        region = regions[number % 3]
        cropper = RegionCropper(200, [region])
        x0, y0, x1, y1 = cropper.boxes(landmarks())[0, 0].tolist()
        size = RegionCropper(max(x1 - x0, y1 - y0), [region]).masks(
            landmarks(), torch.tensor([[200, 200]])
        )
        mask = torch.nn.functional.interpolate(size.float(), (y1 - y0, x1 - x0))[0, 0] > 0.5
        forged = grey.clone()
        forged[1, y0:y1, x0:x1][mask] += 110
        own = {"image": encode_image(forged), "key": f"k{number}~paint", "label": 1}
        faces.append(record(number, **common | own | {"method": f"paint:{region}"}))
    return create_store(tmp_path_factory.mktemp("s") / "painted", INFO, faces)


def test_heat_of_a_network_that_knows_falls_on_the_forged_region(painted: FaceStore) -> None:
    """It looks for green over red, which only forged regions have."""
    system = System([member(Bright(colour=(-1.0, 1.0, 0.0)))])
    found = measure(system, painted, "test", torch.device("cpu"))
    figures = summarise(found)
    assert figures["forgeries"] == 9
    assert figures["without heat"] == 0
    assert figures["region has most"][0] == 1.0
    assert figures["share of heat"][0] > 0.75  # cells of 8 pixels reach over the region's edge
    assert figures["share of area"][0] < 0.3
    assert all(each.shares.argmax() == each.region for each in found)


def test_heat_of_a_network_that_does_not_know_is_where_it_always_is(painted: FaceStore) -> None:
    """It looks for red, which no forgery changes: the mouth has most of it in every face."""
    system = System([member(Bright(colour=(1.0, 0.0, 0.0)))])
    figures = summarise(measure(system, painted, "test", torch.device("cpu")))
    assert figures["region has most"][0] == pytest.approx(1 / 3)
    low, high = figures["region has most"][1:]
    assert low < 1 / 3 < high
    assert figures["of those with heat before"][0] == pytest.approx(1 / 3)
    assert figures["forged less before"][0] == pytest.approx(0.0, abs=0.01)
