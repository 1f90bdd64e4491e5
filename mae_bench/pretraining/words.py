"""What reports call pre-training."""

from mae_bench.pretraining.methods import METHODS

TASK = "pretrain"
PROTOCOLS = {name: method.title for name, method in METHODS.items()}
"""protocol -> title"""
ERRORS = frozenset({"loss"})
"""metrics of which less is better"""
PICTURES = "Reconstructions"
"""heading of its pictures"""
