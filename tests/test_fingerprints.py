"""Who a network was trained on."""

from deepregions.people import fingerprint, fingerprints, known_people

PART = [("anna",), ("anna", "ben"), ("",), ("cem",)]


def test_everybody_once_and_nobody_by_name():
    people = fingerprints("dfdc", PART)
    assert len(people) == 3
    assert list(people) == sorted(fingerprint("dfdc", who) for who in ("anna", "ben", "cem"))
    assert all(len(each) == 16 and int(each, 16) >= 0 for each in people)


def test_people_are_known_in_their_own_database_alone():
    known = fingerprints("dfdc", [("ben",), ("dora",)])
    assert known_people(known, "dfdc", PART) == (1, 3)
    assert known_people(known, "ffpp", PART) == (0, 3)
    assert known_people((), "dfdc", []) == (0, 0)


def test_a_name_that_is_not_utf_8_has_a_fingerprint():
    assert len(fingerprint("x", b"\xff".decode("utf-8", "surrogateescape"))) == 16
