"""Pre-training: a file for each thing that it is made of.

Importing this package, or its `recipes`, imports no torch.
"""
