"""Each database as published: what is read from its tree, and what is said of another tree."""

import json
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trees import TREES, facts, touch, write_json

from deepregions.data.clips import Clip
from deepregions.data.databases import (
    DF40,
    CelebDF,
    CelebDFPlusPlus,
    CelebDFv1,
    DeepfakeBench,
    DeepFakeDetection,
    Dfdc,
    DfdcPreview,
    FaceForensics,
    Manifest,
    Uadfv,
)
from deepregions.data.splits import Splitting
from deepregions.errors import UsageError

OFFICIAL = Splitting("official")
WORDS = st.text(max_size=6) | st.sampled_from(
    ["", "/", "..", "a.mp4", "real", "FF-DF", "x/real/a.mp4", "0" * 300, "a\0b", "0", "1", "fake"]
)


def by_key(clips: list[Clip]) -> dict[str, Clip]:
    found = {clip.key: clip for clip in clips}
    assert len(found) == len(clips)
    assert all(clip.path.exists() for clip in clips)
    return found


@pytest.mark.parametrize("name", TREES)
def test_a_tree_as_published_has_nothing_wrong(name: str, tmp_path: Path) -> None:
    make, open_database = TREES[name]
    make(tmp_path, Random(1), touch)
    database = open_database(tmp_path, Splitting())
    listing = database.listing()
    assert listing.clips
    assert not listing.absent
    assert not listing.disputed
    assert not +listing.left_out
    assert {clip.label for clip in listing.clips} == {0, 1}
    assert all((clip.method == "original") == (clip.label == 0) for clip in listing.clips)
    assert all(clip.identities and all(clip.identities) for clip in listing.clips)
    by_key(listing.clips)
    assert database.clips()
    assert database.splitting.scheme in ("official", "paper")


@pytest.mark.parametrize("compression", ["raw", "c23", "c40"])
def test_ffpp_compressions(compression: str, tmp_path: Path) -> None:
    TREES["ffpp"][0](tmp_path, Random(2), touch, compression)
    clips = FaceForensics(tmp_path, compression).clips()
    assert len(clips) == 12 + 2 * 12
    assert {clip.compression for clip in clips} == {compression}
    with pytest.raises(UsageError, match=f"there are: {compression}"):
        FaceForensics(tmp_path, "c24")


def test_ffpp_splits_files_in_the_root(tmp_path: Path) -> None:
    TREES["ffpp"][0](tmp_path, Random(3), touch)
    before = FaceForensics(tmp_path).clips()
    for path in (tmp_path / "splits").iterdir():
        path.rename(tmp_path / path.name)
    (tmp_path / "splits").rmdir()
    assert FaceForensics(tmp_path).clips() == before
    for split in ("train", "val", "test"):
        (tmp_path / f"{split}.json").unlink()
    assert len(FaceForensics(tmp_path, splitting=Splitting("paper")).clips()) == 36
    with pytest.raises(UsageError, match=r"train\.json is not there"):
        FaceForensics(tmp_path)


def test_dfd(tmp_path: Path) -> None:
    reals = tmp_path / "original_sequences/actors/c23/videos"
    fakes = tmp_path / "manipulated_sequences/DeepFakeDetection/c23/videos"
    touch(reals / "01__walking_outside_cafe_disgusted.mp4")
    touch(fakes / "01_02__walking_outside_cafe_disgusted__YVGY8LOK.mp4")
    touch(fakes / "thumbnail.mp4")
    database = DeepFakeDetection(tmp_path)
    clips = by_key(database.listing().clips)
    assert facts(clips["original/c23/01__walking_outside_cafe_disgusted"]) == "0 original c23 01 -"
    fake = clips["DeepFakeDetection/c23/01_02__walking_outside_cafe_disgusted__YVGY8LOK"]
    assert facts(fake) == "1 DeepFakeDetection c23 01+02 -"
    database.clips()
    assert database.left_out == {"its name does not say who is in it": 1}
    with pytest.raises(UsageError, match="no official split"):
        DeepFakeDetection(tmp_path, splitting=OFFICIAL).clips()


@pytest.fixture
def celeb(tmp_path: Path) -> Path:
    for name in (
        "Celeb-real/id0_0000",
        "Celeb-real/id1_0003",
        "Celeb-real/id7_0000",
        "YouTube-real/00170",
        "YouTube-real/00001",
        "Celeb-synthesis/id0_id1_0000",
        "Celeb-synthesis/id7_id8_0001",
        "Celeb-synthesis/id7_id1_0001",
    ):
        touch(tmp_path / f"{name}.mp4")
    lines = ["1 Celeb-real/id0_0000.mp4", "0 Celeb-synthesis/id0_id1_0000.mp4"]
    lines += ["1 YouTube-real/00170.mp4", ""]
    (tmp_path / "List_of_testing_videos.txt").write_text("\n".join(lines))
    return tmp_path


