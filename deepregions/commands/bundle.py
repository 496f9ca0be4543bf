"""``deepregions bundle``: bundles on the Hugging Face Hub."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal


def bundle(
    action: Literal["push"],  # noqa: ARG001  # so far the only one
    folder: Path,
    repository: str,
    *,
    private: bool = False,
) -> int:
    """Uploads a bundle to the Hugging Face Hub.

    It is loaded first, so that nothing broken is published; then bundle.json, the weights and the
    model card (README.md) become one commit. Look at the card before: it is what others read. The
    token is huggingface_hub's: `hf auth login`, or HF_TOKEN. Others then use it as a bundle by
    the name hf://owner/name.

    Args:
        action: push.
        folder: The bundle's folder.
        repository: owner/name; made if it is not there.
        private: Make it private, if it is made.
    """
    from deepregions.weights.bundle import load_bundle
    from deepregions.weights.hub import push

    load_bundle(folder)
    sys.stdout.write(f"{push(folder, repository, private=private)}\n")
    return 0
