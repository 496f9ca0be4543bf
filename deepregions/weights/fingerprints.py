"""Fingerprints of people: a bundle tells whom its networks learned from without naming them."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable


def fingerprint(database: str, person: str) -> str:
    """Returns 16 hexadecimal digits for a person as a database calls them."""
    return hashlib.sha256(f"{database}\0{person}".encode("utf-8", "surrogateescape")).hexdigest()[
        :16
    ]


def fingerprints(database: str, identities: Iterable[Iterable[str]]) -> tuple[str, ...]:
    """Returns the fingerprints, sorted, of everybody in some photographs or videos."""
    people = {person for names in identities for person in names if person}
    return tuple(sorted(fingerprint(database, person) for person in people))


def known_people(
    known: Collection[str], database: str, identities: Iterable[Iterable[str]]
) -> tuple[int, int]:
    """Counts whom a network learned from among the people of a database's part.

    Returns:
        How many of them are known, and how many people there are.
    """
    there = fingerprints(database, identities)
    return len(set(known).intersection(there)), len(there)
