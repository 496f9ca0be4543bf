"""What a file says of where it comes from: shown beside a score, and never part of it.

All of it is a stranger's text, from a process that a file may have taken over: :func:`received`
makes it fit to be shown.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeVar

_LONGEST, _MOST = 300, 20  # characters of a text, texts of a kind

CREDENTIALS_STATES = ("trusted", "valid", "broken", "unread")

_Record = TypeVar("_Record", "Credentials", "Provenance")


@dataclass(frozen=True)
class Credentials:
    """Content credentials: a C2PA manifest that is part of the file.

    ``trusted`` ones verify, and the signer is on a trust list; of the signer of ``valid`` ones
    nothing is said; ``broken`` ones do not verify.
    """

    state: str = "unread"  # one of CREDENTIALS_STATES
    problems: tuple[str, ...] = ()  # C2PA's codes, or why they were not read
    issuer: str = ""  # the organisation in the signer's certificate
    common_name: str = ""
    time: str = ""
    generator: str = ""  # the program that made the claim
    actions: tuple[str, ...] = ()
    source_types: tuple[str, ...] = ()  # of the IPTC, declared of the file
    ingredient_source_types: tuple[str, ...] = ()  # of what it was made from


@dataclass(frozen=True)
class Provenance:
    """What a photograph or video says of where it comes from; what it does not say is empty."""

    camera: str = ""
    taken: str = ""
    software: tuple[str, ...] = ()  # of EXIF, XMP, PNG text or the container
    located: bool = False
    orientation: int = 0  # of EXIF, 1 to 8
    container: str = ""
    encoder: str = ""
    generator: str = ""  # parameters of an image generator, of PNG text
    source_types: tuple[str, ...] = ()  # of the IPTC, declared by XMP
    signs: tuple[str, ...] = ()  # of editing or encoding anew, that are certain
    remote: str = ""  # where its content credentials are; nothing is fetched
    credentials: Credentials | None = None

    def to_dict(self) -> dict[str, Any]:
        """Returns it as JSON has it."""
        told: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return told


def from_json(said: Mapping[str, Any] | None) -> Provenance | None:
    """Returns what :meth:`Provenance.to_dict` wrote; None of None."""
    if said is None:
        return None
    signed = said.get("credentials")
    credentials = None if signed is None else received(Credentials, signed)
    return received(Provenance, said, credentials=credentials)


def received(kind: type[_Record], said: Mapping[str, Any], **known: Any) -> _Record:
    """Makes a record of whatever the process that decodes sent; texts become short, clean lines."""
    values: dict[str, Any] = {}
    for each in fields(kind):
        value, default = said.get(each.name, each.default), each.default
        if isinstance(default, bool):
            values[each.name] = value is True
        elif isinstance(default, int):
            values[each.name] = value if isinstance(value, int) and 0 <= value <= 8 else default
        elif isinstance(default, tuple):
            several = value[:_MOST] if isinstance(value, list | tuple) else ()
            values[each.name] = tuple(dict.fromkeys(filter(None, map(clean, several))))
        elif isinstance(default, str):
            values[each.name] = clean(value)
    if kind is Credentials and values["state"] not in CREDENTIALS_STATES:
        values["state"] = "unread"
    return kind(**values | known)


def clean(value: object, longest: int = _LONGEST) -> str:
    """Returns a text as one short line; what does not print becomes a space."""
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    shown = (one if one.isprintable() else " " for one in text[: 4 * longest])
    line = " ".join("".join(shown).split())
    return line if len(line) <= longest else f"{line[: longest - 1]}…"
