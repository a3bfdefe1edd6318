"""Datasets: text of many forms becomes token ids and batches of windows. NumPy only; knows nothing of models."""
