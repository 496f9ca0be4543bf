"""Model cards, ``README.md`` beside ``bundle.json``: what networks and a bundle's facts say.

Names and remarks may come from strangers' files: they are written as plain text.
"""

from __future__ import annotations

import html
import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from huggingface_hub import ModelCardData
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from deepregions.fusion.calibration import Calibration
from deepregions.fusion.rules import Fusion, MeanFusion, TrainedFusion
from deepregions.system import TrainedNetwork
from deepregions.weights.manifest import BundleFacts

CARD = "README.md"

_LICENSES = ("apache-2.0", "bsd-3-clause", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "cc-by-4.0", "mit")
_DATA = {
    "ffpp": "FaceForensics++: the FaceForensics Terms of Use",
    "faceforensics": "FaceForensics++: the FaceForensics Terms of Use",
    "dfd": "DeepFakeDetection: the FaceForensics Terms of Use",
    "celebdf": "Celeb-DF: the Terms to Use Celeb-DF",
    "celebdf-v1": "Celeb-DF: the Terms to Use Celeb-DF",
    "uadfv": "UADFV: on request from its authors",
    "dfdc": "the Deepfake Detection Challenge: its own terms",
    "dfdc-preview": "the Deepfake Detection Challenge: its own terms",
    "ffhq": "Flickr-Faces-HQ: CC BY-NC-SA 4.0, the photographs as their photographers say",
    "london": "the Face Research Lab London Set: CC BY 4.0",
    "drawn": "faces drawn by deepregions: nobody's",
}
_FREE = ("london", "drawn")  # of these alone; the others are for research only
_RESEARCH = "for research only"
_LONGEST_RECIPE = 4000


