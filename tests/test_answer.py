"""What a result says leads every output, and is the same in all of them."""

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from detect_json import CALIBRATED, CALIBRATION, FACTS, read_detect
from networks import member, xception
from PIL import Image, ImageDraw
from test_report import check_page, video

from deepregions.commands.cli import run
from deepregions.commands.verdicts import VerdictPrinter, print_answer
from deepregions.errors import MissingExtraError
from deepregions.media import Sampling
from deepregions.pages.pdf import find_browser, print_page
from deepregions.pipeline.explain.compute import to_json
from deepregions.pipeline.report.explanation import write_explanation
from deepregions.pipeline.report.page import write_page
from deepregions.pipeline.report.video import FrameLayout
from deepregions.pipeline.results import Result
from deepregions.types import Region, Status
from deepregions.weights.bundle import save_bundle
from deepregions.weights.manifest import BundleFacts, OperatingPoint

POINT = {
    "name": "1 % false alarms",
    "threshold": 0.5,
    "level": "video",
    "found_on": "500 faces of one database",
    "false_positive_rate": 0.0098,
    "false_positive_interval": (0.0013, 0.0339),
    "true_positive_rate": 0.141,
    "people": 217,
}
THRESHOLD = (
    "At or above the threshold for 1 % false alarms",
    "The threshold for 1 % false alarms was reached by 1.0 % of genuine faces (95 % interval 0.1 "
    "to 3.4 %; 217 people) and 14.1 % of fakes in 500 faces of one database",
)
# 0.8 * 0.843456 - 0.5 = 0.1748, and e ** 0.1748 is 1.19; the bounds are e ** -3 and e ** 4
CASES: dict[str, tuple[Callable[[], Result], tuple[str, ...]]] = {
    "calibrated": (
        lambda: video(calibration=CALIBRATION, facts={**CALIBRATED, "operating_point": POINT}),
        (
            "No conclusion: such a score is about as likely for a fake as for a genuine face",
            "Likelihood ratio 1.2 (log10 +0.08), which is evidence, not the probability of a fake; "
            "this calibration supports 1/20 to 55",
            *THRESHOLD,
            "2 people found. This is the highest score, person 1's. 10 of 11 faces judged, in 6",
            "Holds only for material like the calibration set: dfdc (60 genuine and 90 fake files",
            "Score 0.70 (0 looks genuine, 1 looks fake)",
        ),
    ),
    "uncalibrated": (
        video,
        (
            "No conclusion possible: this network's scores were never measured",
            "2 people found. This is the highest score, person 1's. 10 of 11 faces judged, in 6",
            "Score 0.70 (uncalibrated: 0 looks genuine, 1 looks fake)",
        ),
    ),
    "not scored": (
        lambda: Result(
            "a.mp4", "video", Status.NO_FACE, "no face was found", frames=6, facts=FACTS
        ),
        ("Not scored: no face was found",),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_every_output_says_the_same_and_the_conclusion_first(case, tmp_path, capsys, monkeypatch):
    make, texts = CASES[case]
    result, drawn = make(), list[str]()
    true = ImageDraw.ImageDraw.text

    def text(self: ImageDraw.ImageDraw, place: Any, words: str, *rest: Any, **options: Any) -> None:
        drawn.append(words)
        true(self, place, words, *rest, **options)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", text)
    said = {}
    out = tmp_path / "out"
    options: dict[str, Any] = {"folder": out, "mode": "new"}
    printer = VerdictPrinter(result.facts, Sampling(), "tables", **options)
    printer.show(result)
    printer.close()
    said["terminal"] = capsys.readouterr().out
    if result.top_face:
        said["picture"] = " ".join(drawn)
    drawn.clear()
    FrameLayout(320, 240, result.answer).draw(Image.new("RGB", (320, 240)), [], 0.0)
    said["video"] = " ".join(drawn)
    (page,) = {*out.glob("*.html")} - {out / "index.html"}
    for name, path in (("page", page), ("index", out / "index.html")):
        said[name] = check_page(path.read_text()).words
    line = (out / "results.jsonl").read_text()
    said["JSON"] = " ".join(read_detect(line)["answer"].values())
    with (out / "results.csv").open(encoding="utf-8-sig", newline="") as stream:
        row = next(csv.DictReader(stream))
    names = ("conclusion", "threshold", "error_rates", "judged", "holds_for")
    said["table"] = " ".join(row[name] for name in names)
    print_answer(result)
    said["explain"] = capsys.readouterr().out
    write_explanation(result, (), tmp_path / "why")
    said["explain's page"] = check_page((tmp_path / "why/explain.html").read_text()).words
    said["explain's JSON"] = " ".join(to_json(result, ())["answer"].values())
    for name, shown in said.items():
        plain = " ".join(shown.split())
        for each in texts:
            if name == "table" and each.startswith(("Likelihood", "Score")):
                continue  # it has the numbers
            if name == "index" and each.startswith("Score"):
                continue  # likewise
            assert each in plain, (name, each)
        assert "P(fake)" not in plain
        assert "Score 0" not in plain[: plain.index(texts[0])], name


def test_pages_are_printed_by_a_browser_if_there_is_one(portrait, tmp_path, capsys, monkeypatch):
    with monkeypatch.context() as bare:
        bare.setenv("PATH", "")
        assert run(["detect", str(portrait), "--out", str(tmp_path / "out"), "--pdf"]) == 1
        error = capsys.readouterr().err
        assert "install it" in error and "print well" in error and error.count("\n") == 1
    try:
        browser = find_browser()
    except MissingExtraError:
        pytest.skip("no Chromium or Chrome")
    write_page(video(people=1), tmp_path / "page.html")
    print_page(browser, tmp_path / "page.html", tmp_path / "page.pdf")
    printed = (tmp_path / "page.pdf").read_bytes()
    assert printed.startswith(b"%PDF")
    assert re.search(rb"/Type /Pages\s+/Count 2", printed)


def test_toys_are_called_toys_together_too(portrait, tmp_path, capsys):
    facts = BundleFacts("drawn", limits="They know drawings only.")
    for region in (Region.EYES, Region.MOUTH):
        save_bundle([member(xception(2.0), region)], tmp_path / region, facts=facts)
    bundles = [str(tmp_path / "eyes"), str(tmp_path / "mouth")]
    command = ["detect", str(portrait), "--landmarks", "dlib-hog", "--json", "--bundle", *bundles]
    assert run(command) == 0
    written = read_detect(capsys.readouterr().out)
    assert written["warnings"][0].startswith("toy networks")
    assert written["limits"] == "They know drawings only."
    assert "the scores of these networks together" in written["answer"]["conclusion"]


def fused(path: Path, **options: Any) -> Path:
    points = tuple(
        OperatingPoint(**{**POINT, "name": f"{rate} % false alarms", **options}) for rate in (1, 5)
    )
    save_bundle([member(xception(2.0))], path, facts=BundleFacts(operating_points=points))
    return path


def test_detect_marks_what_is_above_a_stored_threshold(portrait, tmp_path, capsys):
    bundle = fused(tmp_path / "bundle")
    command = ["detect", str(portrait), "--bundle", str(bundle), "--landmarks", "dlib-hog"]
    asking = [*command, "--max-false-alarms"]
    assert run([*asking, "0.01", "--json"]) == 0
    written = read_detect(capsys.readouterr().out)
    assert (written["score"], written["above_threshold"]) == (pytest.approx(0.880797), True)
    assert written["tracks"][0]["above_threshold"] is True
    assert written["operating_point"] == json.loads(json.dumps(POINT))
    assert (written["answer"]["threshold"], written["answer"]["error_rates"]) == THRESHOLD
    high = fused(tmp_path / "high", threshold=2.5)
    assert run([*command, "--bundle", str(high), "--max-false-alarms", "0.05"]) == 0
    assert "Below the threshold for 5 % false alarms" in capsys.readouterr().out

    assert run([*asking, "0.02"]) == 2
    error = capsys.readouterr().err
    assert "no threshold for 2 % false alarms" in error
    assert "those for 1 % false alarms, 5 % false alarms" in error
    assert error.count("\n") == 1
    assert run([*asking, "0.01", "--pool.tracks", "mean"]) == 2
    assert "do not hold here" in capsys.readouterr().err
    save_bundle([member(xception(2.0))], tmp_path / "none")
    assert run([*asking, "0.01", "--bundle", str(tmp_path / "none")]) == 2
    assert "no thresholds" in capsys.readouterr().err
