"""Looking inside: what temperature does, what a model thinks of a text, how two models differ, what attention sees.

Each module computes one of these and returns plain dataclasses; ``pages`` makes HTML of them and ``terminal`` tables.
NumPy only; matplotlib is imported when a picture is asked for.
"""
