"""The machine: memory, cores, caches, locks, files. Knows nothing of models or text."""
