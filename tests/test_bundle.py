import json
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from networks import SIZE, dsp_fwa, member, xception

from deepregions.errors import BundleError, DeepregionsError, UsageError
from deepregions.types import Region
from deepregions.weights.bundle import load_bundle, save_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundles") / "two"
    save_bundle([member(xception(), Region.EYES), member(dsp_fwa())], path)
    return path


@pytest.fixture
def copy(bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle, tmp_path / "copy"))


def edit(path: Path, **changes: object) -> None:
    manifest = json.loads((path / "bundle.json").read_text())
    (path / "bundle.json").write_text(json.dumps(manifest | changes))


def edit_member(path: Path, **changes: object) -> None:
    manifest = json.loads((path / "bundle.json").read_text())
    manifest["members"][0] |= changes
    (path / "bundle.json").write_text(json.dumps(manifest))


def test_what_is_loaded_scores_as_what_was_saved(tmp_path: Path) -> None:
    network = xception()
    save_bundle([member(network, Region.NOSE, "ffpp")], tmp_path / "one")
    (loaded,) = load_bundle(tmp_path / "one")
    crops = torch.rand(2, 3, SIZE, SIZE)
    with torch.no_grad():
        torch.testing.assert_close(loaded.detector(crops), network(crops), rtol=0, atol=0)
    assert (loaded.region, loaded.database, loaded.layout) == (Region.NOSE, "ffpp", "masked")
    assert loaded.training == {"note": "made by a test"}
    assert not loaded.detector.training


def test_how_crops_are_made_is_kept_and_version_1_had_one_way(copy: Path, tmp_path: Path) -> None:
    odd = member(xception())
    odd.layout, odd.resample = "context", "nearest"
    save_bundle([odd], tmp_path / "one")
    (loaded,) = load_bundle(tmp_path / "one")
    assert loaded.cut == (SIZE, "context", "nearest")
    manifest = json.loads((copy / "bundle.json").read_text())
    for entry in manifest["members"]:
        del entry["resample"]
    (copy / "bundle.json").write_text(json.dumps(manifest | {"version": 1}))
    assert {each.cut for each in load_bundle(copy)} == {(SIZE, "masked", "bilinear")}


@pytest.mark.parametrize("database", ["my/own", "..", "CON<>|", "x" * 300, "naïve data"])
def test_any_database_has_a_bundle(database: str, tmp_path: Path) -> None:
    members = [member(xception(), database=database), member(dsp_fwa(), database=database)]
    save_bundle(members, tmp_path / "one")
    assert [each.database for each in load_bundle(tmp_path / "one")] == [database] * 2
    assert len(list((tmp_path / "one").iterdir())) == 4  # manifest, card and two networks


def test_a_bundle_replaces_a_bundle_but_nothing_else(tmp_path: Path) -> None:
    save_bundle([member(xception())], tmp_path / "x")
    save_bundle([member(dsp_fwa())], tmp_path / "x")
    assert [each.name for each in load_bundle(tmp_path / "x")] == ["dsp-fwa_entire.made"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("precious")
    with pytest.raises(UsageError, match="is not a bundle"):
        save_bundle([member(xception())], tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "precious"


def test_nothing_is_left_of_a_bundle_that_could_not_be_written(tmp_path: Path) -> None:
    bad = member(xception())
    bad.training["auc"] = float("nan")  # no JSON
    with pytest.raises(ValueError, match="JSON"):
        save_bundle([bad], tmp_path / "x")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": "other"}, "not a bundle's manifest"),
        ({"version": 4}, "version 4.*update deepregions"),
        ({"version": 0}, "version 0"),
        ({"members": []}, "names no network"),
        ({"members": [{}]}, "not as a bundle's should be"),
        ({"members": ["x"]}, "not as a bundle's should be"),
    ],
)
def test_a_wrong_manifest_is_one_clear_error(
    copy: Path, changes: dict[str, object], message: str
) -> None:
    edit(copy, **changes)
    with pytest.raises(BundleError, match=message):
        load_bundle(copy)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class": "System"}, "unknown network.*Capsule"),
        ({"class": "RegionDetector"}, "cannot be built|unknown network"),
        ({"class": "__builtins__"}, "unknown network"),
        ({"settings": {"size": 4}}, "cannot be built"),
        ({"settings": {"sise": 64}}, "cannot be built"),
        ({"class": "DSPFWA", "settings": {"size": 64, "pyramid": "adaptive"}}, "does not fit"),
        ({"region": "ear"}, "ear"),
        ({"resample": "lanczos"}, "'lanczos' is none of bilinear, nearest"),
        ({"layout": "loose"}, "'loose' is none of masked, tight, context"),
        ({"file": "../../etc/passwd"}, "is missing"),
        ({"sha256": "0" * 64}, "SHA-256"),
    ],
)
def test_a_wrong_member_is_one_clear_error(
    copy: Path, changes: dict[str, object], message: str
) -> None:
    edit_member(copy, **changes)
    with pytest.raises(BundleError, match=message):
        load_bundle(copy)


def test_missing_truncated_and_altered_files(copy: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="is not there"):
        load_bundle(tmp_path / "nowhere")
    with pytest.raises(BundleError, match=r"holds no bundle\.json"):
        load_bundle(tmp_path)
    file = next(copy.glob("xception*.safetensors"))
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(BundleError, match="SHA-256"):
        load_bundle(copy)
    file.unlink()
    with pytest.raises(BundleError, match="is missing"):
        load_bundle(copy)
    for content in (b"\x80\x04\x95", b"[" * 100_000):
        (copy / "bundle.json").write_bytes(content)
        with pytest.raises(BundleError, match="cannot be read"):
            load_bundle(copy)


def test_a_pickle_in_disguise_is_never_unpickled(copy: Path) -> None:
    from deepregions.files import sha256

    file = next(copy.glob("xception*.safetensors"))
    torch.save({"a": torch.zeros(1)}, file)
    edit_member(copy, sha256=sha256(file))
    with pytest.raises(BundleError, match="does not fit"):
        load_bundle(copy)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=8,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(
    st.sampled_from(["class", "settings", "region", "layout", "file", "sha256", "training"]),
    json_values,
)
def test_any_value_in_a_manifest_loads_or_is_a_clear_error(
    bundle: Path, key: str, value: object
) -> None:
    original = (bundle / "bundle.json").read_text()
    try:
        edit_member(bundle, **{key: value})
        load_bundle(bundle)
    except DeepregionsError as error:
        assert "\n" not in str(error)
    finally:
        (bundle / "bundle.json").write_text(original)
