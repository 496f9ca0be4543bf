"""The face swap that networks are only ever tested on."""

import sys
from pathlib import Path

import numpy as np
import pytest
from drawn_faces import write_drawn_store

from deepregions.data.store import FaceStore, decode_image


def test_a_swap_changes_the_face_and_little_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    import mesh_swap

    write_drawn_store(tmp_path / "toy", 40, 0)
    arguments = ["--store", tmp_path / "toy", "--out", tmp_path / "swaps", "--split", "train"]
    monkeypatch.setattr(sys, "argv", ["mesh_swap.py", *map(str, arguments)])
    mesh_swap.main()
    made = FaceStore(tmp_path / "swaps")
    assert len(made) >= 4
    for number in range(0, len(made), 2):
        genuine, fake = made[number], made[number + 1]
        assert (genuine.label, fake.label, fake.method) == (0, 1, "mesh_swap")
        assert fake.identities[0] == genuine.identities[0]
        before, after = (decode_image(each.image).numpy().astype(int) for each in (genuine, fake))
        changed = np.abs(after - before).max(0)
        low, high = genuine.landmarks.min(0), genuine.landmarks.max(0)
        x, y = np.meshgrid(np.arange(changed.shape[1]), np.arange(changed.shape[0]))
        face = (x > low[0]) & (x < high[0]) & (y > low[1]) & (y < high[1])
        assert changed[face].mean() > 4 * changed[~face].mean()
