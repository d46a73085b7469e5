from itertools import pairwise

import numpy as np
import torch
from benchmark_utils.method import Method
from sklearn.base import BaseEstimator, TransformerMixin
from torch import nn


def perceptron(widths):
    layers = [layer for pair in pairwise(widths) for layer in (nn.Linear(*pair), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


class PlainAutoEncoder(TransformerMixin, BaseEstimator):
    """The autoencoder of the tutorials: two perceptrons, squared error, Adam at its default rate, fixed epochs."""

    def __init__(self, n_components, hidden_layer_sizes, n_epochs, random_state):
        self.n_components, self.hidden_layer_sizes = n_components, hidden_layer_sizes
        self.n_epochs, self.random_state = n_epochs, random_state

    def fit(self, X, y=None):
        torch.manual_seed(self.random_state)
        rows = torch.from_numpy(X.astype(np.float32))
        widths = (X.shape[1], *self.hidden_layer_sizes, self.n_components)
        self.encoder_, self.decoder_ = perceptron(widths), perceptron(widths[::-1])
        adam = torch.optim.Adam([*self.encoder_.parameters(), *self.decoder_.parameters()])
        for _ in range(self.n_epochs):
            for batch in torch.randperm(len(rows)).split(64):
                adam.zero_grad()
                nn.functional.mse_loss(self.decoder_(self.encoder_(rows[batch])), rows[batch]).backward()
                adam.step()
        return self

    def transform(self, X):
        return self._apply(self.encoder_, X)

    def inverse_transform(self, Z):
        return self._apply(self.decoder_, Z)

    @torch.no_grad()
    def _apply(self, network, rows):
        return network(torch.from_numpy(rows.astype(np.float32))).numpy()


class Solver(Method):
    """An autoencoder without the PCA fallback, a second initialization, schedule, decay or early stopping."""

    name = "plain autoencoder"
    parameters = {"hidden_layer_sizes": [(128, 64)], "n_epochs": [150]}

    def estimator(self, n_components, random_state, X):
        return PlainAutoEncoder(n_components, self.hidden_layer_sizes, self.n_epochs, random_state)
