"""The page of one input: one file, escaped, with the JSON's numbers."""

import re
from base64 import b64encode
from collections import Counter
from dataclasses import replace
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from browsers import chromium, sideways, violations
from detect_json import CALIBRATED, CALIBRATION, FACTS, input_results, names
from hypothesis import assume, given, settings
from made_results import video
from PIL import Image

from deepregions.errors import printable
from deepregions.fusion.pooling import probability
from deepregions.pipeline.report.page import render_page, why_not, write_page
from deepregions.pipeline.report.timeline import Timeline
from deepregions.pipeline.results import Result
from deepregions.types import Region, Status

# Attributes by which a page makes a browser fetch something.
FETCHING = {"src", "srcset", "href", "xlink:href", "poster", "data", "action", "background", "cite"}
VOID = {"meta", "link", "img", "br", "input"}
HOSTILE = "<script>alert(1)</script>\n\"'&<img src=//x.y/z onerror=a>\u202egpj.\u2066\x1b[31m\udcff"


class Page(HTMLParser):
    """What a browser would see of a page; fails where tags are not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.values: list[float] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        assert len(dict(attrs)) == len(attrs), f"an attribute of {tag} is there twice"
        if tag == "data":
            self.values.append(float(dict(attrs)["value"] or ""))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open[-1:] not in (["style"], ["script"]):
            self.text.append(data)

    @property
    def words(self) -> str:
        return " ".join("".join(self.text).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def check_page(text: str) -> Page:
    """Checks what holds for every page: it is one file, accessible, its script allowed."""
    page = Page(text)
    assert "url(" not in text
    assert "@import" not in text
    scripts = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    assert len(scripts) == len(page.all("script"))
    assert not {"iframe", "object", "embed", "base", "form"} & {t for t, _ in page.tags}
    (policy,) = [m["content"] for m in page.all("meta") if m.get("http-equiv")]
    assert policy is not None
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline'")
    digests = [b64encode(sha256(each.encode()).digest()).decode() for each in scripts]
    assert re.findall(r"script-src '(.*?)'", policy) == [f"sha256-{each}" for each in digests]
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    for tag, attributes in page.tags:
        assert not FETCHING & attributes.keys() - {"src", "href"}
        assert not [name for name in attributes if name.startswith("on")]
        assert tag == "img" or "src" not in attributes
        assert tag in {"a", "link"} or "href" not in attributes
        if tag == "img":
            assert (attributes["alt"] or "").strip()
            kinds = r"data:image/(jpeg|png|svg\+xml);base64,[\w+/=]+"
            assert re.fullmatch(kinds, attributes["src"] or "")
        if tag == "link":
            assert attributes["href"] == "data:,"
        if tag == "a":
            target = attributes["href"] or ""
            assert target.startswith("./") or target.removeprefix("#") in ids
        if "aria-labelledby" in attributes:
            assert attributes["aria-labelledby"] in ids
        if tag == "th":
            assert attributes["scope"] in {"row", "col"}
    assert [tag for tag, _ in page.tags].count("h1") == 1
    assert page.all("html")[0]["lang"] == "en"
    return page


def heat_map(detector: str) -> tuple[Any, Image.Image]:
    """Heat of a network, as the page sees it."""
    cell = SimpleNamespace(
        detector=detector, region=Region.EYES, inside=0.634, area=0.25, empty=False
    )
    return cell, Image.new("RGB", (60, 60))


def test_the_page_says_what_the_json_says() -> None:
    made = video(warnings=("The landmarks are others than in training.",))
    page = check_page(render_page(made))
    written = made.to_dict()
    known = {f["score"] for f in (written, *written["tracks"], *written["faces"])}
    known |= {c["score"] for f in (*written["tracks"], *written["faces"]) for c in f["cells"]}
    assert page.values[0] == written["score"]
    assert set(page.values) <= known - {None}
    shown = Counter(page.values)
    for face in written["faces"]:
        assert face["score"] is None or shown[face["score"]] >= 2  # under its frame, in the list
    for track in written["tracks"]:
        for cell in track["cells"]:
            assert cell["score"] is None or cell["score"] in shown
        assert track["score"] in shown
    for said in (
        "2 people found. This is the highest score, person 1's.",
        "No conclusion possible: this network's scores were never measured.",
        "The landmarks are others than in training.",
        "10 of 11 faces judged, in 6 frames.",
        FACTS["models"][0]["sha256"],
        "deepregions detect 'a b.mp4'",
        "dlib68+hog",
        "blurred",
        "rest: half of it is outside",
        "What this cannot tell",
    ):
        assert said in page.words, said


@given(input_results())
@settings(max_examples=40)
def test_any_result_makes_a_page_with_its_numbers(result: Result) -> None:
    result = replace(result, facts=CALIBRATED if result.evidence else FACTS)
    page = check_page(render_page(result))
    written = result.to_dict()
    assert " ".join(printable(result.conclusion).split()) in page.words
    if written["score"] is None:
        assert "neither that it is genuine nor that it is fake" in page.words
    else:
        assert page.values[0] == written["score"]
    known = {f["score"] for f in (written, *written["tracks"], *written["faces"])}
    known |= {c["score"] for f in written["tracks"] for c in f["cells"]}
    assert set(page.values) <= known


@given(names.filter(bool))
@settings(max_examples=40)
def test_names_cannot_become_anything_but_text(name: str) -> None:
    assume(name not in {detector for detector, _ in video().people[0].cells})  # it would have heat
    _same_tags(name)


def test_hostile_names_are_shown_as_they_are() -> None:
    page = _same_tags(HOSTILE)
    for shown in ("<script>alert(1)</script>\\n", "\\u202egpj", "\\x1b[31m", "\\udcff"):
        assert shown in page.words
    assert not {"\u202e", "\u2066", "\x1b"} & {*"".join(page.text)}


def _same_tags(name: str) -> Page:
    """Renders with a name in every place that data can reach; the tags must stay the same."""

    def page(word: str) -> Page:
        key = f"x{word}"  # none that pages know, such as sha256
        made = video(people=1, frames=2, warnings=(word,))
        cells = {(word, region): value for (_, region), value in made.people[0].cells.items()}
        track = replace(made.people[0], cells=cells, reasons=(word,), rule=word)
        faces = tuple(replace(face, reasons=(word,), quality={key: 1.0}) for face in made.faces)
        result = replace(
            made,
            input=f"folder/{word}".replace("/", "_"),
            rule=word,
            reason=word,
            people=(track,),
            faces=faces,
            media={"notes": [word], key: word},
            sampling={key: [word, {key: word}]},
        )
        model = dict.fromkeys(("name", "detector", "region", "database", "sha256"), word)
        facts = {**FACTS, "models": [{**model, "landmarks": word}], "command": [word]}
        facts |= {"device": word, "versions": {"a": word}, "fusion": word}
        result = replace(result, facts=facts)
        return check_page(render_page(result, heatmaps={0: [heat_map(word)]}))

    hostile, plain = page(name), page("x")
    assert [tag for tag, _ in hostile.tags] == [tag for tag, _ in plain.tags]
    assert [[*a] for _, a in hostile.tags] == [[*a] for _, a in plain.tags]
    return hostile


def test_a_page_appears_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "page.html"
    path.write_text("before")
    broken = OSError(28, "No space left on device")
    with monkeypatch.context() as patched, pytest.raises(OSError, match="No space"):
        patched.setattr(Path, "write_text", Mock(side_effect=broken))
        write_page(video(), path)
    assert path.read_text() == "before"
    assert len([*tmp_path.iterdir()]) == 1


def test_heat_maps_have_their_place_only_where_there_are_some() -> None:
    made = video()
    without = check_page(render_page(made))
    assert "where they looked" not in without.words
    page = check_page(render_page(made, heatmaps={1: [heat_map("xception")]}))
    assert page.words.count("where they looked") == 1
    told = "63 % of the heat falls on the region, which covers 25 % of what it saw"
    assert told in page.words
    alts = [image["alt"] for image in page.all("img")]
    assert "Heat-map of xception on region eyes of person 2" in alts


def test_a_calibrated_score_has_its_ratio_with_bounds_and_words() -> None:
    result = video(calibration=CALIBRATION)
    llr = result.evidence
    assert llr is not None
    page = check_page(render_page(result))
    for said in (
        f"ikelihood ratio {10**llr.log10:.1f} (log10 {llr.log10:+.2f}), which is evidence",
        "not the probability of a fake; this calibration supports",
        "supports 1/20 to 55",  # e to the power of -3 and 4
        "like the calibration set: dfdc (60 genuine and 90 fake files, made by swap)",
    ):
        assert said in page.words, said
    assert "0123abcd" in page.words  # what it was found on
    assert "uncalibrated" not in page.words.lower()


def test_many_tracks_are_all_listed_and_the_highest_shown_in_detail() -> None:
    made = video(people=30, frames=1)
    page = check_page(render_page(made))
    assert len(page.all("article")) == 24
    assert "the 24 people with the highest scores" in page.words
    assert {f"track-{number}" for number in range(24)} <= {a.get("id") for _, a in page.tags}


def test_frames_say_in_words_what_their_boxes_show() -> None:
    page = check_page(render_page(video()))
    alts = [str(image["alt"]) for image in page.all("img")]
    assert any(
        re.fullmatch(
            r"Frame at 1\.00 s: person 1 not judged, not good enough to be judged; "
            r"person 2 judged, 0\.\d{3}",
            alt,
        )
        for alt in alts
    )
    dashed = [a for a in page.all("rect") if "unjudged" in str(a.get("class"))]
    assert len(dashed) == 1


def test_a_curve_breaks_where_there_was_no_verdict() -> None:
    result = video()
    timeline = Timeline(result)
    for track, expected in ((0, "MLLMLX"), (1, "MLMLLX")):
        faces = [face for face in result.faces if face.track == track]
        drawn = timeline.curve(faces, [face.log_odds for face in faces])
        assert re.sub(r"[\d. ]", "", drawn.line) == expected.replace("X", "")
        assert drawn.count == 5
        assert drawn.missing == ((50.0,) if track == 0 else ())
        x, y = (float(number) for number in drawn.dots[1:].split("h")[0].split())
        assert x == 0
        assert y == pytest.approx(100 * (1 - (probability(faces[0].log_odds) or 0)), abs=0.01)


def test_frames_between_are_known_from_what_was_recorded() -> None:
    result = replace(video(), strip=())
    first, _, third = [face for face in result.faces if face.track == 1][:3]
    assert Timeline(result).between(first, third) == 2  # 0 (10) (20) 30
    assert Timeline(replace(result, sampling={})).between(first, third) == 2  # of another's faces
    by_place = replace(result, sampling={}, frames=100)
    assert Timeline(by_place).between(first, third) == 29


@given(names)
def test_what_is_visible_can_be_encoded_and_hides_nothing(text: str) -> None:
    shown = printable(text)
    shown.encode("utf-8")
    assert not re.search(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]", shown)
    assert printable("Ünïcode 名前 👩🏽 a\u00a0b") == "Ünïcode 名前 👩🏽 a\u00a0b"


@pytest.mark.parametrize("end", [0, 0.04, 1, 61, 3599, 1e6, float("nan"), 1e300])
def test_an_axis_has_few_ticks_in_order(end: float) -> None:
    made = Result("a.mp4", "video", Status.NO_FACE, media={"duration": end})
    ticks = Timeline(made).ticks
    places = [place for place, _ in ticks]
    assert 2 <= len(places) <= 8
    assert places[0] == 0
    assert places == sorted(set(places))
    assert places[-1] <= 100
    assert len({label for _, label in ticks}) == len(places)


@pytest.mark.parametrize(
    ("reasons", "told"),
    [
        (("mouth: turned away", "eyes: too dark"), "eyes: too dark"),
        (("Blurred", "mouth: turned away"), "Blurred"),
        (("too small", "blurred", "dark (nose, eyes)"), "dark (nose, eyes); too small"),
        (("mouth: turned away",), "the region was not judged"),
        ((), "the region was not judged"),
    ],
)
def test_a_cell_is_told_its_own_reasons(reasons: tuple[str, ...], told: str) -> None:
    assert why_not(Region.EYES, reasons) == told


def test_a_measure_is_told_its_gates() -> None:
    facts = {**FACTS, "gates": {"min_sharpness": 0.35}}
    page = check_page(render_page(video(facts=facts)))
    assert "Judged if" in page.words
    assert "at least 0.35" in page.words


@pytest.mark.slow
def test_nobody_is_kept_out_of_a_page(tmp_path: Path) -> None:
    """As axe-core sees it in Chromium, with everything unfolded."""
    result = video(calibration=CALIBRATION, warnings=("Landmarks are others than in training.",))
    text = render_page(result, heatmaps={0: [heat_map("xception")]}, towards="fake")
    path = tmp_path / "page.html"
    path.write_text(text, encoding="utf-8")
    with chromium() as browser:
        for scheme in ("light", "dark"):
            page = browser.new_page(viewport={"width": 360, "height": 800}, color_scheme=scheme)
            page.goto(path.as_uri())
            page.evaluate("for (const each of document.querySelectorAll('details')) each.open = 1")
            assert violations(page) == []
            assert sideways(page) == 0
            page.close()
