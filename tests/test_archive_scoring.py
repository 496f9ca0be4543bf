"""Archives: no row is lost or invented, whoever dies when, and each file has its own."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from archive_fakes import FakeScorer, broken, manifest_of, score, together
from data_helpers import write_video
from detect_json import CALIBRATED, input_results
from hypothesis import given, settings
from PIL import Image
from test_answer import fused

from deepregions.archive import parts as parts_module
from deepregions.archive.columns import OF_THE_RUN, as_line, as_results, schema
from deepregions.archive.contents import KnownContents
from deepregions.archive.driver import Driver
from deepregions.archive.manifest import Listed, as_table
from deepregions.archive.parts import ArchiveResults
from deepregions.archive.workers import FileOutcome
from deepregions.commands.cli import run
from deepregions.errors import BundleError, DeepregionsError, UsageError
from deepregions.files import lock_folder
from deepregions.pipeline.results import Result
from deepregions.pipeline.schemas import schema_text

TIMES = ["date", "seconds"]


def rows(out: Path) -> list[dict[str, Any]]:
    """All rows, by their ids, without times."""
    found = pa.concat_tables(map(pq.read_table, sorted((out / "parts").glob("*.parquet"))))
    return found.drop_columns(TIMES).to_pylist()


def files(folder: Path, *contents: str) -> Path:
    folder.mkdir()
    for number, content in enumerate(contents):
        (folder / f"{number:05d}.jpg").write_text(content)
    return folder


def test_killed_workers_and_drivers_lose_and_invent_nothing(tmp_path: Path) -> None:
    rng = random.Random(7)
    files(tmp_path / "in", *(f"slow:{rng.uniform(0, 0.015):.4f}" for _ in range(300)))
    manifest_of(tmp_path / "in", tmp_path / "manifest.parquet")
    command = [sys.executable, str(Path(__file__).with_name("archive_fakes.py"))]
    command += [str(tmp_path / "manifest.parquet"), str(tmp_path / "out")]
    kills = drivers = 0
    while True:
        driver = subprocess.Popen(command)
        kills += _kill_workers(driver, tmp_path / "out", rng)
        if driver.poll() is not None:
            break
        driver.kill()
        driver.wait()
        drivers += 1
    assert driver.returncode == 0
    assert kills >= 3 and drivers >= 2
    score(tmp_path / "manifest.parquet", tmp_path / "whole")
    assert rows(tmp_path / "out") == rows(tmp_path / "whole")
    assert [row["id"] for row in rows(tmp_path / "out")] == [*range(300)]
    assert not [*(tmp_path / "out/parts").glob("*.jsonl")]


def _kill_workers(driver: subprocess.Popen[bytes], out: Path, rng: random.Random) -> int:
    """Kills workers at random moments; a file that was hit is finished before the next is."""
    killed = 0
    for _ in range(2):
        before = finished(out)
        while finished(out) < before + 20 + rng.randrange(20):
            if driver.poll() is not None:
                return killed
            time.sleep(0.01)
        workers = [
            each
            for each in psutil.Process(driver.pid).children()
            if "spawn_main" in " ".join(each.cmdline())
        ]
        if workers:
            rng.choice(workers).kill()
            killed += 1
    time.sleep(rng.uniform(0, 0.2))
    return killed


def finished(out: Path) -> int:
    """How many files have a result, in parts or journals."""
    found = 0
    for path in (out / "parts").glob("*.*"):
        try:
            if path.suffix == ".parquet":
                found += pq.read_metadata(path).num_rows
            elif path.suffix == ".jsonl":
                found += path.read_bytes().count(b'"status"')
        except OSError:  # it has just become a part
            continue
    return found


def test_a_file_that_kills_or_fails_its_workers_becomes_a_row(tmp_path: Path) -> None:
    contents = ["a", "kill:", "b", "raise:", "slow:30", "c"]
    files(tmp_path / "in", *contents)
    manifest_of(tmp_path / "in", tmp_path / "m.parquet")
    score(tmp_path / "m.parquet", tmp_path / "out", workers=2, longest=1.0)
    found = rows(tmp_path / "out")
    assert [row["status"] for row in found] == ["ok", "error", "ok", "error", "error", "ok"]
    for number, why in ((1, "SIGKILL"), (3, "RuntimeError: no such tensor"), (4, "more than 1 s")):
        row = found[number]
        assert row["message"].startswith(f"{row['input']}: 2 workers ended while this file was")
        assert why in row["message"] and row["answer"]["conclusion"].startswith("Not scored: 2 w")
        assert (row["score"], row["tracks"]) == (None, [])


def test_a_file_during_which_runs_end_is_given_up(tmp_path: Path) -> None:
    files(tmp_path / "in", "a", "b")
    manifest = manifest_of(tmp_path / "in", tmp_path / "m.parquet")
    (chunk,) = manifest.chunks(16)
    folder = ArchiveResults(tmp_path / "out")
    folder.parts.mkdir(parents=True)
    for _ in range(parts_module.RUNS):
        part = parts_module.OpenPart(folder, chunk)
        part.begin(0)
        part._stream.close()  # as a kill does
        part = parts_module.OpenPart(folder, chunk)
        part.begin(1)
        part.close()  # as Ctrl-C does: this is nobody's fault
    score(tmp_path / "m.parquet", tmp_path / "out")
    assert [row["status"] for row in rows(tmp_path / "out")] == ["error", "ok"]
    assert "5 runs ended while this file was worked on" in rows(tmp_path / "out")[0]["message"]


def score_by_ray(folder: Path) -> "subprocess.CompletedProcess[str]":
    """Scores a manifest in a process of its own, where Ray may catch signals and start things."""
    return by_ray(folder, "archive_fakes.py", folder / "m.parquet", folder / "out", "ray")


def by_ray(folder: Path, script: str, *words: Path | str) -> "subprocess.CompletedProcess[str]":
    pytest.importorskip("ray", reason="the extra ray is not installed")
    fakes = Path(__file__).with_name(script)
    command = [sys.executable, fakes, *words]
    paths = os.pathsep.join(map(str, (fakes.parents[1], fakes.parent)))
    environment = {**os.environ, "PYTHONPATH": paths, "HOME": str(folder)}
    with TemporaryDirectory(prefix="ray") as short:  # paths of sockets are short
        environment["RAY_TMPDIR"] = short
        return subprocess.run(command, env=environment, check=False, capture_output=True, text=True)


def test_ray_scores_as_processes_do(tmp_path: Path) -> None:
    contents = ["kill:", "raise:", *("slow:0.01" for _ in range(40))]
    files(tmp_path / "in", *contents)
    manifest_of(tmp_path / "in", tmp_path / "m.parquet")
    done = score_by_ray(tmp_path)
    assert done.returncode == 0, done.stderr
    found = rows(tmp_path / "out")
    assert [row["id"] for row in found] == [*range(42)]
    assert [row["status"] for row in found] == ["error", "error", *["ok"] * 40]
    assert "the last one by the end of its process" in found[0]["message"]
    assert "the last one by RuntimeError: no such tensor" in found[1]["message"]


def test_faces_found_by_cpu_actors_are_scored_by_gpu_actors(portrait: Path, tmp_path: Path) -> None:
    """Whoever of them is killed: the rows are those of one process that does both."""
    fused(tmp_path / "bundle")
    (tmp_path / "in").mkdir()
    for number in range(16):
        (tmp_path / "in" / f"{number:02}.png").write_bytes(portrait.read_bytes() + b"-" * number)
    write_video(tmp_path / "in" / "07.mp4", [np.asarray(Image.open(portrait))] * 3)
    red = np.asarray(Image.open(portrait)).copy()
    red[..., 0] = 255
    Image.fromarray(red).save(tmp_path / "in" / "red.png")
    manifest = str(tmp_path / "m.parquet")
    assert run(["archive", "manifest", str(tmp_path / "in"), "--out", manifest]) == 0
    moments = ["3:_NetworkActor", "6:_FileActor", "9:_NetworkActor"]
    done = by_ray(tmp_path, "archive_two_pools.py", tmp_path, *moments)
    assert done.returncode == 0, done.stderr
    killed = [line for line in done.stdout.splitlines() if line.startswith("_")]
    assert killed == [moment.partition(":")[2] for moment in moments]
    scoring = ["archive", "score", manifest, "--device=cpu", "--landmarks=dlib-hog"]
    scoring += ["--bundle", str(tmp_path / "bundle"), "--out", str(tmp_path / "whole")]
    assert run(scoring) == 0
    *whole, survived = rows(tmp_path / "whole")
    *found, deadly = rows(tmp_path / "out")
    assert [row["status"] for row in (*whole, survived)] == ["ok"] * 18
    assert found == whole
    assert deadly["status"] == "error" and len(survived["faces"]) == 1
    assert "the last one by RuntimeError: the networks' processes end" in deadly["message"]


@pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
def test_a_journal_cut_anywhere_is_gone_on_with(tmp_path: Path, share: float) -> None:
    files(tmp_path / "in", *"abcdefgh")
    manifest = manifest_of(tmp_path / "in", tmp_path / "m.parquet")
    score(tmp_path / "m.parquet", tmp_path / "whole")
    (chunk,) = manifest.chunks(16)
    folder = ArchiveResults(tmp_path / "out")
    folder.parts.mkdir(parents=True)
    part = parts_module.OpenPart(folder, chunk)
    for scored in FakeScorer()(part.waiting[:6]):
        part.begin(scored.id)
        part.add(scored.id, scored.line)
    part._stream.close()
    content = folder.journal(part.span).read_bytes()
    folder.journal(part.span).write_bytes(content[: int(share * len(content))])
    driver = score(tmp_path / "m.parquet", tmp_path / "out")
    assert driver.done + driver.skipped == 8
    assert driver.skipped == int(share * len(content[:-1]) * 6 / len(content))
    assert rows(tmp_path / "out") == rows(tmp_path / "whole")


def test_shards_of_any_number_make_one_whole(tmp_path: Path) -> None:
    files(tmp_path / "in", *map(str, range(70)))
    manifest_of(tmp_path / "in", tmp_path / "m.parquet")
    made = tmp_path / "m.parquet", tmp_path / "out"
    first = score(*made, shard=2, shards=3)
    second = score(*made, shard=1, shards=2)
    third = score(*made)
    assert (first.done, second.done, third.done) == (22, 32, 16)
    assert [row["id"] for row in rows(tmp_path / "out")] == [*range(70)]
    again = score(*made)
    assert (again.done, again.skipped) == (0, 70)
    (tmp_path / "in" / "99999.jpg").write_text("new")  # an archive grows
    manifest_of(tmp_path / "in", tmp_path / "m.parquet")
    assert (score(*made).done, len(rows(tmp_path / "out"))) == (1, 71)
    (tmp_path / "in" / "00000a.jpg").write_text("in between: ids move")
    manifest_of(tmp_path / "in", tmp_path / "m.parquet")
    with pytest.raises(UsageError, match="ids 0 to 15 are those of other files"):
        score(*made)


def test_what_does_not_belong_together_is_refused(tmp_path: Path) -> None:
    files(tmp_path / "in", "a", "b")
    manifest_of(tmp_path / "in", tmp_path / "m.parquet")
    made = tmp_path / "m.parquet", tmp_path / "out"
    with pytest.raises(BundleError, match="the bundle is broken"):
        score(*made, make=broken)
    assert not (tmp_path / "out" / "run.json").exists()
    score(*made)
    with pytest.raises(UsageError, match=r"models differs \(\['fake'\], now \['another'\]\)"):
        score(*made, make=partial(FakeScorer, "another"))
    with pytest.raises(UsageError, match=r"part_size differs \(16, now 8\)"):
        score(*made, part_size=8)
    shard = ArchiveResults(tmp_path / "out").shard(1, 1)
    with lock_folder(shard, "archive score"), pytest.raises(UsageError, match="being written by"):
        score(*made)
    with pytest.raises(UsageError, match="no folder of an archive's results"):
        ArchiveResults(tmp_path).run()


def test_workers_that_do_not_start_are_not_started_for_ever(tmp_path: Path) -> None:
    files(tmp_path / "in", "a")
    manifest_of(tmp_path / "in", tmp_path / "m.parquet")
    with pytest.raises(DeepregionsError, match="workers do not start"):
        score(tmp_path / "m.parquet", tmp_path / "out", make=os.abort)


def test_workers_start_at_once_where_none_waits_for_what_another_finds(tmp_path: Path) -> None:
    files(tmp_path / "in", "a")
    manifest_of(tmp_path / "in", tmp_path / "m.parquet")
    make = partial(together, tmp_path)
    assert score(tmp_path / "m.parquet", tmp_path / "out", workers=2, make=make).done == 1


def started(folder: Path, first: str = "") -> "subprocess.Popen[str]":
    """A driver in a process of its own, which ends as a command does."""
    code = "import sys, archive_fakes as a; from pathlib import Path; " + first
    code += "from deepregions.commands.cli import _guarded; "
    code += "sys.exit(_guarded(lambda: a.score(*map(Path, sys.argv[1:])).done))"
    command = [sys.executable, "-c", code, str(folder / "m.parquet"), str(folder / "out")]
    return subprocess.Popen(command, cwd=Path(__file__).parent, stderr=subprocess.PIPE, text=True)


def test_sigterm_ends_cleanly_and_is_nobodys_fault(tmp_path: Path) -> None:
    files(tmp_path / "in", "a", "slow:30")
    manifest_of(tmp_path / "in", tmp_path / "m.parquet")
    driver = started(tmp_path)
    while not finished(tmp_path / "out"):
        time.sleep(0.02)
    workers = psutil.Process(driver.pid).children(recursive=True)
    driver.send_signal(signal.SIGTERM)
    assert driver.communicate()[1] == "deepregions: terminated\n"
    assert driver.returncode == 143
    (journal,) = (tmp_path / "out/parts").glob("*.jsonl")
    entries = [json.loads(line) for line in journal.read_text().splitlines()]
    assert {"left": 1} in entries
    assert not psutil.wait_procs(workers, timeout=10)[1]


def test_a_full_disk_is_named_and_gone_on_with(tmp_path: Path) -> None:
    files(tmp_path / "in", *map(str, range(16)))
    manifest_of(tmp_path / "in", tmp_path / "m.parquet")
    full = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000)); "
    driver = started(tmp_path, full)
    said = driver.communicate()[1]
    assert driver.returncode == 1
    assert ".jsonl: " in said and "free space" in said and said.count("\n") == 1
    before = finished(tmp_path / "out")
    assert 0 < before < 16
    assert score(tmp_path / "m.parquet", tmp_path / "out").skipped == before
    assert [row["id"] for row in rows(tmp_path / "out")] == [*range(16)]


def test_results_are_those_of_detect(
    portrait: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the command line, with networks: the same answers, and what has happened since."""
    fused(tmp_path / "bundle")
    folder = tmp_path / "in"
    folder.mkdir()
    names = ["a.png", "clip.mp4", "broken.jpg", os.fsdecode(b"caf\xe9.png"), "gone.png", "new.png"]
    paths = [folder / name for name in names]
    for path in (paths[0], *paths[3:]):
        path.write_bytes(portrait.read_bytes())
    write_video(paths[1], [np.asarray(Image.open(portrait))] * 3)
    paths[2].write_text("no picture")
    manifest = str(tmp_path / "m.parquet")
    assert run(["archive", "manifest", str(folder), "--out", manifest]) == 0
    paths[4].unlink()
    paths[5].write_bytes(portrait.read_bytes() + b"more")
    options = ["--bundle", str(tmp_path / "bundle"), "--landmarks=dlib-hog", "--frames=2"]
    options += ["--max-false-alarms=0.01"]
    out = tmp_path / "out"
    scoring = ["archive", "score", manifest, "--out", str(out), *options]
    assert run([*scoring, "--pages=evidence"]) == 0
    assert "6 files scored, 0 before" in capsys.readouterr().out
    assert run(["detect", *map(str, [*paths[:4], paths[5]]), "--json", *options]) == 0
    told = {
        (line := json.loads(text))["input"]: line for text in capsys.readouterr().out.splitlines()
    }
    found = {row["input"]: row for row in rows(out)}
    changed = found[str(paths[5])]["warnings"].pop(0)
    assert changed.startswith("it has changed since it was listed: ")
    gone = found.pop(str(paths[4]))
    assert gone["status"] == "unreadable" and "No such file" in gone["message"]
    assert gone["warnings"] == ["it was there when it was listed, and is not now"]
    for path in [*paths[:4], paths[5]]:
        line = told[str(path)]
        row = found[str(path).replace("\udce9", "\\xe9")]
        for name in (*line.keys() - {*OF_THE_RUN, "input", "date"}, "above_threshold"):
            expected = json.loads(json.dumps(line.get(name)).replace("\\udce9", "\\\\xe9"))
            assert plain(row[name]) == plain(expected), name
    facts = json.loads(
        pq.read_schema(next((out / "parts").glob("*.parquet"))).metadata[b"deepregions"]
    )
    assert facts["facts"]["models"] == line["models"]
    above = {f"{row['id']}.html" for row in rows(out) if row["above_threshold"]}
    assert {path.name for path in (out / "pages").iterdir()} == above
    assert len(above) == 4
    assert "Weak" not in (out / "pages" / min(above)).read_text()
    assert "1 % false alarms" in (out / "pages" / min(above)).read_text()
    capsys.readouterr()
    assert run([*scoring, "--gates.min-size=20"]) == 2
    assert "was begun with other settings: gates differs" in capsys.readouterr().err


