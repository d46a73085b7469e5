"""DenoisingAutoEncoder: reconstructs clean rows from noisy ones."""

import math
from numbers import Real

import torch
from sklearn.utils._param_validation import Interval, InvalidParameterError, StrOptions

from ._base import BaseAutoEncoder
from ._declaration import parameter
from ._losses import squared_error
from ._rows import TableRows


class DenoisingAutoEncoder(BaseAutoEncoder):
    r"""Denoising autoencoder.

    Encoder f and decoder g minimize the mean over rows of

    .. math:: \ell(x) = \lVert x - g(f(\tilde x)) \rVert^2, \quad \tilde x \sim q(\tilde x | x)

    summed over features, where the noise q is drawn anew for every batch and the target is the clean row [1]_.
    ``transform`` returns f(x), in the units of X, and adds no noise. Both are initialized as PCA.

    Parameters
    ----------
    noise : {"gaussian", "masking", "salt_and_pepper", "swap"}, default="gaussian"
        Noise of each entry of a row. "gaussian" adds a normal draw; the others, with probability `noise_level`, replace
        the entry by the column's mean ("masking"), by the column's minimum or maximum in the batch with equal
        probability ("salt_and_pepper"), or by the same column's value in another row of the batch ("swap", for tables:
        the noisy entry has the distribution of its column).

    noise_level : float, default=0.1
        Standard deviation of "gaussian" noise, as a share of `scale_`; otherwise a probability, at most 1.

    See Also
    --------
    AutoEncoder : The same network without noise.
    VAE : Gives a density, and draws new rows.

    Notes
    -----
    Standardize the columns of a table first, as for PCA; divide pictures by their maximum. The denoising loss is also
    what chooses the best epoch; the score is the R2 of reconstructing rows as they are given.

    References
    ----------
    .. [1] Vincent, Larochelle, Lajoie, Bengio, Manzagol (2010), "Stacked Denoising Autoencoders", JMLR 11, eq. 8 and
       section 3.3.
    .. [2] Al-Digeil, Grinberg, Melati et al. (2022), "PCA-Boosted Autoencoders for Nonlinear Dimensionality Reduction
      in Low Data Regimes". arXiv:2205.11673

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import DenoisingAutoEncoder
    >>> X = load_digits().data / 16
    >>> denoiser = DenoisingAutoEncoder(10, noise="masking", max_iter=2, random_state=0)
    >>> denoiser.fit_transform(X).shape
    (1797, 10)
    """

    noise: str = parameter(StrOptions({"gaussian", "masking", "salt_and_pepper", "swap"}), default="gaussian")
    noise_level: float = parameter(Interval(Real, 0, None, closed="left"), default=0.1)

    def _loss(self, module, x):
        return squared_error(x, module.decode(module.encode(self._corrupt(x, getattr(module, "columns", None)))))

    def _corrupt(self, x, columns=None):
        """A noisy copy of a batch; its columns have mean zero. columns: those of a table, whose inputs go together."""
        if self.noise == "gaussian":
            noisy = x + self.noise_level * torch.randn_like(x)
            return TableRows.of(noisy) if isinstance(x, TableRows) else noisy
        cells = x if columns is None else x[:, : len(columns.sizes)]
        places = slice(None) if columns is None else columns.column_of_input.to(x.device)
        replaced = (torch.rand_like(cells) < self.noise_level)[:, places]
        if self.noise == "masking":
            other = torch.zeros_like(x)
        elif self.noise == "salt_and_pepper":
            least, most = x.amin(0), x.amax(0)
            if isinstance(x, TableRows):
                least, most = (x.nan_to_num(sign * math.inf).mul(sign).amin(0).mul(sign) for sign in (1, -1))
            other = torch.where(torch.rand_like(cells)[:, places] < 0.5, least, most)
        else:
            n_rows = len(x)
            shift = torch.randint(1, max(n_rows, 2), cells.shape, device=x.device)[:, places]
            other = x.gather(0, (torch.arange(n_rows, device=x.device)[:, None] + shift) % n_rows)
        noisy = torch.where(replaced, other, x)
        return TableRows.of(torch.where(x.isnan(), x, noisy)) if isinstance(x, TableRows) else noisy

    def _check_parameters(self):
        super()._check_parameters()
        if self.noise != "gaussian" and self.noise_level > 1:
            raise InvalidParameterError(
                f"noise_level must be at most 1 for noise={self.noise!r}, where it is a probability; got "
                f"{self.noise_level}."
            )
