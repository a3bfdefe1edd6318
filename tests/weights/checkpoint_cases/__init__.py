"""The registry of checkpoints that people have: how each is written, and whether it is read or refused.

Every module of this folder registers its cases with :func:`registry.read` and :func:`registry.refused`.
``test_checkpoint_cases.py`` runs them, and ``tools/checkpoint_table.py`` makes the table of ``docs/checkpoints.md``.
"""

from importlib import import_module
from pkgutil import iter_modules

from checkpoint_cases.registry import CASES, Case, Written

for _module in sorted(module.name for module in iter_modules(__path__)):
    import_module(f"{__name__}.{_module}")

__all__ = ["CASES", "Case", "Written"]
