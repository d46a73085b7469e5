"""Autoencoders for scikit-learn, on PyTorch."""

from ._adversarial import AdversarialAutoEncoder
from ._autoencoder import AutoEncoder
from ._base import BaseAutoEncoder
from ._checkpoint import Checkpoint as Checkpoint
from ._conditional import ConditionalVAE
from ._contractive import ContractiveAutoEncoder
from ._declaration import parameter as parameter
from ._denoising import DenoisingAutoEncoder
from ._imputer import AutoEncoderImputer
from ._memory_map import memory_map as memory_map
from ._neighbor import NeighborAutoEncoder
from ._search import (
    BatchedGridSearchCV,
    BatchedHalvingGridSearchCV,
    BatchedHalvingRandomSearchCV,
    BatchedRandomizedSearchCV,
)
from ._sparse import SparseAutoEncoder
from ._temporal import TDVAE
from ._variational import VAE
from ._vector_quantized import VQVAE
from ._windows import windows as windows

__all__ = [
    "AdversarialAutoEncoder",
    "AutoEncoder",
    "AutoEncoderImputer",
    "BaseAutoEncoder",
    "BatchedGridSearchCV",
    "BatchedHalvingGridSearchCV",
    "BatchedHalvingRandomSearchCV",
    "BatchedRandomizedSearchCV",
    "ConditionalVAE",
    "ContractiveAutoEncoder",
    "DenoisingAutoEncoder",
    "NeighborAutoEncoder",
    "SparseAutoEncoder",
    "TDVAE",
    "VAE",
    "VQVAE",
]

__version__ = "0.1.0"
