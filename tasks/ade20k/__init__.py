"""ADE20K scene parsing: semantic segmentation with UperNet.

Importing this package does not import torch.
"""