def model_card(
    members: Sequence[TrainedNetwork],
    entries: Sequence[Mapping[str, Any]] = (),
    *,
    fusion: Fusion | None = None,
    calibration: Calibration | None = None,
    facts: BundleFacts | None = None,
) -> str:
    """Writes the card of a bundle."""
    entries = entries or [{"sha256": each.sha256} for each in members]
    facts = facts or BundleFacts()
    stores = _dict(facts.recipe.get("data")).get("store")
    stores = [str(each) for each in (_list(stores) or [stores]) if each]
    abouts = [_About(*each, stores) for each in zip(members, entries, strict=True)]
    environment = Environment(  # noqa: S701  # finalize escapes, for Markdown
        loader=PackageLoader("deepregions.weights"),
        undefined=StrictUndefined,
        finalize=_text,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    bounds = (calibration.lower, calibration.upper) if calibration else ()
    low, high = (Markup(f"{bound / math.log(10):.2f}") for bound in bounds or (0, 0))  # noqa: S704
    return environment.get_template("card.md.j2").render(
        members=members,
        abouts=abouts,
        front_matter=_front_matter(abouts),
        facts=facts,
        recipe=json.dumps(facts.recipe)[:_LONGEST_RECIPE],
        data=_DATA,
        databases=list(dict.fromkeys([*(member.database for member in members), *stores])),
        fusion=fusion or MeanFusion(),
        trained_fusion=isinstance(fusion, TrainedFusion),
        calibration=calibration,
        about=calibration and calibration.development,
        low=low,
        high=high,
        double_softmax=any(each.detector.settings().get("double_softmax") for each in members),
        citations=list(dict.fromkeys(each.citation for each in abouts if each.citation)),
        channels=_channels,
        number=_number,
        rate=lambda value: "an unknown share" if value is None else Markup(f"{value:.2%}"),  # noqa: S704
    )


class _About:
    """What is known of a network, of the types that a card needs."""

    def __init__(
        self, member: TrainedNetwork, entry: Mapping[str, Any], stores: Sequence[str]
    ) -> None:
        training = member.training
        self.member = member
        self.precision = entry.get("precision") or "float32"
        self.sha256 = entry.get("sha256")
        self.source = _dict(training.get("source"))
        # Stated by its source or by whoever trained it; else as the data's terms have it.
        self.licence = _stated(self.source.get("licence") or training.get("licence"))
        terms = [each for each in (member.database, *stores) if each in _DATA.keys() - _FREE]
        if not self.licence and not self.source and terms:
            self.licence = f"{_RESEARCH}, by the terms of {', '.join(dict.fromkeys(terms))}"
        self.citation = _stated(self.source.get("citation"))
        self.remarks = [each for each in _list(self.source.get("remarks")) if _text(each)]
        self.figures = _dict(training.get("validation"))
        parameters = sum(each.numel() for each in member.detector.parameters())
        self.parameters = f"{parameters / 1e6:.1f} M"
        settings = member.detector.settings().items()
        self.settings = ", ".join(f"{key} {value}" for key, value in settings if key != "size")

    @property
    def origin(self) -> str:
        """What is known of the network's making, as one sentence without its full stop."""
        training, source = self.member.training, self.source
        landmarks = " ".join(map(str, _dict(training.get("landmarks")).values()))
        forgeries = ", ".join(map(str, _list(_dict(training.get("forge")).get("methods"))))
        facts = {
            "imported from": source.get("file"),
            "of": source.get("project"),
            "format": source.get("format"),
            "SHA-256": source.get("sha256"),
            "class of the fake": source.get("fake_index"),
        }
        if not source:
            facts = {
                "trained with deepregions on": self.member.database,
                "epoch": training.get("epoch"),
                "seed": training.get("seed"),
                "face store": training.get("store"),
                "landmarks": landmarks or None,
                "fakes made of genuine faces by": forgeries or None,
            }
        texts = {what: _text(fact) for what, fact in facts.items() if fact is not None}
        said = [f"{what} {text}" for what, text in texts.items() if text]
        return Markup(", ".join(said))  # noqa: S704  # each part is escaped


def _front_matter(abouts: Sequence[_About]) -> str:
    members = [each.member for each in abouts]
    licenses = list(dict.fromkeys(each.licence for each in abouts))
    identifier = licenses[0].lower() if len(licenses) == 1 else ""
    known = identifier in _LICENSES
    stated = any(licenses)
    research = all(each.startswith(_RESEARCH) for each in licenses)
    name = "research-only" if research else "see-the-card"
    names = dict.fromkeys(member.database for member in members)
    tags = [member.detector.name for member in members]
    tags += [f"region:{member.region}" for member in members]
    data = ModelCardData(
        license=identifier if known else "other" if stated else "unknown",
        license_name=name if stated and not known else None,
        library_name="deepregions",
        pipeline_tag="image-classification",
        tags=["deepfake-detection", "media-forensics", *dict.fromkeys(tags)],
        datasets=[name for name in names if re.fullmatch(r"\w[\w.-]{0,95}", name, re.ASCII)]
        or None,
    )
    return str(data.to_yaml()).strip()


def _channels(values: Any) -> str:
    numbers = [f"{number:.6g}" for number in values.flatten().tolist()]
    return numbers[0] if len(set(numbers)) == 1 else ", ".join(numbers)


def _number(value: Any) -> Any:
    if isinstance(value, float):
        return Markup(f"{value:.4f}")  # noqa: S704  # "0." is no list here
    return "undefined" if value is None else value


def _text(value: Any) -> str:
    """Returns a value as one line in which nothing is Markdown or HTML."""
    if isinstance(value, Markup):
        return value
    line = " ".join(str(value).split())
    line = "".join(character for character in line if character.isprintable())
    line = re.sub(r"([\\`*_\[\]|~#!$])", r"\\\1", line)
    line = re.sub(r"^([-+=])", r"\\\1", line)  # what makes a line a list or a heading
    line = re.sub(r"^(\d+)(?=[.)])", r"\1\\", line)
    line = html.escape(line, quote=False)
    return re.sub(r"(?i)\b(https?|ftp|www)(:|\.)", r"\1&#8203;\2", line)  # no links of their own


def _stated(value: Any) -> str:
    return value if isinstance(value, str) and _text(value) else ""


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
