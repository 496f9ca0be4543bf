"""Model cards: what a bundle says of itself to people, ``README.md`` beside ``bundle.json``.

Everything in a card comes from the members. What they do not know, the card says is not known.
Names and remarks may come from strangers' files: they are written as plain text.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

from huggingface_hub import ModelCardData

from deepregions.fusion import Fusion, MeanFusion, TrainedFusion
from deepregions.fusion.calibration import Calibration
from deepregions.system import TrainedNetwork

CARD = "README.md"

_LICENSES = ("apache-2.0", "bsd-3-clause", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "cc-by-4.0", "mit")
_LAYOUTS = {
    "masked": "the whole face's canvas (the tight box of the face), black outside the region",
    "tight": "the region's own box, black outside the region",
    "context": "the square around the landmarks, enlarged by 1.3, nothing blacked out",
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

_USE = """\
## Use

```python
from deepregions.weights.bundle import load_bundle

system = load_bundle("PATH").system()  # or "hf://owner/name"
logits, valid, present, fused = system(image, landmarks)  # uint8 RGB; 68 landmarks in pixels
```

On the command line: `deepregions detect photo.jpg video.mp4 --bundle PATH`. 1 is fake.
"""

_LIMITS = """\
## Intended use and limits

For research on detecting manipulated faces, and as one of several clues to a person who judges a \
picture. Not for deciding about people without a person's judgement.