def test_celebdf(celeb: Path) -> None:
    database = CelebDF(celeb, OFFICIAL)
    listed = by_key(database.listing().clips)
    assert facts(listed["Celeb-synthesis/id0_id1_0000"]) == "1 Celeb-synthesis - id0+id1 test"
    assert facts(listed["YouTube-real/00001"]) == "0 original - YouTube-real/00001 train"
    clips = by_key(database.clips())
    assert {key for key, clip in clips.items() if clip.split == "test"} == {
        "Celeb-real/id0_0000",
        "Celeb-synthesis/id0_id1_0000",
        "YouTube-real/00170",
    }
    # id1 is in a test video: its own video, and a fake with its face, are not for training.
    assert "Celeb-real/id1_0003" not in clips
    assert "Celeb-synthesis/id7_id1_0001" not in clips
    assert "Celeb-synthesis/id7_id8_0001" in clips
    assert sum(database.left_out.values()) == 2
    assert CelebDF(celeb).splitting.scheme == "paper"
    assert CelebDFv1(celeb).name == "celebdf-v1"


def test_celebdf_test_list_that_disagrees(celeb: Path) -> None:
    lines = "0 Celeb-real/id0_0000.mp4\n1 YouTube-real/00170.mp4\n1 YouTube-real/00299.mp4\n"
    (celeb / "List_of_testing_videos.txt").write_text(lines)
    listing = CelebDF(celeb).listing()
    assert listing.disputed == ["Celeb-real/id0_0000.mp4 is fake in List_of_testing_videos.txt"]
    assert listing.absent == ["YouTube-real/00299.mp4"]
    assert "Celeb-real/id0_0000" not in by_key(listing.clips)
    (celeb / "List_of_testing_videos.txt").write_text("1 Celeb-real/id0_0000.mp4\nhello\n")
    with pytest.raises(UsageError, match="line 2: 'hello'"):
        CelebDF(celeb).listing()
    (celeb / "List_of_testing_videos.txt").unlink()
    assert CelebDF(celeb).listing().absent == ["List_of_testing_videos.txt"]
    with pytest.raises(UsageError, match="no official split"):
        CelebDF(celeb, OFFICIAL).clips()


def test_celebdf_with_frames_beside_the_videos(celeb: Path) -> None:
    before = [clip.key for clip in CelebDF(celeb).listing().clips]
    for folder in ("Celeb-real", "YouTube-real", "Celeb-synthesis"):
        (celeb / folder).rename(celeb / "moved")
        (celeb / folder).mkdir()
        (celeb / "moved").rename(celeb / folder / "videos")
    assert [clip.key for clip in CelebDF(celeb).listing().clips] == before


def test_uadfv(tmp_path: Path) -> None:
    for name in ("real/0000", "real/0001_fake", "real/notes", "fake/0000_fake", "fake/0002"):
        touch(tmp_path / f"{name}.mp4")
    listing = Uadfv(tmp_path).listing()
    clips = by_key(listing.clips)
    assert facts(clips["real/0000"]) == "0 original - 0000 -"
    assert facts(clips["fake/0000_fake"]) == "1 fake - 0000 -"
    assert len(clips) == 2
    assert len(listing.disputed) == 2
    assert listing.left_out == {"its name is no number": 1}


@pytest.fixture
def challenge(tmp_path: Path) -> Path:
    part = tmp_path / "dfdc_train_part_0"
    write_json(
        part / "metadata.json",
        {
            "aaa.mp4": {"label": "REAL", "split": "train"},
            "bbb.mp4": {"label": "FAKE", "split": "train", "original": "aaa.mp4"},
            "ccc.mp4": {"label": "FAKE", "split": "train", "original": "zzz.mp4"},
            "ddd.mp4": {"label": "REAL", "split": "train", "original": None},
            "eee.mp4": {"split": "train"},
        },
    )
    for name in ("aaa", "bbb", "ddd", "eee", "fff"):
        touch(part / f"{name}.mp4")
    touch(tmp_path / "test/ttt.mp4")
    touch(tmp_path / "test/uuu.mp4")
    labels = "filename,label\nttt.mp4,1\nuuu.mp4,0\nvvv.mp4,1\n"
    (tmp_path / "test/labels.csv").write_text(labels)
    write_json(tmp_path / "test/metadata.json", {"ttt.mp4": {"is_fake": 1}})
    return tmp_path


