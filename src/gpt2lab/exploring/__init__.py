"""Looks inside a model: sweeps of temperature, texts as it reads them, comparisons of two models, attention.

Each module computes one of these. The modules of the results (``swept``, ``compared``, ``document``, ``attend_page``,
``patch_page``) hold plain dataclasses and turn them into HTML; ``terminal`` prints them as tables. The package needs
only NumPy; matplotlib is imported only for pictures.
"""
