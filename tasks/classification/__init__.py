"""Image classification: one task, a row of dataset facts for each data set.

Protocols: see `recipes.PROTOCOLS`. Importing this package does not import torch.
"""
