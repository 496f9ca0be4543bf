"""Model cards: true to the members, parsed by Hugging Face's own reader, and plain text only."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from networks import dsp_fwa, member, xception

from deepregions.detectors import Capsule
from deepregions.files import sha256
from deepregions.system import TrainedNetwork
from deepregions.types import Region
from deepregions.weights.bundle import save_bundle
from deepregions.weights.card import model_card

NETWORK = xception()
SOURCE = {
    "file": "Capsule_UADFV_eyes.pt",
    "sha256": "ab" * 32,
    "format": "torch state dict",
    "project": "BiDAlab/DeepFakes_FacialRegions",
    "fake_index": 0,
    "licence": "not stated: the repository has no licence file",
    "citation": "R. Tolosana et al. DeepFakes Detection across Generations. EAAI 110, 2022",
    "remarks": ["its crops were cut by OpenFace 2; here they are nearly the same"],
}


def imported(detector: Any = NETWORK, database: str = "uadfv", **source: Any) -> TrainedNetwork:
    return TrainedNetwork(detector, Region.EYES, database, "masked", {"source": SOURCE | source})


def card(*members: TrainedNetwork) -> ModelCard:
    return ModelCard(model_card(members))


def rendered(text: str) -> str:
    body = text.split("---\n", 2)[2]
    return MarkdownIt("commonmark", {"html": True}).enable("table").render(body)


def test_save_bundle_writes_it_with_the_digests_of_the_files(tmp_path: Path) -> None:
    save_bundle([member(NETWORK, Region.EYES, "ffpp"), member(dsp_fwa())], tmp_path / "x")
    text = (tmp_path / "x" / "README.md").read_text()
    for file in (tmp_path / "x").glob("*.safetensors"):
        assert sha256(file)[:16] in text
    data = ModelCard(text).data.to_dict()
    assert data["library_name"] == "deepregions"
    assert data["pipeline_tag"] == "image-classification"
    assert (data["license"], data["license_name"]) == ("other", "see-the-card")
    assert data["datasets"] == ["ffpp", "made"]
    assert {"xception", "dsp-fwa", "region:eyes", "region:entire"} <= set(data["tags"])


def test_it_says_what_the_networks_are_given() -> None:
    capsule = Capsule(size=64, double_softmax=True).eval()
    text = rendered(model_card([member(NETWORK), member(capsule, Region.NOSE, "other")]))
    rows = re.findall(r"<tr>(.*?)</tr>", text, re.DOTALL)
    (row,) = [row for row in rows if "capsule_nose.other" in row and "double_softmax True" in row]
    given = ["64 x 64", "bilinear", "masked", "0.485, 0.456, 0.406", "0.229, 0.224, 0.225"]
    assert re.findall("<td>(.*?)</td>", row)[1:6] == given
    assert "within 0.39 and 0.61" in text
    assert "within 0.39 and 0.61" not in rendered(model_card([member(NETWORK)]))


def test_it_says_how_a_network_was_trained_and_how_well() -> None:
    training = {
        "store": "f00d",
        "landmarks": {"name": "dlib68+yunet", "version": "dlib 19"},
        "epoch": 7,
        "seed": 3,
        "validation": {"frame_auc": 0.98765, "frame_eer": None},
    }
    text = rendered(model_card([TrainedNetwork(NETWORK, Region.NOSE, "ffpp", "tight", training)]))
    for fact in ("epoch 7", "seed 3", "face store f00d", "dlib68+yunet dlib 19", "0.9877"):
        assert fact in text
    assert "<td>frame_eer</td>\n<td>undefined</td>" in text
    assert "also chose the epoch" in text
    assert "FaceForensics Terms of Use" in text
    assert "Weights of xception_nose.ffpp: for research only, by the terms of ffpp." in text


def test_it_says_where_an_imported_network_is_from() -> None:
    text = rendered(model_card([imported()]))
    for key in ("file", "sha256", "format", "project", "licence"):
        assert SOURCE[key] in text
    assert "class of the fake 0" in text
    assert SOURCE["remarks"][0] in text  # type: ignore[index]
    assert text.count("EAAI 110, 2022") == 1
    assert "None are known to the bundle." in text
    assert "Data uadfv: UADFV: on request from its authors" in text
    unknown = rendered(model_card([imported(database="mine")]))
    assert "Data mine: not known to the bundle" in unknown


@pytest.mark.parametrize(
    ("licences", "shown"),
    [
        (["CC-BY-NC-4.0"], "cc-by-nc-4.0"),
        (["MIT", "MIT"], "mit"),
        (["MIT", "CC-BY-NC-4.0"], "other"),
        (["MIT", None], "other"),
        (["ask the authors"], "other"),
        ([None, None], "unknown"),
        ([{"not": "a text"}], "unknown"),
    ],
)
def test_the_front_matter_has_a_licence_only_if_it_is_that_of_all(
    licences: list[Any], shown: str
) -> None:
    members = [imported(licence=licence) for licence in licences]
    data = card(*members).data.to_dict()
    assert data["license"] == shown
    assert (data.get("license_name") == "see-the-card") == (shown == "other")


NASTY = [
    "<script>alert(1)</script>",
    "x | y\n\n# A heading\n\n<b>",
    "[click](javascript:alert(1))",
    "![](http://example.invalid/x.png)",
    "<http://example.invalid>",
    "`code` **bold** ~~gone~~ &lt;script&gt; \\<i>",
    "---\nlicense: mit\n---",
    "\u202eevil\u0000\u0085",
]
TAGS = {"h1", "h2", "p", "pre", "code", "ul", "ol", "li", "em", "strong", "br"}
TAGS |= {"table", "thead", "tbody", "tr", "th", "td"}


@settings(max_examples=40)
@given(
    st.lists(
        st.sampled_from(NASTY)
        | st.text(max_size=60)
        | st.text(alphabet="<>&[]()`*_|#\\!-~$ \n:abhtp/.w", max_size=60),
        min_size=1,
        max_size=2,
    )
)
@example(NASTY)
def test_nothing_in_any_name_is_markup(names: list[str]) -> None:
    members = [
        imported(
            database=name, file=name, project=name, licence=name, citation=name, remarks=[*names]
        )
        for name in names
    ]
    for each in members:
        each.training["validation"] = {names[0]: names[-1]}
    text = model_card(members)
    assert ModelCard(text).data.library_name == "deepregions"
    html = rendered(text)
    assert set(re.findall(r"</?([a-zA-Z0-9]+)", html)) <= TAGS
    headings = [line for line in html.splitlines() if line.startswith("<h")]
    expected = [line for line in rendered(model_card([imported()])).splitlines() if "<h" in line]
    assert headings in (expected, expected[:-1])  # without a citation if it is empty


@settings(max_examples=40)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            key: st.none()
            | st.integers()
            | st.floats(allow_nan=False)
            | st.text(max_size=4)
            | st.lists(st.integers(), max_size=2)
            | st.dictionaries(st.text(max_size=9), st.integers(), max_size=2)
            for key in ("source", "validation", "landmarks", "epoch", "store", "licence")
        },
    )
)
def test_whatever_a_bundle_says_of_its_training_makes_a_card(training: dict[str, Any]) -> None:
    text = model_card([TrainedNetwork(NETWORK, Region.EYES, "x", "masked", training)])
    assert ModelCard(text).data.library_name == "deepregions"
