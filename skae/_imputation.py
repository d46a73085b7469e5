"""Missing cells of rows from a fitted variational autoencoder: the best guess, or draws."""

from functools import partial
from numbers import Integral
from typing import Any

import numpy as np
import torch
from sklearn.utils import check_random_state, gen_batches

from ._columns import completed, is_missing_table
from ._losses import with_noise
from ._rows import NUMBERS_AT_ONCE, row_digests

__all__ = ["Imputes", "reconstructed", "standard_normal_draws"]

# Draws of the code of a row that are weighted by how well they explain its observed cells.
N_WEIGHTED = 1000
# How often a member that gives no likelihood reconstructs missing cells.
N_RECONSTRUCTIONS = 10


class Imputes:
    """Gives a variational autoencoder the method `impute`."""

    def impute(self, X, n_draws: int | None = None, random_state=None) -> Any:
        r"""Fill missing cells: with the best guess, or with draws from what is missing given what is observed.

        The best guess is the mean of numbers and the most probable category, by self-normalized importance weights

        .. math:: E[x_m | x_o] \approx \sum_k w_k E[x_m | z_k], \quad w_k \propto p(x_o | z_k) p(z_k) / q(z_k | x_o)

        of 1000 draws :math:`z_k` of the posterior given the observed cells (Mattei and Frellsen 2019, "MIWAE", ICML,
        eq. 11). Draws take one of the :math:`z_k` with the probability :math:`w_k` and add the noise of the likelihood.
        Both are computed for each row alone: neither depends on the other rows, or on their order. Columns of numbers
        alone share one scale: standardize them first, or use `AutoEncoderImputer`, which does.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows in which cells are missing: NaN, None or pandas.NA.
        n_draws : int or None, default=None
            Number of draws. None gives the best guess.
        random_state : int, RandomState instance or None, default=None
            Determines the draws.

        Returns
        -------
        X_filled : same type as X, or list of them
            A copy, observed cells as they are, also those of a category that `fit` did not see; with n_draws a list of
            so many.

        Raises
        ------
        NotFittedError
            Before `fit`.
        ValueError
            If X or n_draws is not valid.
        """
        if n_draws is not None and (not isinstance(n_draws, Integral) or isinstance(n_draws, bool) or n_draws < 1):
            raise ValueError(f"n_draws must be an integer of at least 1, or None, got {n_draws!r}.")
        valid = self._validate(X)
        seed = check_random_state(random_state).randint(2**31) if n_draws else 0
        filled = self._filled(valid, n_draws or 0, int(seed))
        missing = is_missing_table(X)
        tables = [completed(X, missing, codes, self._scaler_._columns_) for codes in filled]
        return tables if n_draws else tables[0]

    def _filled(self, X, n_draws, seed):
        """Rows of a valid X with what is missing: the best guess, (1, n_rows, n_features), or draws."""
        out = np.repeat(np.array(X, dtype=np.float64)[None], n_draws or 1, axis=0)
        holed = np.flatnonzero(np.isnan(out[0]).any(axis=1))
        if not len(holed):
            return out
        noise = torch.from_numpy(standard_normal_draws(N_WEIGHTED, self.n_components_))
        n_columns = len(self.mean_)
        random = partial(row_draws, seed=seed, n_draws=n_draws, n_inputs=n_columns)
        with torch.inference_mode():
            for rows in gen_batches(len(holed), max(1, NUMBERS_AT_ONCE // (2 * N_WEIGHTED * n_columns))):
                x = torch.from_numpy(out[0, holed[rows]]).to(next(self.module_.parameters()))
                inputs, posterior = self._posterior(x)
                z = with_noise(noise.to(x)[:, None].expand(-1, *posterior[0].shape), *posterior)
                y = self.module_.outputs(self.module_.with_condition(z, inputs))
                weights = self._log_weights(self.module_, inputs, posterior, z, y).softmax(0)
                if n_draws:
                    uniform, normal = (torch.as_tensor(draws).to(x) for draws in random(X[holed[rows]]))
                    chosen = (weights.cumsum(0)[:, None] < uniform[..., -1]).sum(0).clamp_max(len(z) - 1)
                    drawn = z.gather(0, chosen[..., None].expand(-1, -1, z.shape[-1]))
                    x_hat = self.module_.drawn(self.module_.with_condition(drawn, inputs), normal, uniform[..., :-1])
                else:
                    x_hat = (weights[..., None] * self.module_.expected(y)).sum(0, keepdim=True)
                found = torch.stack([self._scaler_.inverse_transform(part) for part in x_hat])
                out[:, holed[rows]] = torch.where(x.isnan(), found, x).numpy(force=True)
        return out


def reconstructed(estimator, X):
    """X with its missing cells as a fitted member reconstructs them, several times over."""
    valid = estimator._validate(X)
    out, scaler, module = np.array(valid, dtype=np.float64), estimator._scaler_, estimator.module_
    with torch.inference_mode():
        for rows, x in estimator._pieces(valid):
            inputs = scaler.transform(x)
            missing, filled = inputs.isnan(), inputs
            for _ in range(N_RECONSTRUCTIONS):
                filled = torch.where(missing, module.decode(module.encode(estimator._observed(filled))), inputs)
            found = scaler.inverse_transform(filled)
            out[rows] = torch.where(x.isnan(), found, x).numpy(force=True)
    return completed(X, is_missing_table(X), out, scaler._columns_)


def row_draws(X, seed, n_draws, n_inputs):
    """Uniform and normal draws for each row, shapes (n_draws, n_rows, n_inputs + 1) and (n_draws, n_rows, n_inputs).

    They depend on the row and the seed alone, not on the other rows.
    """
    uniform, normal = np.empty((len(X), n_draws, n_inputs + 1)), np.empty((len(X), n_draws, n_inputs))
    for place, digest in enumerate(row_digests(X)):
        rng = np.random.Generator(np.random.Philox(key=[int(digest), seed]))
        uniform[place], normal[place] = rng.random(uniform.shape[1:]), rng.standard_normal(normal.shape[1:])
    return uniform.swapaxes(0, 1), normal.swapaxes(0, 1)


def standard_normal_draws(n_draws, n_components):
    """Scrambled Sobol points as normal draws: each is N(0, I), together they average better than independent ones."""
    uniform = torch.quasirandom.SobolEngine(n_components, scramble=True, seed=0).draw(n_draws, dtype=torch.float64)
    least = 2.0**-31  # the points are multiples of 2^-30
    return torch.special.ndtri(uniform.clamp(least, 1 - least)).numpy()
