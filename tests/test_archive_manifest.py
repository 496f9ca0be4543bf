"""Manifests: any number of files, any names, and what is wrong with one is named."""

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepregions.archive.manifest import (
    SCHEMA,
    FileManifest,
    Listed,
    as_files,
    as_table,
    list_files,
    write_manifest,
)
from deepregions.commands.cli import run
from deepregions.errors import DeepregionsError

BAD = b"caf\xe9 \n.jpg"  # Latin-1, as old archives have it


def listed(*roots: Path, **how: bool) -> list[Listed]:
    return list(list_files(roots, warn=pytest.fail, **how))


def test_folders_are_walked_in_order_and_links_to_folders_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "b/deep").mkdir(parents=True)
    (tmp_path / "b/loop").symlink_to(tmp_path)
    (tmp_path / "b/deep/2.jpg").write_bytes(b"22")
    (tmp_path / "a.jpg").write_bytes(b"1")
    (tmp_path / ".hidden.jpg").write_bytes(b"0")
    (tmp_path / "circle.jpg").symlink_to("circle.jpg")
    (tmp_path / "gone.jpg").symlink_to("nowhere")
    (tmp_path / "link.jpg").symlink_to("a.jpg")
    (tmp_path / "z.xml").write_bytes(b"<a/>")
    (tmp_path / os.fsdecode(BAD)).write_bytes(b"333")
    os.mkfifo(tmp_path / "pipe")
    found = listed(tmp_path)
    names = ["a.jpg", "b/deep/2.jpg", os.fsdecode(BAD), "circle.jpg", "gone.jpg", "link.jpg"]
    assert [each.path for each in found] == [str(tmp_path / name) for name in [*names, "z.xml"]]
    assert [(each.id, each.size) for each in found] == [*enumerate((1, 2, 3, None, None, 1, 4))]
    assert "z.xml" not in {Path(each.path).name for each in listed(tmp_path, media_only=True)}
    assert write_manifest(found, tmp_path / "m.parquet") == (7, 11)
    manifest = FileManifest(tmp_path / "m.parquet")
    (chunk,) = manifest.chunks(10)
    assert list(as_files(chunk)) == found
    assert chunk["path"][2].as_py() == f"{tmp_path}/caf\\xe9 \n.jpg"
    assert chunk["path_bytes"].to_pylist()[1:3] == [None, os.fsencode(tmp_path) + b"/" + BAD]


@given(st.lists(st.binary(min_size=1, max_size=20).filter(lambda b: b"\0" not in b), max_size=9))
def test_any_name_comes_back(names: list[bytes]) -> None:
    files = [Listed(2 * n, os.fsdecode(name), n, n) for n, name in enumerate(names)]
    assert list(as_files(as_table(files))) == files


def test_sizes_that_several_files_have_are_known(tmp_path: Path) -> None:
    sizes = [5, 7, 5, 0, 0, None, 1 << 25, 7 + (1 << 24), 9]
    files = [Listed(n, f"/{n}", size) for n, size in enumerate(sizes)]
    write_manifest(files, tmp_path / "m.parquet")
    shared = FileManifest(tmp_path / "m.parquet").shared_sizes()
    assert [each.id for each in files if each in shared] == [0, 1, 2, 5, 6, 7]
    pq.write_table(pa.table({"id": [1, 2], "path": ["/1", "/2"]}), tmp_path / "bare.parquet")
    unknown = FileManifest(tmp_path / "bare.parquet").shared_sizes()
    assert Listed(1, "/1") in unknown and Listed(1, "/1", 3) not in unknown


