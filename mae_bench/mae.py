"""The masked autoencoder by its stable name, `mae_bench.mae.MaskedAutoencoder`."""

from mae_bench.pretraining.autoencoder import MaskedAutoencoder, Output, Reconstruction

__all__ = ["MaskedAutoencoder", "Output", "Reconstruction"]
