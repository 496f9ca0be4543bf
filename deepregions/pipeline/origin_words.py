"""What a file says of its origin, in words. They are declarations: no score knows of them."""

import re
from collections.abc import Iterable, Iterator

from deepregions.media.provenance import Credentials, Provenance

# Digital source types (cv.iptc.org/newscodes/digitalsourcetype). Of these the terminal tells too.
_MADE = {
    "trainedAlgorithmicMedia": "made by generative AI",
    "compositeWithTrainedAlgorithmicMedia": "edited or composed with generative AI",
    "algorithmicMedia": "made by an algorithm",
    "composite": "a composite",
    "compositeCapture": "a composite of several captures",
    "compositeSynthetic": "a composite with synthetic elements",
    "virtualRecording": "recorded in a virtual world",
}
_CAPTURED = {
    "digitalCapture": "captured by a camera",
    "computationalCapture": "captured by a camera, from several exposures",
    "screenCapture": "captured from a screen",
    "algorithmicallyEnhanced": "enhanced by an algorithm",
    "humanEdits": "edited by hand",
    "digitalCreation": "created by hand on a computer",
}
_EDITORS = re.compile(
    r"photoshop|lightroom|firefly|gimp|affinity|pixelmator|snapseed|facetune|faceapp|meitu|picsart"
    r"|canva\b|capture one|darktable|paint|luminar|premiere|after effects|final cut|davinci|capcut"
    r"|midjourney|dall.?e|stable diffusion|comfyui|deepfacelab|faceswap|facefusion|deepregions",
    re.IGNORECASE,
)
_CHANGED = {
    "Hash.mismatch": "the file was changed after it was signed",
    "hashedURI.mismatch": "what they declare was changed after it was signed",
    "claimSignature.": "the signature does not match",
}


def origin_facts(provenance: Provenance) -> list[tuple[str, str]]:
    """What the page tells, by its names."""
    signed = provenance.credentials
    turned = provenance.orientation
    told = (
        ("content credentials", "" if signed is None else _credentials(signed)),
        ("signed", "" if signed is None else _when(signed)),
        ("they declare", "" if signed is None else "; ".join(_declared(signed))),
        ("credentials elsewhere", provenance.remote and f"{provenance.remote} (not fetched)"),
        ("declares itself", _types(provenance.source_types)),
        ("names as its software", ", ".join(provenance.software)),
        ("generator's parameters", provenance.generator),
        ("camera", provenance.camera),
        ("taken or made", provenance.taken),
        ("position", "a GPS position is in the file" if provenance.located else ""),
        ("orientation", f"{turned} of EXIF: stored turned or mirrored" if turned > 1 else ""),
        ("container", provenance.container),
        ("encoder", provenance.encoder),
        ("signs of editing", "; ".join(provenance.signs)),
    )
    return [(name, text) for name, text in told if text]


def origin_line(provenance: Provenance | None) -> str:
    """What the terminal tells: credentials, an artificial source, editors; often nothing."""
    if provenance is None:
        return ""
    signed = provenance.credentials
    declared, signed_as = (
        _types(each for each in (() if found is None else found.source_types) if each in _MADE)
        for found in (provenance, signed)
    )
    editors = [name for name in provenance.software if _EDITORS.search(name)]
    told = (
        "" if signed is None else f"content credentials: {_credentials(signed)}",
        signed_as and f"they declare the file {signed_as}",
        provenance.remote and "its content credentials are elsewhere and were not fetched",
        declared and f"the file declares itself {declared}",
        editors and f"it names {', '.join(editors)} as its software",
        provenance.generator and "it holds the parameters of an image generator",
        *provenance.signs,
    )
    return "; ".join(each for each in told if each)


def _credentials(signed: Credentials) -> str:
    by = signed.common_name or "somebody unnamed"
    by += f" ({signed.issuer})" if signed.issuer else ""
    codes = ", ".join(signed.problems)
    if signed.state == "trusted":
        return f"signed by {by}, who is on a list of trusted signers; file and signature match"
    if signed.state == "valid":
        return f"signed by {by}; file and signature match, but nobody checked who that is"
    if signed.state == "broken":
        why = next((why for part, why in _CHANGED.items() if part in codes), "they do not verify")
        return f"broken: {why} ({codes or 'no reason given'}); they name {by} as their signer"
    return f"there are some; {codes or 'they were not read'}"


def _when(signed: Credentials) -> str:
    parts = signed.time, signed.generator and f"by the program {signed.generator}"
    return ", ".join(part for part in parts if part)


def _declared(signed: Credentials) -> Iterator[str]:
    if signed.source_types:
        yield _types(signed.source_types)
    if signed.ingredient_source_types:
        yield f"of what it was made from: {_types(signed.ingredient_source_types)}"
    if signed.actions:
        yield f"actions: {', '.join(signed.actions)}"


def _types(codes: Iterable[str]) -> str:
    words = _MADE | _CAPTURED
    return ", ".join(f"{words[code]} ({code})" if code in words else code for code in codes)
