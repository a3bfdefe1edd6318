"""The machine under everything: memory, cores, caches, locks, files. Knows nothing of models or text."""
