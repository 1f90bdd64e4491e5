"""A suite: what it consists of, which runs that is, and how they are carried out."""

from mae_bench.suite.running import suite

__all__ = ["suite"]
