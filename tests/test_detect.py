"""``deepregions detect`` as strangers use it: stopped, gone on with, and fed with anything."""

import csv
import io
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from data_helpers import write_video
from detect_json import read_detect, validate_detect
from networks import dsp_fwa, member, xception
from PIL import Image
from test_report import check_page

from deepregions.commands.cli import run
from deepregions.files import lock_folder
from deepregions.pipeline.results_folder import ResultsFolder
from deepregions.types import Region
from deepregions.weights.bundle import save_bundle

LANDMARKS = ["--landmarks", "dlib-hog"]


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    """Two bundles: Xception says 2 of the face and -1 of the mouth, DSP-FWA 5 of the face."""
    folder = tmp_path_factory.mktemp("bundles")
    save_bundle([member(xception(2.0)), member(xception(-1.0), Region.MOUTH)], folder / "a")
    save_bundle([member(dsp_fwa(5.0))], folder / "b")
    return [str(folder / "a"), str(folder / "b")]


@pytest.fixture
def bundle(bundles):
    return bundles[0]


@pytest.fixture
def blank(tmp_path):
    path = tmp_path / "blank.png"
    Image.new("RGB", (90, 90), (200, 200, 200)).save(path)
    return path


@pytest.fixture
def many(portrait, tmp_path):
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(12):
        shutil.copy(portrait, folder / f"{number:02d}.png")
    return folder


def lines(out: Path) -> list[dict[str, object]]:
    path = out / "results.jsonl"
    return [json.loads(text) for text in path.read_text().splitlines()] if path.exists() else []


