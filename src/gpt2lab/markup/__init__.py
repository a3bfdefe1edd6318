"""HTML, style and pictures that stand alone: for reports, which are pages, and for notebooks, which show fragments.

This package knows nothing of models: it takes texts, numbers and records.
"""
