"""What a service is told when it starts, and what its processes need to know."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepregions.service.scoring import FileScorer

Progress = Callable[[Path, int, int | None], None]
"""Told a file, how many of its frames were looked at, and how many there are, if that is known."""

Scored = tuple[dict[str, Any], str]
"""A file's result, as ``detect --json`` has it, and its page, empty if that is made later."""


@dataclass(frozen=True)
class ServiceSettings:
    """What a service is told; options of ``deepregions serve`` have their names.

    Attributes:
        keep: Seconds that an uploaded file is kept once its job is done.
        max_size: The largest file that is taken, in bytes.
        rate: Uploads of a key in a minute; 0 sets no limit.
        wait: Seconds that ``/v1/detect`` waits for its answer.
        longest: Seconds that a job may take; then its worker is ended.
        ray: A Ray cluster's address; empty is the one that runs here, or else one of its own; None
            is processes here.
    """

    data: Path
    host: str = "127.0.0.1"
    port: int = 8000
    bundle: tuple[Path, ...] | None = None
    workers: int = 1
    runtime: str | None = None
    keep: float = 86400.0
    max_size: int = 200_000_000
    queue: int = 1000
    rate: float = 600.0
    wait: float = 60.0
    longest: float = 1800.0
    ray: str | None = None
    make_scorer: Callable[[ServiceSettings], FileScorer] = FileScorer

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach it; otherwise keys are needed."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def pages_later(self) -> bool:
        """Whether photographs' pages are made when they are asked for, as their files are there."""
        return self.ray is None and self.keep >= self.results_kept

    @property
    def uploads(self) -> Path:
        """The folder of uploaded files."""
        return self.data / "uploads"

    @property
    def reports(self) -> Path:
        """The folder of reports."""
        return self.data / "reports"

    @property
    def database(self) -> Path:
        """The file of jobs."""
        return self.data / "jobs.sqlite"

    @property
    def keys(self) -> Path:
        """The file of keys."""
        return self.data / "keys.json"

    @property
    def results_kept(self) -> float:
        """Seconds that a result is kept: as long as files, but long enough to be fetched."""
        return max(self.keep, 3600.0)
