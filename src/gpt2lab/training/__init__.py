"""Training, in PyTorch: the module, the data, the loop and what is saved. Nothing else of the package imports torch."""