def test_copies_are_scored_once_and_have_the_rows_they_would_have(
    portrait: Path, tmp_path: Path
) -> None:
    fused(tmp_path / "bundle")
    folder = tmp_path / "in"
    folder.mkdir()
    content = portrait.read_bytes()
    broken = content[: len(content) // 2]  # it is read in part, which a warning with its name says
    for number, each in enumerate((content, content, b"no", broken, content, b"no", broken)):
        (folder / f"{number}.png").write_bytes(each)
    (folder / "8.mp4").write_bytes(content)
    manifest = str(tmp_path / "m.parquet")
    assert run(["archive", "manifest", str(folder), "--out", manifest]) == 0
    with (folder / "4.png").open("r+b"):
        os.utime(folder / "4.png", (0, 0))
    options = ["--bundle", str(tmp_path / "bundle"), "--landmarks=dlib-hog"]
    options += ["--max-false-alarms=0.01", "--pages=evidence"]
    scoring = ["archive", "score", manifest, *options, "--out"]
    assert run([*scoring, str(tmp_path / "each"), "--no-reuse-copies"]) == 0
    assert run([*scoring, str(tmp_path / "once")]) == 0
    assert not (tmp_path / "each" / "contents").exists()
    assert rows(tmp_path / "once") == rows(tmp_path / "each")
    assert rows(tmp_path / "once")[4]["warnings"][0].startswith("it has changed since")
    kept = KnownContents(tmp_path / "once" / "contents")
    keys = kept.key(folder / "0.png"), kept.key(folder / "8.mp4")
    picture, film = map(kept.find, keys)
    assert picture is not None and film is not None
    for out in ("each", "once"):
        for page in (tmp_path / out / "pages").iterdir():
            assert str(folder / f"{page.stem}.png") in page.read_text() or page.stem == "7"
    shutil.rmtree(tmp_path / "once" / "parts")
    kept.keep(keys[0], picture | {"score": 0.125}, "!")  # to see whose it is
    kept.keep(keys[1], film | {"score": 0.125}, "!")
    (last,) = (tmp_path / "once" / "contents").glob(f"{kept._mine.hex()}.results")
    os.truncate(last, last.stat().st_size - 1)  # by a power cut
    assert kept.find(keys[1]) is None
    assert run([*scoring, str(tmp_path / "once"), "--reuse-copies"]) == 0
    scores = [row["score"] for row in rows(tmp_path / "once")]
    before = [row["score"] for row in rows(tmp_path / "each")]
    assert [number for number, score in enumerate(scores) if score == 0.125] == [0, 1, 4]
    assert (scores[3], scores[7]) == (before[3], before[7])


class Orderly:
    """A pool of one process that takes two files, and answers one at a time."""

    def __init__(self) -> None:
        self.given: list[int] = []
        self.files: list[Listed] = []

    def start(self) -> dict[str, Any]:
        return dict(FakeScorer().run)

    def room(self) -> int:
        return 2 - len(self.files)

    def put(self, file: Listed) -> None:
        self.given.append(file.id)
        self.files.append(file)

    def flush(self) -> None:
        """Nothing waits."""

    def wait(self) -> list[FileOutcome]:
        assert self.files, "it is asked what came of files, and has none"
        file = self.files.pop(0)
        return [FileOutcome(file, next(FakeScorer()([file])))]

    def close(self) -> None:
        """There are no processes."""


@pytest.mark.parametrize(
    ("contents", "order"),
    [(["aa", "aa", "aa", "b", "ccc"], [0, 3, 1, 4, 2]), (["aa"] * 9, [*range(9)])],
)
def test_what_may_be_a_copy_waits_for_its_like_where_others_can_be_scored(
    tmp_path: Path, contents: list[str], order: list[int]
) -> None:
    files(tmp_path / "in", *contents)
    manifest, pool = manifest_of(tmp_path / "in", tmp_path / "m.parquet"), Orderly()
    Driver(manifest, ArchiveResults(tmp_path / "out"), pool, reuse_copies=True).score()
    assert pool.given == order
    assert [row["id"] for row in rows(tmp_path / "out")] == [*range(len(contents))]


def test_what_has_no_copy_is_not_compared(portrait: Path, tmp_path: Path) -> None:
    fused(tmp_path / "bundle")
    (tmp_path / "in").mkdir()
    for number in range(3):
        (tmp_path / "in" / f"{number}.png").write_bytes(portrait.read_bytes() + b"-" * number)
    manifest, out = str(tmp_path / "m.parquet"), tmp_path / "out"
    assert run(["archive", "manifest", str(tmp_path / "in"), "--out", manifest]) == 0
    scoring = ["archive", "score", manifest, "--out", str(out)]
    scoring += ["--bundle", str(tmp_path / "bundle"), "--landmarks=dlib-hog", "--reuse-copies"]
    assert run(scoring) == 0
    assert [row["status"] for row in rows(out)] == ["ok"] * 3
    assert not (out / "contents").exists()


def plain(value: Any) -> Any:
    """A value without what is null, maps as dictionaries."""
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items() if each is not None}
    if isinstance(value, list):
        if value and isinstance(value[0], tuple):
            return plain(dict(value))
        return [plain(each) for each in value]
    return value


def test_every_field_of_the_json_has_its_place() -> None:
    """A field is a column or one of the run's; none has two definitions."""
    described = json.loads(schema_text("detect"))["properties"]
    assert {*schema().names} >= described.keys() - {*OF_THE_RUN}
    assert {*OF_THE_RUN} <= described.keys()


@given(input_results())
@settings(max_examples=30)
def test_any_result_is_a_row(result: Result) -> None:
    told = replace(result, facts=CALIBRATED | {"date": CALIBRATED["date"]}).to_dict()
    files = as_table([Listed(3, "/a")])
    (row,) = as_results(files, [as_line(3, told, 0.5)]).to_pylist()
    assert (row["id"], row["score"], row["seconds"]) == (3, told["score"], 0.5)
    assert len(row["faces"]) == len(result.faces)
    assert row["date"].isoformat() == told["date"]
