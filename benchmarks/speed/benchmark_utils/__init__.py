from itertools import pairwise

from torch import nn


def plain_network(widths):
    """Encoder and mirrored decoder, without skae's linear maps beside them."""
    return nn.Sequential(_perceptron(widths), _perceptron(widths[::-1]))


def _perceptron(widths):
    layers = []
    for n_in, n_out in pairwise(widths):
        layers += [nn.Linear(n_in, n_out), nn.SiLU()]
    return nn.Sequential(*layers[:-1])
