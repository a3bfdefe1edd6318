"""The versions of this package, and of the contract that its texts keep."""

__version__ = "0.1.0"

CONTRACT = 2
"""The contract's version: with the same one, the same request gives the same text on every machine of a group.

It rises whenever any bit of any precision's logits changes, or any draw of the sampler. Everything that may be replayed
later records it. 1 stands for all of gpt2lab before version 2, which recorded none. ``gpt2lab.contract`` defines the
logits in float32, ``gpt2lab.engines.precision.machine_group`` the groups.
"""