def test_json_says_all(portrait, bundles, capsys):
    assert run(["detect", str(portrait), "--bundle", *bundles, *LANDMARKS, "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    result = read_detect(line)
    assert (result["schema"], result["version"]) == ("deepregions.detect", 3)
    assert (result["status"], result["input"]) == ("ok", str(portrait))
    assert result["log_odds"] == pytest.approx(2.0)
    assert result["score"] == pytest.approx(torch.sigmoid(torch.tensor(2.0)).item(), abs=1e-6)
    (face,) = result["faces"]
    cells = {(cell["detector"], cell["region"]): cell["log_odds"] for cell in face["cells"]}
    expected = {("xception", "entire"): 2.0, ("xception", "mouth"): -1.0}
    assert cells == expected | {("dsp-fwa", "entire"): 5.0}
    x0, y0, x1, y1 = face["box"]
    assert 60 < x0 < 120 < x1 < 220  # where the astronaut's face is
    assert 40 < y0 < 100 < y1 < 240
    assert [model["sha256"] for model in result["models"]] == [
        entry["sha256"]
        for bundle in bundles
        for entry in json.loads((Path(bundle) / "bundle.json").read_text())["members"]
    ]
    assert result["landmarks"]["name"] == "dlib68+hog"


def test_a_bad_file_is_no_hindrance_and_pictures_are_written(portrait, bundles, blank, capsys):
    folder, out = blank.parent / "in", blank.parent / "out"
    folder.mkdir()
    (folder / "a_broken.jpg").write_text("no picture")
    shutil.copy(portrait, folder / "b.png")
    blank.rename(folder / "c_empty.png")
    assert run(["detect", str(folder), "--bundle", *bundles, *LANDMARKS, "--out", str(out)]) == 0
    printed = capsys.readouterr()
    assert re.search(r"a_broken.jpg.*Not scored", printed.out)
    assert re.search(
        r"b.png.*No conclusion possible(.*\n)+ *Score 0\.88 \(uncalibrated", printed.out
    )
    assert re.search(r"c_empty.png.*Not scored: no face was found", printed.out)
    assert len([line for line in printed.err.splitlines() if line.startswith("deepregions")]) == 2
    names = {path.name for path in out.iterdir() if not path.name.startswith(".")}
    pages = {"a_broken.html", "b.html", "c_empty.html"}
    assert names == {*pages, "b.png", "index.html", "results.csv", "results.jsonl"}
    results = [read_detect(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert [result["status"] for result in results] == ["unreadable", "ok", "no_face"]
    assert [result["score"] is None for result in results] == [True, False, True]


def test_region_canvases_are_taken_as_they_are(bundles, blank, capsys):
    command = ["detect", str(blank), "--bundle", *bundles, "--segmented", "--json", "--region"]
    assert run([*command, "mouth"]) == 0
    result = read_detect(capsys.readouterr().out)
    assert result["log_odds"] == pytest.approx(-1.0)
    assert result["landmarks"] is None
    assert run([*command, "nose"]) == 2
    assert "there is no network for nose" in capsys.readouterr().err


def test_options_may_come_from_yaml_and_in_old_spellings(portrait, bundles, tmp_path, capsys):
    config = tmp_path / "detect.yaml"
    config.write_text(f"bundle: {json.dumps(bundles[:1])}\nlandmarks: dlib-hog\njson: true\n")
    assert run(["detect", str(portrait), "--config", str(config)]) == 0
    assert read_detect(capsys.readouterr().out)["log_odds"] == pytest.approx(0.5)
    config.write_text(f"rules: {{track: median}}\nmodels: {bundles[0]}\nlandmarks: dlib-hog\n")
    assert run(["detect", str(portrait), "--database=made", "--json", "-c", str(config)]) == 0
    printed = capsys.readouterr()
    assert read_detect(printed.out)["rules"]["faces"].startswith("median")
    assert {*printed.err.splitlines()} == {
        "deepregions: --database is now --trained-on",
        f"deepregions: models in {config} is now bundle",
        f"deepregions: rules.track in {config} is now pool.frames",
    }


def test_a_bundle_does_not_swallow_the_inputs(portrait, bundles, capsys):
    """Several bundles or a folder of them, before or after the inputs."""
    folder = str(Path(bundles[0]).parent)
    options = [*LANDMARKS, "--json"]
    for words in (
        ["--bundle", *bundles, str(portrait), *options],
        ["--bundle", folder, str(portrait), *options],
        [*options, f"--bundle={folder}", str(portrait)],
        [str(portrait), *options, "--models", folder],
    ):
        assert run(["detect", *words]) == 0
        assert len(read_detect(capsys.readouterr().out)["models"]) == 3
    assert run(["detect", "--bundle", bundles[0], "typo.jpg"]) == 2
    assert "typo.jpg: no such file" in capsys.readouterr().err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_what_was_finished_is_kept_and_gone_on_with(number, code, many, bundle, tmp_path, capsys):
    out = tmp_path / "out"
    command = ["detect", str(many), "--bundle", bundle, "--out", str(out), *LANDMARKS]
    process = subprocess.Popen(
        [sys.executable, "-m", "deepregions", *command],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        # Whoever runs the tests in the background may ignore SIGINT, and so would the command.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )
    deadline = time.monotonic() + 300
    while len(lines(out)) < 2 and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(number)
    _, error = process.communicate(timeout=200)
    assert process.returncode == code, error
    assert error.splitlines()[-1].startswith("deepregions: ")
    assert "Traceback" not in error
    kept = lines(out)
    assert 2 <= len(kept) < 12
    assert (out / "index.html").stat().st_size > 1000
    for line in kept:
        validate_detect(line)
    assert {p.stem for p in out.glob("*.html")} == {"index", *(Path(x["input"]).stem for x in kept)}

    assert run([*command, "--resume"]) == 0
    assert capsys.readouterr().out.count("(uncalibrated") == 12 - len(kept)
    names = [str(line["input"]) for line in lines(out)]
    assert names == [str(path) for path in sorted(many.iterdir())]
    with (out / "results.csv").open(encoding="utf-8-sig", newline="") as stream:
        assert [row["input"] for row in csv.DictReader(stream)] == names
    assert run([*command, "--resume"]) == 0
    done, where = capsys.readouterr().out.splitlines()  # nothing is left to do; all had a score
    assert done == "12 of 12 files were done before"
    assert where == f"Open {out / 'index.html'} in a browser."


def test_earlier_results_are_only_replaced_when_told(portrait, bundle, tmp_path, capsys):
    command = ["detect", str(portrait), "--bundle", bundle, "--out", str(tmp_path), *LANDMARKS]
    assert run(command) == 0
    assert run(command) == 2
    assert "--resume goes on with it, --overwrite" in capsys.readouterr().err
    assert run([*command, "--resume", "--frames", "7"]) == 0  # a photograph has no frames to choose
    assert run([*command, "--resume", "--gates.min_size", "50"]) == 2
    assert "gates differs" in capsys.readouterr().err
    assert run([*command, "--overwrite", "--gates.min_size", "50"]) == 0
    assert len(lines(tmp_path)) == 1


def test_a_folder_has_one_detect_at_a_time(portrait, bundle, tmp_path, capsys):
    """B18: two runs into one folder doubled every line."""
    command = ["detect", str(portrait), "--bundle", bundle, "--out", str(tmp_path / "out")]
    with lock_folder(tmp_path / "out", "detect"):
        assert run([*command, *LANDMARKS]) == 2
    assert "is being written by detect (process" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert run([*command, *LANDMARKS]) == 0
    assert len(lines(tmp_path / "out")) == 1


def test_exit_codes_say_how_much_could_be_scored(portrait, bundle, blank, capsys):
    command = ["detect", "--bundle", bundle, *LANDMARKS, "--json"]
    assert run([*command, str(portrait), str(blank)]) == 0
    assert run([*command, str(portrait), str(blank), "--min-coverage", "0.5"]) == 0
    assert run([*command, str(portrait), str(blank), "--min-coverage", "0.6"]) == 3
    assert run([*command, str(blank), "--min-coverage", "0.6"]) == 5
    for text in capsys.readouterr().out.splitlines():
        validate_detect(json.loads(text))


def test_gates_and_rules_are_options(portrait, bundle, capsys):
    command = ["detect", str(portrait), "--bundle", bundle, *LANDMARKS, "--json"]
    assert run([*command, "--gates.min_size", "2000", "--pool.frames", "median"]) == 5
    result = json.loads(capsys.readouterr().out)
    validate_detect(result)
    assert (result["status"], result["score"]) == ("too_small", None)
    assert result["gates"]["min_size"] == 2000
    assert result["tracks"][0]["rule"] == "median of log-odds over its faces"
    assert result["faces"][0]["reasons"] == ["too small"]


def test_csv_has_a_line_a_person(portrait, bundle, tmp_path, capsys):
    odd = tmp_path / "=cmd.jpg"
    odd.write_text("no picture")
    assert run(["detect", str(portrait), str(odd), "--bundle", bundle, *LANDMARKS, "--csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["status"] for row in rows] == ["ok", "unreadable"]
    assert float(rows[0]["xception/mouth"]) == pytest.approx(0.268941, abs=1e-5)
    assert rows[1]["score"] == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--json", "--csv"], "do not go together"),
        (["--resume"], "--resume needs a folder"),
        (["--annotate"], "--annotate needs a folder"),
        (["--out", "o", "--resume", "--overwrite"], "do not go together"),
        (["--rate", "2", "--adaptive"], "do not go together"),
        (["--rate", "0"], "more than 0"),
        (["--rate", "nan"], "rate"),
        (["--min-coverage", "2"], "from 0 to 1"),
        (["--pool.frames", "best"], "pool.frames"),
        (["--gates.min_size", "big"], "gates.min_size"),
        (["--landmarks", "openface:nowhere"], "nowhere"),
    ],
)
def test_wrong_usage_is_one_line(options, message, portrait, bundle, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(["detect", str(portrait), "--bundle", bundle, *options]) in {1, 2}
    printed = capsys.readouterr()
    assert not printed.out
    assert message in printed.err
    assert printed.err.count("\n") == 1
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    "name", ["-rf 😀.png", "a\nb.png", "<script>alert(1)<script>.png", "\x1b[2Jx.png"]
)
def test_odd_names_are_shown_and_written_harmlessly(name, portrait, bundle, tmp_path, capsys):
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    shutil.copy(portrait, folder / name)
    (folder / Path(name).with_suffix(".jpg")).write_text("no picture")  # of the same stem
    assert run(["detect", str(folder), "--bundle", bundle, "--out", str(out), *LANDMARKS]) == 0
    printed = capsys.readouterr()
    for text in (printed.out, printed.err):
        assert "\x1b[2J" not in text
    assert printed.err.count("\n") == 1
    assert {line["input"] for line in lines(out)} == {str(each) for each in folder.iterdir()}
    pages = [path for path in out.iterdir() if path.suffix == ".html"]
    assert len(pages) == 3  # two inputs and the index
    for page in pages:
        check_page(page.read_text())  # no script but the list's own, which its policy names
        assert "<script>alert" not in page.read_text()
        assert page.name.isprintable() and not page.name.startswith("-")


def test_a_full_disk_is_one_line_and_what_was_written_stays(
    many, bundle, tmp_path, monkeypatch, capsys
):
    true = ResultsFolder.add
    out = tmp_path / "out"

    def add(self: ResultsFolder, *arguments: object) -> None:
        if len(self.finished) == 2:
            raise OSError(28, "No space left on device", str(out / "results.jsonl"))
        true(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(ResultsFolder, "add", add)
    assert run(["detect", str(many), "--bundle", bundle, "--out", str(out), *LANDMARKS]) == 1
    error = capsys.readouterr().err
    assert "No space left on device" in error and error.count("\n") == 1
    finished = {Path(line["input"]).stem for line in lines(out)}
    assert len(finished) == 2
    assert {path.stem for path in out.glob("*.png")} == finished  # none of what was begun
    assert {path.stem for path in out.glob("*.html")} == {*finished, "index"}


@pytest.mark.parametrize("command", ["detect", "segment"])
def test_a_file_is_no_folder_to_write_to(command, portrait, bundle, tmp_path, capsys):
    (tmp_path / "mine").write_text("precious")
    detecting = ["--bundle", bundle, *LANDMARKS]
    options = detecting if command == "detect" else ["--backend", "dlib-hog"]
    assert run([command, str(portrait), "--out", str(tmp_path / "mine"), *options]) == 1
    error = capsys.readouterr().err
    assert re.search(r"/mine(/portrait)?: (File exists|Not a directory) \(check the path", error)
    assert error.count("\n") == 1
    assert (tmp_path / "mine").read_text() == "precious"


def test_a_video_is_copied_with_boxes(portrait, bundle, tmp_path):
    pixels = np.asarray(Image.open(portrait))
    shifted = (np.roll(pixels, shift, 1) for shift in range(12))
    clip = write_video(tmp_path / "clip.mp4", shifted, rate=10)
    out = tmp_path / "out"
    command = ["detect", str(clip), "--bundle", bundle, "--out", str(out), "--frames", "4"]
    assert run([*command, *LANDMARKS, "--annotate"]) == 0
    (result,) = lines(out)
    validate_detect(result)
    assert len(result["tracks"]) == 1  # type: ignore[arg-type]
    with av.open(str(out / "clip.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 12
