"""Datasets: text of many forms becomes token ids and batches of windows.

This package needs only NumPy and knows nothing of models.
"""
