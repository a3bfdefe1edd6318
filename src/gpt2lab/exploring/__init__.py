"""Looks inside a model: sweeps of temperature, texts as it reads them, comparisons of two models, attention.

Each module computes one of these and returns plain dataclasses; ``pages`` turns them into HTML and ``terminal`` into
tables. The package needs only NumPy; matplotlib is imported only for pictures.
"""
