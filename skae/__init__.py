"""Autoencoders for scikit-learn, on PyTorch."""

from ._autoencoder import AutoEncoder
from ._base import BaseAutoEncoder
from ._denoising import DenoisingAutoEncoder
from ._variational import VAE

__all__ = ["AutoEncoder", "BaseAutoEncoder", "DenoisingAutoEncoder", "VAE"]

__version__ = "0.1.0"
