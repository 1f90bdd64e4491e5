"""COCO 2017: object detection and instance segmentation with Mask R-CNN.

Importing this package does not import torch.
"""
