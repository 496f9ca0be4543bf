"""What is said of an archive as a whole is what its rows say, counted in another way."""

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from archive_fakes import manifest_of, score
from test_report import check_page

from deepregions.archive.parts import ArchiveResults, OpenPart
from deepregions.archive.summary import RATIOS, SCORES, results_of, summarise, write_report
from deepregions.commands.cli import run

RNG = np.random.default_rng(3)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of 100 files, of which the last part is only begun, with copies and failures."""
    folder = tmp_path_factory.mktemp("archive")
    for number in range(100):
        path = folder / "in" / f"{number % 7}" / f"{number % 3}" / f"{number:03d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{number % 90}")
    manifest_of(folder / "in", folder / "m.parquet")
    (folder / "in" / "0" / "0" / "000.jpg").write_text("page:<script>")
    (folder / "in" / "0" / "0" / "021.jpg").write_text("raise:")
    score(folder / "m.parquet", folder / "out")
    last = ArchiveResults(folder / "out").finished()[-1]
    ArchiveResults(folder / "out").part(last).unlink()
    return folder


def table(made: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pa.concat_tables(
        map(pq.read_table, results_of(made / "out"))
    ).to_pylist()
    return rows


def test_a_summary_is_what_the_rows_say(made: Path) -> None:
    rows, summary = table(made), summarise(results_of(made / "out"))
    assert summary.files == len(rows) == 96
    assert summary.statuses == Counter(row["status"] for row in rows) == {"ok": 95, "error": 1}
    ((status, reason),) = summary.reasons
    assert status == "error" and reason.startswith("2 workers ended")
    scores = [row["score"] for row in rows if row["score"] is not None]
    assert summary.scores.tolist() == np.histogram(scores, SCORES)[0].tolist()
    assert summary.ratios.sum() == 0
    assert summary.size == sum(row["size"] for row in rows)
    best = sorted((s for s in scores), reverse=True)
    assert [row["score"] for row in summary.strongest] == best
    contents = Counter(row["media"]["sha256"] for row in rows if row["media"]["sha256"])
    assert summary.repeated == sum(count - 1 for count in contents.values())
    assert sorted(n for n, _ in summary.copies) == sorted(c for c in contents.values() if c > 1)
    for count, paths in summary.copies:
        assert len(paths) == count and len({Path(path).read_text() for path in paths}) == 1
    expected = Counter(str(Path(row["input"]).parent) for row in rows)
    assert {name: files for name, (files, _) in summary.folders.items()} == expected
    assert summary.folders[f"{made}/in/0/0"] == (expected[f"{made}/in/0/0"], 4)


def test_ratios_come_first_where_there_are_any(made: Path, tmp_path: Path) -> None:
    rows = pa.concat_tables(map(pq.read_table, results_of(made / "out")))
    ratios = RNG.normal(0, 2, len(rows))
    texts = [[low] for low in ratios]
    kind = rows.schema.field("llr").type
    llr = [{"log10": one, "verbal": "weak"} for (one,) in texts]
    changed = rows.set_column(rows.schema.get_field_index("llr"), "llr", pa.array(llr, kind))
    pq.write_table(changed, tmp_path / "merged.parquet")
    summary = summarise([tmp_path / "merged.parquet"])
    clipped = np.clip(ratios, -2.5, 2.5)
    assert summary.ratios.tolist() == np.histogram(clipped, RATIOS)[0].tolist()
    judged = [r for r, score in zip(ratios, rows["score"].to_pylist(), strict=True) if score]
    assert [row["llr.log10"] for row in summary.strongest] == sorted(judged, reverse=True)


def test_status_says_how_far_it_is(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["archive", "status", str(made / "out"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["files"], told["finished"], told["begun"]) == (100, 96, 0)
    assert (told["runs"], told["left"]) == (0, None)
    assert told["reasons"][0]["files"] == 1
    folder = ArchiveResults(made / "out")
    *_, chunk = manifest_of(made / "in", made / "again.parquet").chunks(16)
    part = OpenPart(folder, chunk)
    part.begin(96)
    part.add(96, b'{"id": 96, "status": "ok"}\n')
    beat = json.loads(folder.shard(1, 1).read_text())
    now = beat | {"ended": False, "time": 1e12, "done": 50, "seconds": 10.0}
    folder.shard(1, 1).write_text(json.dumps(now))
    try:
        assert run(["archive", "status", str(made / "out")]) == 0
    finally:
        part.drop()
        folder.shard(1, 1).write_text(json.dumps(beat))
    out = capsys.readouterr().out
    assert "97 of 100 (97.0 %) files have a result, 1 of them in begun parts" in out
    assert "5.0 files a second by one run; about 1 seconds left" in out
    assert "2 workers ended while this file was worked on" in out


def test_merged_results_are_the_same_rows(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    merged = tmp_path / "merged.parquet"
    assert run(["archive", "merge", str(made / "out"), "--out", str(merged)]) == 0
    assert "4 files are in no finished part yet" in capsys.readouterr().err
    assert pq.read_table(merged).to_pylist() == table(made)
    assert json.loads(pq.read_schema(merged).metadata[b"deepregions"])["facts"]
    assert run(["archive", "report", str(merged)]) == 2
    assert run(["archive", "report", str(merged), "--out", str(tmp_path / "r.html")]) == 0


def test_a_report_is_a_page_of_ours(made: Path) -> None:
    assert run(["archive", "report", str(made / "out")]) == 0
    page = (made / "out" / "report.html").read_text()
    check_page(page)
    assert "Limits of these networks: it is made up" in page
    assert "96 files" in page and '<a href="./pages/0.html">' in page
    assert (
        "Strongest evidence of manipulation first" in page
        and "Why files could not be judged" in page
    )
    write_report(summarise([]), made, made / "none.html")
    check_page((made / "none.html").read_text())


def test_results_that_are_none_are_one_line(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(made / "out", tmp_path / "cut")
    part = next((tmp_path / "cut" / "parts").glob("*.parquet"))
    part.write_bytes(part.read_bytes()[:3000])
    page, merged = str(tmp_path / "page.html"), str(tmp_path / "merged.parquet")
    cut = str(tmp_path / "cut")
    for words, said in (
        (["report", str(made / "m.parquet"), "--out", page], "m.parquet has no column"),
        (["report", cut, "--out", page], f"{part.name}: "),
        (["status", cut], f"{part.name}: "),
        (["merge", cut, "--out", merged], f"{part.name}: "),
    ):
        assert run(["archive", *words]) in (1, 2)
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["cut"]


@pytest.mark.parametrize("content", ["[]", '{"settings": 3}', '{"settings": {}}', "{", "3"])
def test_what_a_run_says_of_itself_may_be_anything(
    content: str, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(made / "out", tmp_path / "out")
    (tmp_path / "out" / "shards" / "1-of-1.json").write_text(content)
    assert run(["archive", "status", str(tmp_path / "out")]) == 0
    assert "96 files have a result" in capsys.readouterr().out
    (tmp_path / "out" / "run.json").write_text(content)
    for words in (["status"], ["score", str(made / "m.parquet"), "--out"]):
        assert run(["archive", *words, str(tmp_path / "out")]) == 2
        assert "no folder of an archive's results" in capsys.readouterr().err


def test_a_cluster_that_is_not_there_is_said_at_once(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("ray", reason="the extra ray is not installed")
    words = ["score", str(made / "m.parquet"), "--out", str(tmp_path / "out")]
    assert run(["archive", *words, "--ray", "127.0.0.1:1"]) == 2
    assert "nobody answers at 127.0.0.1:1" in capsys.readouterr().err


def test_there_have_to_be_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["status"], ["report"], ["merge", "--out", str(tmp_path / "m.parquet")]):
        assert run(["archive", command[0], str(tmp_path), *command[1:]]) == 2
        assert "no folder of an archive's results" in capsys.readouterr().err
