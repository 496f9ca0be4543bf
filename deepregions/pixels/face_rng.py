"""Random numbers per face: each face has its own stream, whatever batch it is in.

Numbers are a hash of the face's seed and a count, without carried state, so a face gets the same
numbers on any device, in any batch and order. They stay on the host, so choosing faces needs no
wait for the device. Only :func:`noise` makes large fields, on the device.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable

import torch
from torch import Tensor

# The multipliers of SplitMix64 (Steele, Lea and Flood 2014), as signed numbers.
_STEP, _ONE, _TWO = -7046029254386353131, -4658895280553007687, -7723592293110705685

_SIDE = 12  # bits of a place along an axis
_AHEAD = 64  # numbers that are hashed together


def seeds_of(keys: Iterable[str], *salt: int | str) -> Tensor:
    """Returns a seed for each face's name, (N,) int64 on the host; another salt gives others."""
    prefix = "/".join(map(str, salt))
    # Names of files need not be text.
    words = (f"{prefix}:{key}".encode("utf-8", "surrogateescape") for key in keys)
    digests = (hashlib.blake2b(word, digest_size=8) for word in words)
    return torch.tensor([int.from_bytes(d.digest(), "big", signed=True) for d in digests])


class FaceRng:
    """A stream of random numbers for each of B faces, from seeds (B,); all results are on the host.

    Each call takes the next numbers of every face's stream. ``seeds`` are also for :func:`noise`.
    """

    def __init__(self, seeds: Tensor) -> None:
        self.seeds = seeds
        self._drawn = 0
        self._table = torch.empty(len(seeds), 0)  # numbers yet to be drawn

    def __len__(self) -> int:
        return len(self.seeds)

    def __getitem__(self, rows: Tensor | slice) -> FaceRng:
        """Returns streams for some of the faces, from their beginning."""
        return FaceRng(self.seeds[rows])

    def stream(self, name: str) -> FaceRng:
        """Returns streams of the same faces for another purpose, by name."""
        salt = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), signed=True)
        return FaceRng(_mixed(self.seeds ^ salt))

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        """Returns (B, *shape) float32, evenly in [low, high)."""
        return low + (high - low) * self._unit(*shape)

    def normal(self, *shape: int) -> Tensor:
        """Returns (B, *shape) float32 of mean 0 and deviation 1."""
        return 2**0.5 * torch.erfinv(2 * self._unit(*shape) - 1 + 2**-24)

    def chance(self, p: float) -> Tensor:
        """Returns (B,) bool, true with probability ``p``."""
        return torch.lt(self._unit(), p)

    def choice(self, count: int) -> Tensor:
        """Returns (B,) int64, evenly in [0, count)."""
        return (self._unit() * count).long()

    def _unit(self, *shape: int) -> Tensor:
        """(B, *shape) float32, evenly in [0, 1)."""
        count = torch.Size(shape).numel()
        missing = count - self._table.shape[1]
        if missing > 0:
            fresh = max(missing, _AHEAD)  # one hash of many numbers takes no longer than of one
            place = torch.arange(self._drawn + 1, self._drawn + 1 + fresh) * _STEP
            self._drawn += fresh
            bits = _mixed(self.seeds[:, None] + place)
            self._table = torch.cat((self._table, _shifted(bits, 40).float() * 2**-24), dim=1)
        drawn, self._table = self._table[:, :count], self._table[:, count:]
        return drawn.reshape(-1, *shape)


def noise(seeds: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Returns (B, *shape) float32 of about normal noise, on the device of the seeds (B,) int64.

    The sum of four bytes of a 32-bit hash, so it ends at 3.5 standard deviations. A smaller shape
    has a part of a larger one's noise, its beginning along each axis. Sides after the first are of
    at most 4096.
    """
    place = torch.zeros((), dtype=torch.int32, device=seeds.device)
    for side in shape:
        step = torch.arange(side, dtype=torch.int32, device=seeds.device)
        place = ((place << _SIDE)[..., None] + step).flatten()
    start = _mixed(seeds).to(torch.int32)  # its low half
    bits = place * 0x01000193 + start[:, None]
    for shift, factor in ((16, 0x7FEB352D), (15, -0x7B935975)):  # the multipliers of lowbias32
        high = bits >> shift
        bits.bitwise_xor_(high.bitwise_and_((1 << (32 - shift)) - 1)).mul_(factor)
    high = bits >> 16
    bits.bitwise_xor_(high.bitwise_and_(0xFFFF))
    total = (bits & 0x00FF00FF).add_(bits.bitwise_right_shift_(8).bitwise_and_(0x00FF00FF))
    total = (total & 0xFFFF).add_(total >> 16)
    spread = math.sqrt(4 * (256**2 - 1) / 12)
    return total.float().sub_(510).div_(spread).view(-1, *shape)


def _mixed(x: Tensor) -> Tensor:
    """SplitMix64's finaliser, on int64 whose products overflow."""
    x = (x ^ _shifted(x, 30)) * _ONE
    x = (x ^ _shifted(x, 27)) * _TWO
    return x ^ _shifted(x, 31)


def _shifted(x: Tensor, bits: int) -> Tensor:
    """Shifted right, zeros coming in."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)
