"""Which device a name means here."""

from __future__ import annotations

import torch

from deepregions.errors import UsageError


def choose_device(name: str) -> torch.device:
    """Returns the device of a name; "auto" is the GPU where there is one.

    Raises:
        UsageError: There is no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        hint = "auto, cpu, cuda or cuda:N; see what PyTorch says of your GPU"
        raise UsageError(f"device {name!r} cannot be used here", hint) from error
    return device
