"""What the service answers where it cannot do what it is asked: RFC 9457 problem details."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

MEDIA_TYPE = "application/problem+json"


class ProblemError(Exception):
    """A request that cannot be answered as its sender wants."""

    def __init__(
        self, status: int, detail: str, hint: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.hint = hint
        self.headers = dict(headers or {})

    def to_dict(self) -> dict[str, Any]:
        """Returns the object of the answer."""
        return problem(self.status, str(self), self.hint)


def problem(status: int, detail: str, hint: str = "") -> dict[str, Any]:
    """Returns a problem as JSON has it."""
    told = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status}
    return told | {"detail": detail} | ({"hint": hint} if hint else {})