def test_dfdc(challenge: Path) -> None:
    database = Dfdc(challenge)
    listing = database.listing()
    clips = by_key(listing.clips)
    assert facts(clips["dfdc_train_part_0/aaa"]) == "0 original - aaa train"
    assert facts(clips["dfdc_train_part_0/bbb"]) == "1 fake - aaa train"
    assert facts(clips["dfdc_train_part_0/ddd"]) == "0 original - ddd train"
    assert facts(clips["test/ttt"]) == "1 fake - test/ttt test"
    assert facts(clips["test/uuu"]) == "0 original - test/uuu test"
    assert len(clips) == 5
    assert listing.absent == ["dfdc_train_part_0/ccc.mp4", "test/vvv.mp4"]
    assert +listing.left_out == {
        "its metadata has no label": 1,
        "not in its folder's metadata.json": 1,
    }
    assert database.splitting.scheme == "official"
    assert {clip.split for clip in database.clips()} >= {"train", "test"}


def test_dfdc_one_part_or_parts_in_folders(challenge: Path, tmp_path: Path) -> None:
    part = Dfdc(challenge / "dfdc_train_part_0")
    assert part.splitting.scheme == "paper"
    assert len(part.clips()) == 3
    deep = challenge / "train/dfdc_train_part_01"
    deep.mkdir(parents=True)
    (challenge / "dfdc_train_part_0").rename(deep / "dfdc_train_part_1")
    assert len(Dfdc(challenge).listing().clips) == 5


def test_dfdc_many_parts_are_kept_whole(tmp_path: Path) -> None:
    for number in range(10):
        part = tmp_path / f"dfdc_train_part_{number}"
        metadata = {f"v{number}{i}.mp4": {"label": ("REAL", "FAKE")[i % 2]} for i in range(6)}
        write_json(part / "metadata.json", metadata)
        for name in metadata:
            touch(part / name)
    where: dict[str, set[str]] = {}
    for clip in Dfdc(tmp_path).clips():
        where.setdefault(clip.group, set()).add(clip.split)
    assert len(where) == 10
    assert all(len(splits) == 1 for splits in where.values())


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("dfdc_train_part_0/metadata.json", "{", "no JSON file"),
        ("dfdc_train_part_0/metadata.json", "[1]", "does not map file names"),
        ("dfdc_train_part_0/metadata.json", '{"a.mp4": 1}', "does not map file names"),
        ("test/labels.csv", "name,label\na,1\n", "cannot be read"),
        ("test/labels.csv", "filename,label\na.mp4,yes\n", "cannot be read"),
        ("test/labels.csv", "filename,label\na.mp4,2\n", "other than 0 and 1"),
    ],
)
def test_dfdc_broken_lists(challenge: Path, name: str, content: str, message: str) -> None:
    (challenge / name).write_text(content)
    with pytest.raises(UsageError, match=message):
        Dfdc(challenge).listing()


def test_dfdc_preview(tmp_path: Path) -> None:
    real = "original_videos/643049/643049_A_001.mp4"
    fake = "method_B/1260311/1260311_C/1255229_1260311_C_001.mp4"
    wrong = "method_A/643049/643049_A/1_643049_A_001.mp4"
    gone = "method_A/643049/643049_A/2_643049_A_001.mp4"
    about = {"augmentations": [], "set": "train"}
    write_json(
        tmp_path / "dataset.json",
        {
            real: about | {"label": "real", "target_id": 643049, "swapped_id": None},
            fake: about
            | {"label": "fake", "set": "test", "target_id": 1260311, "swapped_id": 1255229},
            wrong: about | {"label": "real"},
            gone: about | {"label": "fake"},
        },
    )
    for name in (real, fake, wrong):
        touch(tmp_path / name)
    database = DfdcPreview(tmp_path)
    listing = database.listing()
    clips = by_key(listing.clips)
    assert facts(clips[real[:-4]]) == "0 original - 643049 train"
    assert facts(clips[fake[:-4]]) == "1 method_B - 1260311+1255229 test"
    assert listing.absent == [gone]
    assert listing.disputed == [f"{wrong} is real in dataset.json"]
    assert database.splitting.scheme == "official"
    # Where the fields are missing, names say the same; and frames may lie beside the videos.
    content = json.loads((tmp_path / "dataset.json").read_text())
    for entry in content.values():
        entry.pop("target_id", None)
        entry.pop("swapped_id", None)
    write_json(tmp_path / "dataset.json", content)
    moved = tmp_path / "method_B/videos/1260311/1260311_C/1255229_1260311_C_001.mp4"
    moved.parent.mkdir(parents=True)
    (tmp_path / fake).rename(moved)
    again = by_key(DfdcPreview(tmp_path).listing().clips)
    assert {key: facts(clip) for key, clip in again.items()} == {
        key: facts(clip) for key, clip in clips.items()
    }
    assert again[fake[:-4]].path == moved


