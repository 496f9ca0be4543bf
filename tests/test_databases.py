"""Which file is what: labels, people, and splits that share nobody."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from trees import facts, touch, write_json

from deepregions.data.databases import Clip, FaceForensics, Folder, assert_identity_disjoint
from deepregions.errors import UsageError
from deepregions.people import connected, identity_splits

PAIRS = {
    "train": [["000", "003"], ["010", "011"]],
    "val": [["020", "021"]],
    "test": [["030", "031"]],
}


@pytest.fixture
def ffpp(tmp_path: Path) -> Path:
    root = tmp_path / "ffpp"
    for split, pairs in PAIRS.items():
        write_json(root / f"splits/{split}.json", pairs)
    for people in PAIRS.values():
        for one, two in people:
            for person in (one, two):
                touch(root / f"original_sequences/youtube/c23/videos/{person}.mp4")
            for method in ("Deepfakes", "NeuralTextures"):
                for pair in (f"{one}_{two}", f"{two}_{one}"):
                    touch(root / f"manipulated_sequences/{method}/c23/videos/{pair}.mp4")
    return root


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "folder"
    for person in range(30):
        for shot in ("neutral", "smiling"):
            touch(root / f"real/{person:03d}_{shot}.jpg")
        touch(root / f"fake/{person:03d}_{(person + 1) % 30 if person < 9 else person:03d}.mp4")
    return root


def test_ffpp_as_published(ffpp: Path) -> None:
    clips = FaceForensics(ffpp).clips()
    assert Counter(clip.split for clip in clips) == {"train": 12, "val": 6, "test": 6}
    assert len({clip.key for clip in clips}) == len(clips) == 24
    by_key = {clip.key: clip for clip in clips}
    assert facts(by_key["Deepfakes/c23/003_000"]) == "1 Deepfakes c23 003+000 train"
    assert facts(by_key["original/c23/020"]) == "0 original c23 020 val"
    assert all(clip.path.is_file() for clip in clips)


def test_ffpp_uses_what_is_there_and_counts_what_it_leaves_out(ffpp: Path) -> None:
    videos = ffpp / "manipulated_sequences/Deepfakes/c23/videos"
    (videos / "000_003.mp4").unlink()
    touch(videos / "000_020.mp4")  # train onto val
    touch(videos / "000_010.mp4")  # both train, but no official pair
    touch(ffpp / "manipulated_sequences/DeepFakeDetection/c23/videos/01_02__walk__ABCDEFGH.mp4")
    touch(ffpp / "original_sequences/actors/c23/videos/01__walk.mp4")
    database = FaceForensics(ffpp)
    clips = database.clips()
    assert len(clips) == 23
    assert database.left_out == {
        "its two people are in different splits": 1,
        "not in the official splits": 1,
        "of DeepFakeDetection (--database dfd)": 2,
    }
    assert not any("000_020" in clip.key for clip in clips)


def test_ffpp_raw_as_older_downloads_have_it(ffpp: Path) -> None:
    expected = len(FaceForensics(ffpp, "c23").clips())
    for folder in [*ffpp.glob("*_sequences/*/c23")]:
        for video in [*folder.glob("videos/*.mp4")]:
            video.rename(video.with_suffix(".MP4"))
        folder.rename(folder.with_name("c0"))
    assert len(FaceForensics(ffpp, "raw").clips()) == expected


def test_ffpp_methods(ffpp: Path) -> None:
    clips = FaceForensics(ffpp, methods=["NeuralTextures"]).clips()
    assert {clip.method for clip in clips} == {"original", "NeuralTextures"}
    with pytest.raises(UsageError, match=r"'Deepfake'.*Deepfakes, NeuralTextures"):
        FaceForensics(ffpp, methods=["Deepfake"])


def test_ffpp_bad_trees(ffpp: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"train\.json is not there.*as published"):
        FaceForensics(tmp_path / "elsewhere")
    for text in ("{", '{"a": 1}', "[[1, 2, 3]]", '["abc"]', "[3]"):
        (ffpp / "splits/val.json").write_text(text)
        with pytest.raises(UsageError, match=r"val\.json is not a list of pairs"):
            FaceForensics(ffpp)
    (ffpp / "splits/val.json").write_text('[["000", "021"]]')
    with pytest.raises(UsageError, match=r"000 is in train\.json too"):
        FaceForensics(ffpp)


def test_ffpp_real_files(shared: Path) -> None:
    root = shared / "videos/ffpp"
    clips = {clip.key: clip for clip in FaceForensics(root).clips()}
    assert {key: (clip.label, clip.split) for key, clip in clips.items()} == {
        "original/c23/519": (0, "train"),
        "Deepfakes/c23/519_515": (1, "train"),
        "original/c23/004": (0, "val"),
        "NeuralTextures/c23/004_982": (1, "val"),
    }
    pairs = {p.stem: len(json.loads(p.read_text())) for p in (root / "splits").glob("*.json")}
    assert pairs == {"train": 360, "val": 70, "test": 70}


def test_folder(folder: Path) -> None:
    touch(folder / "fake/Face2Face/deep/040_041.mp4")
    clips = {clip.key: clip for clip in Folder(folder).clips()}
    assert len(clips) == 91
    assert clips["fake/Face2Face/deep/040_041.mp4"].method == "Face2Face"
    assert clips["real/004_smiling.jpg"].identities == ("004",)
    assert clips["real/004_smiling.jpg"].label == 0
    assert clips["fake/004_005.mp4"].identities == ("004", "005")
    assert (clips["fake/004_005.mp4"].label, clips["fake/004_005.mp4"].method) == (1, "fake")
    counts = Counter(clip.split for clip in clips.values())
    assert counts["train"] > counts["test"] > counts["val"] > 0
    chain = {clips[f"real/{person:03d}_neutral.jpg"].split for person in range(10)}
    assert len(chain) == 1  # ten people whom fakes tie together


@pytest.mark.parametrize("name", ["val", "valid", "validation", "dev", "Val"])
def test_folder_of_splits(name: str, tmp_path: Path) -> None:
    for split, person in (("train", "001"), (name, "002"), ("test", "003"), ("extra", "004")):
        touch(tmp_path / split / "real" / f"{person}.jpg")
        touch(tmp_path / split / "fake" / f"{person}_x.jpg")
    database = Folder(tmp_path)
    found = {(clip.split, clip.identities[0]) for clip in database.clips()}
    assert found == {("train", "001"), ("val", "002"), ("test", "003")}
    assert database.left_out == {"in extra/, which is no split": 2}
    touch(tmp_path / "test/real/001_again.jpg")
    with pytest.raises(UsageError, match="train and test share the identity '001'"):
        Folder(tmp_path).clips()
    assert len(Folder(tmp_path, identity=".+").clips()) == 7


def test_folder_identity_option(tmp_path: Path) -> None:
    touch(tmp_path / "real/anna/img_1.jpg")
    touch(tmp_path / "real/bert/img_2.jpg")
    touch(tmp_path / "fake/anna-on-bert.png")
    clips = Folder(tmp_path, identity=r"(anna|bert)(?:-on-(\w+))?").clips()
    assert [clip.identities for clip in clips] == [("anna",), ("bert",), ("anna", "bert")]
    assert len({clip.split for clip in clips}) == 1
    with pytest.raises(UsageError, match="names nobody"):
        Folder(tmp_path, identity="carl").clips()
    with pytest.raises(UsageError, match="no regular expression"):
        Folder(tmp_path, identity="(")


def test_folder_of_genuine_files_only(tmp_path: Path) -> None:
    for number in range(10):
        touch(tmp_path / f"real/p{number}_a.jpg")
    clips = Folder(tmp_path).clips()
    assert {clip.label for clip in clips} == {0}
    assert {clip.split for clip in clips} == {"train", "val", "test"}


def test_folder_bad_trees(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"real is not there.*expected"):
        Folder(tmp_path)
    touch(tmp_path / "real/a.jpg")
    (tmp_path / "fake").mkdir()
    with pytest.raises(UsageError, match="fake"):
        Folder(tmp_path).clips()


people = st.integers(0, 40).map(str)
groups = st.lists(st.lists(people, min_size=1, max_size=2), min_size=1, max_size=60)


@given(groups)
def test_connected_is_scipys(pairs: list[list[str]]) -> None:
    found = connected(pairs)
    names = sorted(found)
    number = {name: i for i, name in enumerate(names)}
    rows, columns = zip(*((number[p[0]], number[p[-1]]) for p in pairs), strict=True)
    graph = coo_array((np.ones(len(rows)), (rows, columns)), shape=(len(names), len(names)))
    _, expected = connected_components(graph, directed=False)
    for one in names:
        assert found[one] == min(n for n in names if expected[number[n]] == expected[number[one]])


@given(groups, st.data())
def test_identity_splits_are_disjoint_and_keep_to_no_order(
    pairs: list[list[str]], data: st.DataObject
) -> None:
    clips = [(pair, data.draw(st.integers(0, 1))) for pair in pairs]
    splits = identity_splits(clips)
    assert_identity_disjoint(
        Clip(Path(str(i)), str(i), label, "", "", tuple(pair), split)
        for i, ((pair, label), split) in enumerate(zip(clips, splits, strict=True))
    )
    order = data.draw(st.permutations(range(len(clips))))
    assert identity_splits([clips[i] for i in order]) == [splits[i] for i in order]


@given(st.integers(3, 400), st.integers(0, 1000))
def test_identity_splits_keep_the_fractions(count: int, seed: int) -> None:
    clips = [([f"r{i}"], 0) for i in range(count)] + [([f"f{i}"], 1) for i in range(count)]
    splits = identity_splits(clips, seed=seed)
    for half in (splits[:count], splits[count:]):  # each class has its share of each split
        for split, fraction in (("train", 0.7), ("val", 0.1), ("test", 0.2)):
            assert half.count(split) >= 1
            assert abs(half.count(split) - fraction * count) <= 2


def test_few_people_fill_the_splits_in_order() -> None:
    assert identity_splits([(["a"], 0)]) == ["train"]
    assert sorted(identity_splits([(["a"], 0), (["b"], 0)])) == ["train", "val"]
