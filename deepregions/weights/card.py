"""Model cards: what a bundle says of itself to people, ``README.md`` beside ``bundle.json``.

Everything in a card comes from the members and the bundle's facts. What they do not know, the card
says is not known. Names and remarks may come from strangers' files: they are written as plain text.
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

from deepregions.fusion import Fusion, MeanFusion, TrainedFusion
from deepregions.fusion.calibration import Calibration
from deepregions.system import TrainedNetwork
from deepregions.weights.manifest import BundleFacts

CARD = "README.md"

_LICENSES = ("apache-2.0", "bsd-3-clause", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "cc-by-4.0", "mit")
_LAYOUTS = {
    "masked": "the whole face's canvas (the tight box of the face), black outside the region",
    "tight": "the region's own box, black outside the region",
    "context": "the square around the landmarks, enlarged by 1.3, nothing blacked out",
}
_KINDS = {
    "drawn": "**These networks were trained on computer-drawn faces. Do not rely on their "
    "scores.**",
    "self-made": "These networks were trained on genuine faces and on forgeries that deepregions "
    "made of them, not on manipulations found in the wild.",
    "real": "These networks were trained on real manipulations, those of the databases below.",
}
_DATA = {
    "ffpp": "FaceForensics++: the FaceForensics Terms of Use",
    "faceforensics": "FaceForensics++: the FaceForensics Terms of Use",
    "dfd": "DeepFakeDetection: the FaceForensics Terms of Use",
    "celebdf": "Celeb-DF: the Terms to Use Celeb-DF",
    "celebdf-v1": "Celeb-DF: the Terms to Use Celeb-DF",
    "uadfv": "UADFV: on request from its authors",
    "dfdc": "the Deepfake Detection Challenge: its own terms",
    "dfdc-preview": "the Deepfake Detection Challenge: its own terms",
    "drawn": "faces drawn by deepregions: nobody's",
}
_LONGEST_RECIPE = 4000


def model_card(
    members: Sequence[TrainedNetwork],
    entries: Sequence[Mapping[str, Any]] = (),
    *,
    fusion: Fusion | None = None,
    calibration: Calibration | None = None,
    facts: BundleFacts | None = None,
) -> str:
    """Writes the card of a bundle.

    Args:
        members: Its networks.
        entries: Their entries in the manifest, in the same order, for digests and precision; what
            the members know if left out.
        fusion: How they are used together; their mean, if left out.
        calibration: Of that.
        facts: What the bundle says of itself.

    Returns:
        Markdown with Hugging Face's front matter.
    """
    entries = entries or [{"sha256": each.sha256} for each in members]
    facts = facts or BundleFacts()
    citations = dict.fromkeys(text for each in members if (text := _stated(each, "citation")))
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
        rows=[
            (each, {"precision": entry.get("precision"), "sha256": entry.get("sha256")})
            for each, entry in zip(members, entries, strict=True)
        ],
        front_matter=_front_matter(members),
        facts=facts,
        recipe=json.dumps(facts.recipe)[:_LONGEST_RECIPE],
        kinds=_KINDS,
        layouts=_LAYOUTS,
        data=_DATA,
        fusion=fusion or MeanFusion(),
        trained_fusion=isinstance(fusion, TrainedFusion),
        calibration=calibration,
        about=calibration and calibration.development,
        low=low,
        high=high,
        double_softmax=any(each.detector.settings().get("double_softmax") for each in members),
        figures=[
            (each.name, name, value)
            for each in members
            for name, value in _dict(each.training.get("validation")).items()
        ],
        citations=list(citations),
        parameters=lambda each: f"{sum(p.numel() for p in each.detector.parameters()) / 1e6:.1f} M",
        channels=_channels,
        settings=lambda each: ", ".join(
            f"{key} {value}" for key, value in each.detector.settings().items() if key != "size"
        ),
        origin=_origin,
        remarks=lambda each: filter(_text, _list(_source(each).get("remarks"))),
        licence=_licence,
        number=_number,
        rate=lambda value: "an unknown share" if value is None else _percent(value),
    )


def _front_matter(members: Sequence[TrainedNetwork]) -> str:
    licenses = list(dict.fromkeys(_licence(member) for member in members))
    identifier = licenses[0].lower() if len(licenses) == 1 else ""
    known = identifier in _LICENSES
    stated = any(licenses)
    names = dict.fromkeys(member.database for member in members)
    tags = [member.detector.name for member in members]
    tags += [f"region:{member.region}" for member in members]
    data = ModelCardData(
        license=identifier if known else "other" if stated else "unknown",
        license_name="see-the-card" if stated and not known else None,
        library_name="deepregions",
        pipeline_tag="image-classification",
        tags=["deepfake-detection", "media-forensics", *dict.fromkeys(tags)],
        datasets=[name for name in names if re.fullmatch(r"\w[\w.-]{0,95}", name, re.ASCII)]
        or None,
    )
    text: str = data.to_yaml()
    return text.strip()


def _origin(member: TrainedNetwork) -> str:
    """Returns what is known of a network's making, as one sentence without its full stop."""
    training, source = member.training, _source(member)
    facts: list[tuple[str, Any]]
    if source:
        facts = [
            ("imported from", source.get("file")),
            ("of", source.get("project")),
            ("format", source.get("format")),
            ("SHA-256", source.get("sha256")),
            ("class of the fake", source.get("fake_index")),
        ]
    else:
        landmarks = " ".join(map(str, _dict(training.get("landmarks")).values()))
        forgeries = ", ".join(map(str, _list(_dict(training.get("forge")).get("methods"))))
        facts = [
            ("trained with deepregions on", member.database),
            ("epoch", training.get("epoch")),
            ("seed", training.get("seed")),
            ("face store", training.get("store")),
            ("landmarks", landmarks or None),
            ("fakes made of genuine faces by", forgeries or None),
        ]
    said = (f"{what} {text}" for what, fact in facts if fact is not None and (text := _text(fact)))
    return Markup(", ".join(said))  # noqa: S704  # each part is escaped