def test_manifest(tmp_path: Path) -> None:
    for name in ("a.mp4", "sub/b.jpg", "sub/c.jpg", "fake/d.jpg", "real/e.jpg"):
        touch(tmp_path / name)
    path = tmp_path / "mine.csv"
    path.write_text(
        "\ufeffpath,label,method,compression,identities,split,notes\n"
        "a.mp4,0,,,anna,train,hello\n"
        "sub/b.jpg,fake,blend,q75,anna; bert,train\n"
        f"{tmp_path}/sub/c.jpg,GENUINE,,,,test\n"
        "fake/d.jpg,real,,,,\n"
        "real/e.jpg,0,,,,\n"
        "a.mp4,1,,,anna,test\n"
        "gone.mp4,1,,,,\n",
        encoding="utf-8",
    )
    database = Manifest(path, "mine")
    listing = database.listing()
    clips = by_key(listing.clips)
    assert facts(clips["a.mp4"]) == "0 original - anna train"
    assert facts(clips["sub/b.jpg"]) == "1 blend q75 anna+bert train"
    assert facts(clips[f"{tmp_path}/sub/c.jpg"]) == f"0 original - {tmp_path}/sub/c.jpg test"
    assert "real/e.jpg" in clips
    assert listing.disputed == ["fake/d.jpg is real in mine.csv"]
    assert listing.absent == ["gone.mp4"]
    assert listing.left_out == {"listed before": 1}
    assert database.splitting.scheme == "official"
    assert database.name == "mine"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("file,label\na,1\n", "column 'path'.*expected"),
        ("path,label\na.mp4,maybe\n", "line 2: label 'maybe'"),
        ("path,label,split\na.mp4,1,train\nb.mp4,1,all\n", "line 3: split 'all'"),
        ("path,label\n,1\n", "line 2: no path"),
        ("", "column 'path'"),
    ],
)
def test_manifests_that_are_none(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text(content)
    with pytest.raises(UsageError, match=message):
        Manifest(tmp_path / "m.csv")


@pytest.mark.parametrize("between", [",", ";", "\t"])
@pytest.mark.parametrize("coding", ["utf-8", "utf-8-sig", "utf-16"])
def test_manifests_as_spreadsheets_write_them(between: str, coding: str, tmp_path: Path) -> None:
    touch(tmp_path / "anna müller.MP4")
    lines = ["Path,Label,Split", "anna müller.MP4,FAKE,Validation"]
    text = "\r\n".join(line.replace(",", between) for line in lines)
    (tmp_path / "m.csv").write_text(text, encoding=coding)
    (clip,) = Manifest(tmp_path / "m.csv").listing().clips
    assert (clip.key, clip.label, clip.split) == ("anna müller.MP4", 1, "val")


def rearranged(folder: Path, prefix: str = "") -> Path:
    """A JSON file as DeepfakeBench's script writes it, with frames in two compressions."""

    def video(name: str, label: str, compression: str, count: int = 3) -> dict[str, object]:
        frames = []
        for number in range(count):
            frame = f"FaceForensics++/{label}/{compression}/frames/{name}/frame{number + 8}.png"
            touch(folder / frame)
            frames.append(prefix + frame)
        return {"label": label, "frames": frames[::-1], "masks": []}

    tree: dict[str, dict[str, object]] = {
        label: {split: {"c23": {}, "c40": {}} for split in ("train", "val", "test")}
        for label in ("FF-real", "FF-DF")
    }
    for compression in ("c23", "c40"):
        tree["FF-real"]["train"][compression]["071"] = video("071", "FF-real", compression)
        tree["FF-DF"]["train"][compression]["071_054"] = video("071_054", "FF-DF", compression)
        leaked = video("000_003", "FF-DF", compression)
        for split in ("train", "val", "test"):
            tree["FF-DF"][split][compression]["000_003"] = leaked
    path = folder / "json/FaceForensics++.json"
    write_json(path, {"FaceForensics++": tree})
    return path


@pytest.mark.parametrize("prefix", ["", "/nowhere/datasets/", "../datasets\\rgb\\"])
def test_deepfakebench(prefix: str, tmp_path: Path) -> None:
    path = rearranged(tmp_path, prefix)
    database = DeepfakeBench(path, "c40")
    clips = by_key(database.listing().clips)
    assert set(clips) == {"FF-DF/c40/000_003", "FF-DF/c40/071_054", "FF-real/c40/071"}
    assert facts(clips["FF-DF/c40/071_054"]) == "1 FF-DF c40 071+054 train"
    assert facts(clips["FF-real/c40/071"]) == "0 original c40 071 train"
    assert clips["FF-DF/c40/000_003"].split == "test"  # and nowhere else
    frames = clips["FF-real/c40/071"].frames
    assert [frame.name for frame in frames] == ["frame8.png", "frame9.png", "frame10.png"]
    assert all(frame.is_file() for frame in frames)


def test_deepfakebench_elsewhere_and_broken(tmp_path: Path) -> None:
    path = rearranged(tmp_path / "here")
    moved = tmp_path / "there" / "x.json"
    moved.parent.mkdir()
    path.rename(moved)
    with pytest.raises(UsageError, match="say with --images"):
        DeepfakeBench(moved).listing()
    assert len(DeepfakeBench(moved, images=tmp_path / "here").listing().clips) == 3
    for content in ("[]", '{"a": 1}', '{"a": {"FF-real": {"x.mp4": {}}}}'):
        moved.write_text(content)
        with pytest.raises(UsageError, match="expected"):
            DeepfakeBench(moved)


def test_deepfakebench_leaves_out_what_is_no_video(tmp_path: Path) -> None:
    frame = tmp_path / "DFDC/test/frames/aaa/000.png"
    touch(frame)
    entry = {"label": "DFDC_Fake", "frames": ["DFDC/test/frames/aaa/000.png"]}
    lost = {"label": "DFDC_Fake", "frames": ["DFDC/test/frames/bbb/000.png"]}
    real = {"label": "DFDC_Fake", "frames": ["DFDC/test/frames/aaa/000.png"]}
    tree = {
        # Its script overwrites val in a loop: an entry stands where a mapping should.
        "DFDC_Fake": {"train": {}, "test": {"aaa": entry, "bbb": lost}, "val": entry},
        "DFDC_Real": {"train": {}, "test": {"ccc": real}, "val": {}},
    }
    write_json(tmp_path / "DFDC.json", {"DFDC": tree})
    listing = DeepfakeBench(tmp_path / "DFDC.json").listing()
    assert [clip.key for clip in listing.clips] == ["DFDC_Fake/aaa"]
    assert listing.absent == ["DFDC_Fake/bbb"]
    assert listing.disputed == ["DFDC_Real/ccc is DFDC_Fake in itself"]
    assert listing.left_out == {"an entry that is no video": 2}


@pytest.mark.parametrize(
    ("label", "video", "people"),
    [
        ("FF-real", "071", ("071",)),
        ("FF-NT", "071_054", ("071", "054")),
        ("DFD_fake", "01_02__walk__ABCDEFGH", ("01", "02")),
        ("DFD_real", "01__walk", ("01",)),
        ("CelebDFv2_fake", "id0_id16_0001", ("id0", "id16")),
        ("CelebDFv1_real", "00170", ("CelebDFv1_real/00170",)),
        ("DFDCP_FakeA", "1255229_1260311_C_001", ("1260311", "1255229")),
        ("DFDCP_Real", "643049_A_001", ("643049",)),
        ("UADFV_Fake", "0012_fake", ("0012",)),
        ("UADFV_Real", "0012", ("0012",)),
        ("DFDC_Fake", "aabbcc", ("DFDC_Fake/aabbcc",)),
        ("StarGAN", "7", ("StarGAN/7",)),
    ],
)
def test_deepfakebench_people(label: str, video: str, people: tuple[str, ...], tmp_path: Path):
    frame = f"x/frames/{video}/000.png"
    touch(tmp_path / frame)
    tree = {label: {"train": {video: {"label": label, "frames": [frame]}}}}
    write_json(tmp_path / "x.json", {"x": tree})
    (clip,) = DeepfakeBench(tmp_path / "x.json").listing().clips
    assert clip.identities == people
    assert clip.label == (not label.lower().endswith("real"))


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=12,
)
ENTRIES = st.dictionaries(
    st.sampled_from(["label", "set", "target_id", "swapped_id", "original", "frames"]),
    ANYTHING | st.sampled_from(["FAKE", "real", "train", "test", ["a.mp4"]]),
)
LISTS = st.dictionaries(WORDS, ENTRIES, max_size=4) | ANYTHING
TREE = st.dictionaries(
    WORDS,
    st.dictionaries(
        WORDS,
        st.dictionaries(
            st.sampled_from(["train", "val", "test"]),
            st.dictionaries(WORDS, ENTRIES, max_size=2)
            | st.dictionaries(
                st.just("c23"), st.dictionaries(WORDS, ENTRIES, max_size=2) | ANYTHING
            )
            | ANYTHING,
        ),
        max_size=2,
    ),
    max_size=2,
)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("dfdc", "dfdc_train_part_0/metadata.json"),
        ("dfdc-preview", "dataset.json"),
        ("deepfakebench", "Celeb-DF-v2.json"),
        ("ffpp", "splits/test.json"),
    ],
)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(LISTS | TREE)
def test_any_json_is_read_or_refused(name: str, path: str, tmp_path: Path, content: object) -> None:
    if not (tmp_path / path).exists():
        TREES[name][0](tmp_path, Random(0), touch)
        touch(tmp_path / "dfdc_train_part_0/a.mp4")
    write_json(tmp_path / path, content)
    read_or_refuse(name, tmp_path)


