"""The figures of an evaluation, as matplotlib figures: same numbers, same bytes, no global state.

Where something is not defined, such as a curve of one class alone, a figure says so.
"""
