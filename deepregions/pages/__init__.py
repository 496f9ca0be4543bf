"""What all pages share: one look, light, dark and printed, and everything from data escaped."""

import base64
import hashlib
import shlex
from collections.abc import Sequence
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from deepregions.errors import printable


def environment(package: str) -> Environment:
    """Returns what renders a package's ``templates``: what is from data is escaped, and visible."""
    made = Environment(
        loader=ChoiceLoader([PackageLoader(package), PackageLoader(__name__)]),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,  # the files do not change
    )
    made.filters["sha256"] = _digest
    return made


def data_uri(kind: str, data: bytes) -> Markup:
    """Returns an image, such as a ``jpeg``, as an address that holds it: nothing is fetched."""
    return Markup(f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}")  # noqa: S704


def command_line(command: Any) -> str:
    """Returns a command as one types it: its parts quoted where that is needed."""
    if isinstance(command, Sequence) and not isinstance(command, str):
        return shlex.join(str(part) for part in command)
    return str(command) if command else ""


def _digest(text: str) -> str:
    """Returns what a content security policy calls a script that may run."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _shown(value: Any) -> Any:
    if type(value) is str:
        return printable(value)
    return value
