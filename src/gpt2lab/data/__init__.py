"""Datasets: text in many forms in, token ids and batches of windows out. NumPy only; knows nothing of models."""
