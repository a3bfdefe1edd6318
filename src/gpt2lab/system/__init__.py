"""The machine: memory, cores, caches, locks, files. This module knows nothing of models or text."""
