"""The built-in miniature world: drawn scenes in the official layouts of the benchmark's data sets.

Importing this package does not import torch.
"""

from tasks.miniature.contact_sheet import contact_sheet
from tasks.miniature.world import WorldSizes, default_root, ensure, find, make

__all__ = ["WorldSizes", "contact_sheet", "default_root", "ensure", "find", "make"]
