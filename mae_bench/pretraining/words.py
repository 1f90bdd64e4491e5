"""What reports call pre-training."""

TASK = "pretrain"
PROTOCOLS = {"mae": "masked autoencoder pre-training"}
"""protocol -> title"""
ERRORS = frozenset({"loss"})
"""metrics of which less is better"""
PICTURES = "Reconstructions"
"""heading of its pictures"""
