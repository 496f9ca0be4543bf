"""The figures of an evaluation; each says so where something is not defined."""
