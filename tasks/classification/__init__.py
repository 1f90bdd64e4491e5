"""Image classification: one task, a row of dataset facts for each data set.

Protocols: finetune, linear, scratch. Importing this package does not import torch.
"""
