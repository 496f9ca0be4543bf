"""``deepregions bundle``: bundles on the Hugging Face Hub."""

import sys
from pathlib import Path

from deepregions.commands.options import check_there


def push_bundle(folder: Path, repository: str, *, private: bool = False) -> None:
    """Uploads a bundle to the Hugging Face Hub.

    The bundle is loaded first, so that nothing broken is published; then bundle.json, the weights
    and the model card (README.md) become one commit. Read the card first: others will. The token
    is that of huggingface_hub: `hf auth login`, or HF_TOKEN. Others can then use the bundle as
    hf://OWNER/NAME.

    Args:
        folder: The bundle's folder.
        repository: OWNER/NAME; created if it does not exist.
        private: Make a new repository private.
    """
    check_there(folder)

    from deepregions.weights.bundle import load_bundle
    from deepregions.weights.hub import push

    load_bundle(folder)
    sys.stdout.write(f"{push(folder, repository, private=private)}\n")
