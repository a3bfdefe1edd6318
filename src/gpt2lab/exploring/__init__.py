"""Looking inside: what temperature does, how a model reads a text, how two models differ, what attention sees.

Each module computes one of these and returns plain dataclasses; ``pages`` turns them into HTML and ``terminal`` into
tables. Needs only NumPy; matplotlib is imported only for pictures.
"""