def _source(member: TrainedNetwork) -> dict[str, Any]:
    return _dict(member.training.get("source"))


def _stated(member: TrainedNetwork, key: str) -> str:
    stated = _source(member).get(key)
    return stated if isinstance(stated, str) and _text(stated) else ""


def _licence(member: TrainedNetwork) -> str:
    """Returns what is stated of a member's weights: by its source, or by whoever trained it."""
    stated = _source(member).get("licence") or member.training.get("licence")
    return stated if isinstance(stated, str) and _text(stated) else ""


def _channels(values: Any) -> str:
    numbers = [f"{number:.6g}" for number in values.flatten().tolist()]
    return numbers[0] if len(set(numbers)) == 1 else ", ".join(numbers)


def _number(value: Any) -> Any:
    if isinstance(value, float):
        return Markup(f"{value:.4f}")  # noqa: S704  # "0." is no list here
    return "undefined" if value is None else value


def _percent(share: float) -> str:
    return Markup(f"{share:.2%}")  # noqa: S704


def _text(value: Any) -> str:
    """Returns a value as one line in which nothing is Markdown or HTML."""
    if isinstance(value, Markup):
        return value
    line = " ".join(str(value).split())
    line = "".join(character for character in line if character.isprintable())
    line = re.sub(r"([\\`*_\[\]|~#!$])", r"\\\1", line)
    line = re.sub(r"^([-+=]|\d+(?=[.)]))", _escaped, line)  # what makes a line a list or a heading
    line = html.escape(line, quote=False)
    return re.sub(r"(?i)\b(https?|ftp|www)(:|\.)", r"\1&#8203;\2", line)  # no links of their own


def _escaped(found: re.Match[str]) -> str:
    return f"{found[0]}\\" if found[0].isdecimal() else f"\\{found[0]}"


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