def test_lists_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    bad = tmp_path / os.fsdecode(BAD.replace(b"\n", b""))
    bad.write_bytes(b"x")
    (tmp_path / "a.txt").write_bytes(b"one.jpg\r\n" + os.fsencode(bad) + b"\n\n/two.jpg")
    (tmp_path / "b.txt").write_bytes(b"new\nline\0b.jpg\0")
    (tmp_path / "c.csv").write_bytes(b"what,path,id\n1,c.jpg,70\n2," + os.fsencode(bad) + b",80\n")
    write_manifest(listed(tmp_path / "c.csv"), tmp_path / "d.parquet")
    found = listed(tmp_path / "a.txt", tmp_path / "b.txt", tmp_path / "d.parquet", bad)
    assert [each.id for each in found] == [0, 1, 2, 3, 4, 70, 80, 81]
    paths = ["one.jpg", bad, "/two.jpg", "new\nline", "b.jpg", "c.jpg", bad, bad]
    assert [each.path for each in found] == [str(tmp_path / path) for path in paths]
    assert found[1].size == 1


@pytest.mark.parametrize("rows", [0, 1, 15, 16, 17, 100])
@pytest.mark.parametrize("shards", [1, 3])
def test_shards_have_each_row_once(tmp_path: Path, rows: int, shards: int) -> None:
    table = as_table([Listed(3 * number, f"/{number}") for number in range(rows)])
    pq.write_table(table, tmp_path / "m.parquet", row_group_size=7)
    manifest = FileManifest(tmp_path / "m.parquet")
    found = []
    for shard in range(1, shards + 1):
        chunks = list(manifest.chunks(16, shard, shards))
        assert manifest.count(16, shard, shards) == sum(map(len, chunks))
        found += [number for chunk in chunks for number in chunk["id"].to_pylist()]
    assert sorted(found) == [3 * number for number in range(rows)]


def test_a_manifest_of_somebody_else_needs_ids_and_paths_only(tmp_path: Path) -> None:
    table = pa.table({"path": ["/a"], "id": pa.array([5], pa.int32()), "more": [1]})
    pq.write_table(table, tmp_path / "m.parquet")
    (chunk,) = FileManifest(tmp_path / "m.parquet").chunks(4)
    assert chunk.schema == SCHEMA
    assert list(as_files(chunk)) == [Listed(5, "/a")]


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"path": ["/a"]}, "has no column 'id'"),
        ({"id": [1], "file": ["/a"]}, r"has no column 'path' \(it has id, file\)"),
        ({"id": [1, 1], "path": ["/a", "/b"]}, "the id 1 is there twice"),
        ({"id": [1, 0], "path": ["/a", "/b"]}, "ids must rise from 0 on, and 0 comes after 1"),
        ({"id": [-1], "path": ["/a"]}, "twice|rise"),
        ({"id": [1, None], "path": ["/a", "/b"]}, "an id is no whole number"),
        ({"id": ["x"], "path": ["/a"]}, "an id is no whole number"),
    ],
)
def test_what_is_wrong_with_a_manifest_is_named(
    tmp_path: Path, table: dict[str, list[object]], said: str
) -> None:
    pq.write_table(pa.table(table), tmp_path / "m.parquet")
    with pytest.raises(DeepregionsError, match=said):
        FileManifest(tmp_path / "m.parquet")


def test_wrong_use_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "no.csv").write_text("file\na\n")
    (tmp_path / "no.parquet").write_text("no")
    out = str(tmp_path / "m.parquet")
    for root, said in (
        ("empty", "there are no files to list"),
        ("gone", "no such file or folder"),
        ("no.csv", "has no column 'path'"),
        ("no.parquet", "no.parquet"),
    ):
        assert run(["archive", "manifest", str(tmp_path / root), "--out", out]) != 0
        assert said in capsys.readouterr().err
    assert not Path(out).exists()
    score = ["archive", "score", out, "--out", str(tmp_path / "out")]
    for words, said in (
        (["--shard", "3/2"], "--shard is '3/2' (such as 1/8"),
        (["--pages", "evidence"], "--max-false-alarms names one"),
        (["--workers", "0"], "--workers is 0"),
        ([], "no such manifest (deepregions archive manifest"),
    ):
        assert run([*score, *words]) == 2
        assert said in capsys.readouterr().err
