"""Pages as PDF, printed by an installed browser."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from deepregions.errors import MissingExtraError, UnsupportedError
from deepregions.files import atomic_file

_BROWSERS = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "microsoft-edge",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
)
_LONGEST = 120  # seconds
# The page asks for nothing; neither shall the browser.
_QUIET = """--headless --disable-gpu --disable-quic --no-first-run --disable-background-networking
--disable-component-update --disable-sync --disable-extensions --no-pdf-header-footer"""


def find_browser() -> str:
    """Returns a browser that prints pages."""
    for name in _BROWSERS:
        if found := shutil.which(name):
            return found
    raise MissingExtraError(
        "PDFs need Chromium or Chrome, and there is none",
        "install it (Debian and Ubuntu: apt install chromium; macOS: brew install chromium); "
        "without --pdf, pages print well from any browser",
    )


def print_page(browser: str, page: Path, pdf: Path) -> None:
    """Prints a page to a PDF file, which appears whole or not at all.

    Raises:
        UnsupportedError: The browser did not print it.
    """
    sandbox = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    with tempfile.TemporaryDirectory() as profile, atomic_file(pdf) as partial:
        command = [browser, *_QUIET.split(), *sandbox, f"--user-data-dir={profile}"]
        command += [f"--print-to-pdf={partial}", page.resolve().as_uri()]
        try:
            done = subprocess.run(command, capture_output=True, timeout=_LONGEST, check=False)
        except subprocess.TimeoutExpired as error:
            raise UnsupportedError(f"{browser} took more than {_LONGEST} s to print") from error
        if done.returncode or not partial.is_file() or not partial.stat().st_size:
            last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
            raise UnsupportedError(f"{browser} did not print {page}: {' '.join(last)}")
