"""Does heat fall on what was forged? ``python benchmarks/attribution.py --store S --bundle B``.

Every genuine face of the store's test split is forged by each method, confined to its eyes, nose or
mouth (drawn evenly), as ``deepregions forge --store S --region-p 1.0`` does; what is measured, and
against what, is told in ``deepregions/evaluation/attribution.py``.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from deepregions.data.forged_store import forge_store
from deepregions.data.store import FaceStore
from deepregions.devices import choose_device
from deepregions.errors import UsageError
from deepregions.evaluation.attribution import measure, summarise
from deepregions.forge import METHODS
from deepregions.forge.masks import CONFINED
from deepregions.system import System
from deepregions.weights.selection import Choice, choose_members


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--store", type=Path, required=True, help="genuine faces")
    parser.add_argument("--bundle", type=Path, required=True, help="has a network for entire")
    parser.add_argument("--detector", help="which of its detectors")
    parser.add_argument("--split", default="test")
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    device = choose_device(options.device)
    choice = Choice.named(detector=options.detector, region="entire")
    members = choose_members(choice, [options.bundle])
    if len(members) != 1:
        raise UsageError(f"there are {len(members)} networks", "choose one with --detector")
    with tempfile.TemporaryDirectory() as folder:
        forged = Path(folder) / "forged"
        source = FaceStore(options.store)
        forge_store(source, forged, options.methods, region_p=1.0, seed=options.seed, device=device)
        system = System(members).to(device)
        found = measure(system, FaceStore(forged), options.split, device)
    print(f"{members[0].name} on {options.store.name}, {options.split} split, {device}")
    groups = {"all": found}
    groups |= {m: [each for each in found if each.method == m] for m in options.methods}
    groups |= {
        str(region): [each for each in found if each.region == n]
        for n, region in enumerate(CONFINED)
    }
    groups["called fake"] = [each for each in found if each.called]
    for name, group in groups.items():
        print(f"\n{name}")
        for what, value in (summarise(group) if group else {}).items():
            if isinstance(value, tuple):
                said = "{:.3f} [{:.3f}, {:.3f}]".format(*value)
            else:
                said = f"{value:.4g}"
            print(f"  {what:<26}{said}")


if __name__ == "__main__":
    main()