LINES = st.lists(
    st.lists(
        WORDS | st.sampled_from(["path", "label", "split", "filename", "identities", '"', "\n"]),
        max_size=4,
    ).map(",".join)
    | st.text(max_size=20),
    max_size=5,
).map("\n".join)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("csv", "manifest.csv"),
        ("dfdc", "test/labels.csv"),
        ("celebdf", "List_of_testing_videos.txt"),
    ],
)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(LINES.map(lambda text: text.encode("utf-8", "replace")) | st.binary(max_size=30))
def test_any_lines_are_read_or_refused(
    name: str, path: str, tmp_path: Path, content: bytes
) -> None:
    if not (tmp_path / path).exists():
        TREES[name][0](tmp_path, Random(0), touch)
    (tmp_path / path).write_bytes(content)
    read_or_refuse(name, tmp_path)


def read_or_refuse(name: str, root: Path) -> None:
    try:
        listing = TREES[name][1](root, Splitting("paper")).listing()
    except UsageError as error:
        assert "\n" not in str(error).replace("\\n", "")
        return
    by_key(listing.clips)
    assert all(clip.label in (0, 1) and all(clip.identities) for clip in listing.clips)
    assert all(isinstance(name, str) for name in (*listing.absent, *listing.disputed))


def test_celebdf_pp_has_a_method_for_each_folder(tmp_path: Path) -> None:
    fakes = ("FaceSwap/GHOST/id0_id1_0001", "TalkingFace/FLOAT/id2_0003_x", "TalkingFace/FLOAT/x")
    for name in ("Celeb-real/id0_0000", *(f"Celeb-synthesis/{fake}" for fake in fakes)):
        touch(tmp_path / f"{name}.mp4")
    lines = "1 Celeb-real/id0_0000.mp4\n0 Celeb-synthesis/TalkingFace/FLOAT/id2_0003_x.mp4\n"
    (tmp_path / "List_of_testing_videos.txt").write_text(lines)
    listing = CelebDFPlusPlus(tmp_path).listing()
    assert [facts(clip) for clip in listing.clips] == [
        "0 original - id0 test",
        "1 GHOST - id0+id1 train",
        "1 FLOAT - id2 test",
    ]
    assert listing.left_out == {"its name does not say who is in it": 1}


def test_df40_takes_a_genuine_video_of_many_files_once(tmp_path: Path) -> None:
    TREES["df40"][0](tmp_path, Random(0), touch)
    listing = DF40(tmp_path).listing()
    one, two = listing.clips[0].identities
    assert {clip.method for clip in listing.clips} == {"original", "ff-lia", "ff-simswap"}
    assert sum(clip.label for clip in listing.clips) == 2 * 4
    assert len(listing.clips) == 2 * 4 + 8
    assert {(one,), (two,)} <= {clip.identities for clip in listing.clips if not clip.label}
    assert not listing.disputed
    (tmp_path / "dataset_json").rename(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="dataset_json"):
        DF40(tmp_path)
