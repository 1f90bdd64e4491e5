"""What there is to run, in the order of its worth. Imports no torch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    title: str
    module: str
    """of this package; its `run(bench, *arguments)` is called"""
    seconds: float
    """that it may take; it is ended then"""
    arguments: tuple[str, ...] = ()


PARTS = {
    "machine": Part("The machine", "machine", 30),
    "exactness": Part("Kernels against float64", "exactness", 60),
    "mae_l": Part("MAE pre-training, ViT-L", "pretraining", 75, ("vit_l",)),
    "tests": Part("Tests that need a GPU", "marked_tests", 110),
    "relative": Part("Attention with relative positions", "relative", 60),
    "detection": Part("Detection step", "detection", 50),
    "loader": Part("Loading", "loader", 45),
    "segmentation": Part("Segmentation step", "segmentation", 35),
    "finetune": Part("Fine-tuning step", "finetuning", 45),
    "syncs": Part("Waiting of the host for the GPU", "syncs", 35),
    "mae_b": Part("MAE pre-training, ViT-B", "pretraining", 40, ("vit_b",)),
    "evaluation": Part("Evaluation", "evaluation", 35),
    "mae_h": Part("MAE pre-training, ViT-H", "pretraining", 60, ("vit_h",)),
}
