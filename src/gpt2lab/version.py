"""The versions of this package and of its contract, the rules from which every bit of a text follows."""

__version__ = "0.1.0"

CONTRACT = 4
"""The contract's version: under one version, the same request gives the same text on every machine of a group.

It rises whenever any bit of the logits, in any precision, or any draw of the sampler changes. Everything that may be
replayed later records it. 1 stands for everything before version 2, because nothing recorded a version then.
``gpt2lab.contract`` defines the logits in float32, int8 and int4; ``gpt2lab.engines.precision.machine_group`` defines
the groups.
"""