- Detectors of this kind do much worse on databases, manipulations and compression that they were \
not trained on. Figures on the training database do not carry over.
- A score is not a probability of being fake, and not evidence by itself. A likelihood ratio, \
where there is one, holds for material like that of its development part.
- A manipulated region need not be a manipulated face, nor a genuine face a genuine picture.
- How errors differ between groups of people (skin, age, sex) has not been measured, unless it is \
said above.
"""


def model_card(
    members: Sequence[TrainedNetwork],
    digests: Sequence[str] = (),
    *,
    fusion: Fusion | None = None,
    calibration: Calibration | None = None,
) -> str:
    """Writes the card of a bundle.

    Args:
        members: Its networks.
        digests: SHA-256 of their files, in the same order; those that the members know if left
            out.
        fusion: How they are used together; their mean, if left out.
        calibration: Of that.

    Returns:
        Markdown with Hugging Face's front matter.
    """
    digests = digests or [member.sha256 for member in members]
    detectors = _unique(member.detector.name for member in members)
    parts = [
        f"---\n{_front_matter(members)}\n---\n",
        f"# Manipulated faces, by region: {', '.join(map(_text, detectors))}\n",
        "Networks that tell manipulated faces from genuine ones, each from one region of the "
        "face, for the Python package deepregions: a new implementation of the system of "
        "R. Tolosana et al., *DeepFakes Detection across Generations* (EAAI 2022).\n",
        _USE,
        f"## Networks\n\n{_networks(members, digests)}",
        f"## What they are given\n\n{_inputs(members)}",
        f"## Where they come from\n\n{_origins(members)}",
        f"## Together\n\n{_together(fusion, calibration)}",
        f"## Figures\n\n{_figures(members)}",
        f"## Licences\n\n{_licences(members)}",
        _LIMITS,
    ]
    cited = _unique(text for member in members if (text := _text(_cited(member))))
    if cited:
        parts.append("## Citation\n\n" + "".join(f"- {text}\n" for text in cited))
    return "\n".join(parts)


def _front_matter(members: Sequence[TrainedNetwork]) -> str:
    licenses = _unique(_licence(member) for member in members)
    identifier = licenses[0].lower() if len(licenses) == 1 else ""
    known = identifier in _LICENSES
    stated = any(licenses)
    names = _unique(member.database for member in members)
    data = ModelCardData(
        license=identifier if known else "other" if stated else "unknown",
        license_name="see-the-card" if stated and not known else None,
        library_name="deepregions",
        pipeline_tag="image-classification",
        tags=[
            "deepfake-detection",
            "media-forensics",
            *_unique(member.detector.name for member in members),
            *_unique(f"region:{member.region}" for member in members),
        ],
        datasets=[name for name in names if re.fullmatch(r"\w[\w.-]{0,95}", name, re.ASCII)]
        or None,
    )
    text: str = data.to_yaml()
    return text.strip()


def _networks(members: Sequence[TrainedNetwork], digests: Sequence[str]) -> str:
    rows = [
        (
            _text(member.name),
            _text(member.detector.name),
            str(member.region),
            _text(member.database),
            f"{sum(p.numel() for p in member.detector.parameters()) / 1e6:.1f} M",
            f"`{digest[:16]}`" if re.fullmatch("[0-9a-f]+", digest) else "-",
        )
        for member, digest in zip(members, digests, strict=True)
    ]
    return _table(("name", "detector", "region", "trained on", "parameters", "SHA-256"), rows)


def _inputs(members: Sequence[TrainedNetwork]) -> str:
    rows, layouts = [], []
    for member in members:
        detector = member.detector
        settings = detector.settings()
        others = [f"{key} {value}" for key, value in settings.items() if key != "size"]
        rows.append(
            (
                _text(member.name),
                f"{detector.size} x {detector.size}",
                _text(member.resample),
                _text(member.layout),
                _channels(detector.mean),
                _channels(detector.std),
                _text(", ".join(others)) or "-",
            )
        )
        layouts.append(str(member.layout))
    heads = ("name", "pixels", "resampling", "layout", "mean", "divisor", "other settings")
    table = _table(heads, rows)
    notes = "".join(
        f"- Layout {_text(name)}: {_LAYOUTS.get(name, 'not described here')}.\n"
        for name in _unique(layouts)
    )
    double = any(member.detector.settings().get("double_softmax") for member in members)
    if double:
        notes += (
            "- double\\_softmax: scores as the original program gives them, within 0.39 and 0.61; "
            "their order is that of the single softmax.\n"
        )
    return (
        f"{table}\nRGB in [0, 1], less the mean, by the divisor. The networks do this themselves.\n"
        f"\n{notes}"
    )


def _origins(members: Sequence[TrainedNetwork]) -> str:
    lines = []
    for member in members:
        source = _dict(member.training.get("source"))
        if source:
            facts = [("imported from", source.get("file")), ("of", source.get("project"))]
            facts += [
                ("format", source.get("format")),
                ("SHA-256", source.get("sha256")),
                ("class of the fake", source.get("fake_index")),
            ]
        else:
            landmarks = _dict(member.training.get("landmarks"))
            forgeries = _list(_dict(member.training.get("forge")).get("methods"))
            facts = [
                ("trained with deepregions on", member.database),
                ("epoch", member.training.get("epoch")),
                ("seed", member.training.get("seed")),
                ("face store", member.training.get("store")),
                ("landmarks", " ".join(map(str, landmarks.values())) or None),
                ("fakes made of genuine faces by", ", ".join(map(str, forgeries)) or None),
            ]
        said = ", ".join(
            f"{what} {text}" for what, fact in facts if fact is not None and (text := _text(fact))
        )
        lines.append(f"- **{_text(member.name)}**: {said or 'not known'}.")
        remarks = (_text(remark) for remark in _list(source.get("remarks")))
        lines += [f"  - {remark}" for remark in remarks if remark]
    return "\n".join(lines) + "\n"


def _together(fusion: Fusion | None, calibration: Calibration | None) -> str:
    lines = [f"- Fusion: {(fusion or MeanFusion()).rule}."]
    if isinstance(fusion, TrainedFusion):
        lines[0] = f"- Fusion: {fusion.rule}, for exactly these networks together."
    if calibration is None:
        return f"{lines[0]}\n- Scores are uncalibrated.\n"
    about = calibration.development
    low, high = (bound / math.log(10) for bound in (calibration.lower, calibration.upper))
    methods = ", ".join(f"{_text(name)} {_number(n)}" for name, n in about.methods.items())
    found_on = f"database {_text(about.database)}, part {_text(about.split)}"
    videos = f"{_number(about.genuine)} genuine and {_number(about.fake)} fake videos"
    lines.append(
        f"- Calibration to likelihood ratios: {calibration.kind}, on {found_on}, {videos}"
        f"{f' ({methods})' if methods else ''}, face store {_text(about.store) or 'not known'}. "
        f"It supports log10 likelihood ratios from {low:.2f} to {high:.2f}, for the "
        f"{_text(calibration.quantity.faces or 'each face by itself')}."
    )
    return "".join(f"{line}\n" for line in lines)


def _figures(members: Sequence[TrainedNetwork]) -> str:
    rows = [
        (_text(member.name), _text(name), _number(value))
        for member in members
        for name, value in _dict(member.training.get("validation")).items()
    ]
    if not rows:
        return "None are known to the bundle.\n"
    return (
        "Of the validation part of the training database, which also chose the epoch: not what to "
        f"expect elsewhere.\n\n{_table(('name', 'figure', 'value'), rows)}"
    )


def _licences(members: Sequence[TrainedNetwork]) -> str:
    lines = []
    for member in members:
        stated = _licence(member)
        lines.append(f"- Weights of {_text(member.name)}: {_text(stated) or 'not stated'}.")
    for name in _unique(member.database for member in members):
        known = _DATA.get(name.lower(), "not known to the bundle: ask its makers")
        lines.append(f"- Data {_text(name)}: {known}.")
    lines.append("- The program deepregions: Apache-2.0. It does not cover weights or data.")
    return "\n".join(lines) + "\n"


def _licence(member: TrainedNetwork) -> str:
    """What is stated of a member's weights: by its source, or by whoever trained it."""
    source = _dict(member.training.get("source"))
    stated = source.get("licence") or member.training.get("licence")
    return stated if isinstance(stated, str) else ""


def _cited(member: TrainedNetwork) -> str:
    cited = _dict(member.training.get("source")).get("citation")
    return cited if isinstance(cited, str) else ""


def _channels(values: Any) -> str:
    numbers = [f"{number:.6g}" for number in values.flatten().tolist()]
    return numbers[0] if len(set(numbers)) == 1 else ", ".join(numbers)


def _number(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4f}"
    return "undefined" if value is None else _text(value)


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _text(value: Any) -> str:
    """Returns a value as one line in which nothing is Markdown or HTML."""
    line = " ".join(str(value).split())
    line = "".join(character for character in line if character.isprintable())
    line = re.sub(r"([\\`*_\[\]|~#!$])", r"\\\1", line)
    line = re.sub(r"^([-+=]|\d+(?=[.)]))", _escaped, line)  # what makes a line a list or a heading
    line = html.escape(line, quote=False)
    return re.sub(r"(?i)\b(https?|ftp|www)(:|\.)", r"\1&#8203;\2", line)  # no links of their own


def _escaped(found: re.Match[str]) -> str:
    return f"{found[0]}\\" if found[0].isdecimal() else f"\\{found[0]}"


def _unique(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
