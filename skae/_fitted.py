"""What a fitted estimator does with its network: encode, decode, score, and travel in a pickle."""

import inspect
import os
import warnings
from typing import Any

import numpy as np
import torch
from sklearn import config_context
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.utils import check_array, check_random_state, gen_batches
from sklearn.utils.validation import check_is_fitted

from ._card import card
from ._mapped import any_missing, release
from ._onnx import write_onnx
from ._rows import TableRows, at_least_one, checked_weights, dense, rows_at_once
from ._saving import load_module_arrays, module_arrays, upgraded
from ._tables import fitted_scaler
from ._training import reproducible

__all__ = ["FittedNetwork", "checked_draws", "for_inference"]

# How often a network that was fitted to complete rows reconstructs what is missing of others.
N_RECONSTRUCTIONS = 30
# The pages of a memory map are let go after about so many rows.
RELEASED_AT = 100_000


class FittedNetwork(ClassNamePrefixFeaturesOutMixin, TransformerMixin):
    """Uses the network ``module_``, in float64, and the scaler ``_scaler_``, both of which `fit` sets."""

    def transform(self, X, out=None) -> np.ndarray:
        """Encode X.

        Deterministic and computed in float64, so that a row's code does not depend on the rows beside it.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Data to encode. A memory map is read in pieces.
        out : ndarray of shape (n_samples, n_components_), default=None
            Where to write the codes, such as a memory map for more codes than fit into memory. None makes an array.

        Returns
        -------
        X_new : ndarray of shape (n_samples, n_components_), float32 for float32 X and float64 otherwise
            Codes; `out` if it is given.

        Raises
        ------
        NotFittedError
            Before `fit`.
        ValueError
            If X has another number of features than in `fit`, or infinity, or if `out` has another shape.
        """
        X = self._validate(X)
        shape, given = (X.shape[0], self.n_components_), (np.shape(out), getattr(out, "dtype", type(out)))
        if out is not None and (given[0] != shape or given[1] not in (np.float32, np.float64)):
            raise ValueError(
                f"out must be an array of float32 or float64 of the shape (n_samples, n_components_) = {shape}, got "
                f"{given[1]} and {given[0]}."
            )
        return self._map(X, self._encode, self.n_components_, out=out)

    def inverse_transform(self, X) -> Any:
        """Decode codes, back in the units of the training data.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_components_)
            Codes.

        Returns
        -------
        X_original : ndarray of shape (n_samples, n_features_in_), float32 for float32 X and float64 otherwise
            Reconstruction.

        Raises
        ------
        NotFittedError
            Before `fit`.
        ValueError
            If X has another number of columns than `n_components_`, or NaN or infinity.
        """
        rows = self._map(self._validate_codes(X), self._decode, self.n_features_in_)
        return self._scaler_.table(rows)

    def _validate_codes(self, X):
        check_is_fitted(self)
        with config_context(array_api_dispatch=False):
            X = check_array(X, dtype=[np.float64, np.float32], input_name="X")
        if X.shape[1] != self.n_components_:
            raise ValueError(
                f"X has {X.shape[1]} columns, but {type(self).__name__}.inverse_transform is expecting "
                f"n_components_={self.n_components_}: codes as transform returns them."
            )
        return X

    def score_samples(self, X) -> np.ndarray:
        """Score each row by minus the squared error of its reconstruction: higher is more normal.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Data to score.

        Returns
        -------
        scores : ndarray of shape (n_samples,), float64
            Minus the sum over features of the squared differences, in squared units of X.

        Raises
        ------
        NotFittedError
            Before `fit`.
        ValueError
            If X is not valid.
        """
        X = self._validate(X)
        return self._map(X, self._minus_squared_error, None)

    def score(self, X, y=None, sample_weight=None) -> float:
        """R2 of the reconstruction: one less the share of the variance of X, over all features, left unexplained.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Data to reconstruct.
        y : Ignored
            Present for API consistency.
        sample_weight : array-like of shape (n_samples,), default=None
            How much each row counts. None is one for each.

        Returns
        -------
        score : float
            ``r2_score(X, inverse_transform(transform(X)), multioutput="variance_weighted")`` with the weights, computed
            in float64; 1 is perfect. NaN, with a warning, for a single row.

        Raises
        ------
        NotFittedError
            Before `fit`.
        ValueError
            If X or sample_weight is not valid.
        """
        X = self._validate(X)
        weights = checked_weights(sample_weight, X)
        if X.shape[0] < 2:
            warnings.warn(
                "R^2 score is not well-defined with less than two samples.", UndefinedMetricWarning, stacklevel=2
            )
            return float("nan")
        weights = np.broadcast_to(1 / X.shape[0], X.shape[0]) if weights is None else weights / weights.sum()
        total, residual = self._sums_of_squares(X, weights)
        varies = total > 0
        if not varies.any():  # as r2_score
            return float((residual == 0).mean())
        return 1.0 - float(residual[varies].sum() / total.sum())

    def _sums_of_squares(self, X, weights):
        """Of each column, from its mean and from the reconstruction, in units of `scale_`, where squares are finite."""

        def weighted(function):
            return sum(
                torch.where(self._inputs(x).isnan(), 0, torch.tensor(weights[rows, None]).to(x) * function(x)).sum(0)
                for rows, x in self._pieces(X)
            )

        with torch.inference_mode():
            # from which a constant column deviates by zero exactly
            first = self._inputs(next(self._pieces(X[:1]))[1]).nan_to_num(0)
            mean = weighted(lambda x: (self._inputs(x) - first) / self.scale_)
            if any_missing(X):
                mean = mean / weighted(lambda x: torch.ones_like(self._inputs(x))).clamp_min(
                    torch.finfo(mean.dtype).tiny
                )
            total = weighted(lambda x: ((self._inputs(x) - first) / self.scale_ - mean).square())
            left = weighted(lambda x: ((self._inputs(x) - self._reconstruction(x)) / self.scale_).square())
        return total.numpy(force=True), left.numpy(force=True)

    def to_onnx(self, path: str | os.PathLike, method: str = "transform") -> None:
        """Write an ONNX file that computes the codes of rows, or the rows of codes, without skae and PyTorch.

        The graph (opset 18) has all that the method does with numbers: mean, scale, indicators of categories and, if X
        of `fit` had them, missing cells. Rows may be any number. Categories are their codes 0, 1, 2, ... in the order
        that the entry "columns" of the file's metadata gives, with the names of the columns. It needs the extra
        ``onnx``: ``pip install skae[onnx]``.

        Parameters
        ----------
        path : str or path-like
            The file.
        method : {"transform", "inverse_transform"}, default="transform"
            What the graph computes. "transform": its input is "X", float32 (n_samples, n_features_in_), NaN where a
            cell is missing; its output "codes", float32 (n_samples, n_components_). The codes of rows with missing
            cells are NaN if X of `fit` had none. "inverse_transform": from "codes" to "X", and for ConditionalVAE with
            one more input, "condition", float32 (n_samples, n_condition_features).

        Raises
        ------
        NotFittedError
            Before `fit`.
        ImportError
            If onnxscript is not installed.
        ValueError
            If method is none of the two, or if PyTorch cannot write a network of one's own as ONNX.
        """
        check_is_fitted(self)
        write_onnx(self, path, method)

    def model_card(self, X=None, X_test=None) -> Any:
        """Describe the fitted model for those who are to use it: a card of skops, ``.save("README.md")`` writes it.

        It has the parameters, the loss curves, versions, and of the rows given their number, features, missing cells,
        fingerprint and score. Sections that only you can fill, such as the intended use, say so. It needs the package
        skops.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features), default=None
            Rows of `fit`.
        X_test : {array-like, sparse matrix} of shape (n_test, n_features), default=None
            Rows that `fit` has not seen.

        Returns
        -------
        card : skops.card.Card
            The card, to which more can be added.

        Raises
        ------
        NotFittedError
            Before `fit`.
        ImportError
            If skops is not installed.
        """
        check_is_fitted(self)
        return card(self, X, X_test)

    def _validate(self, X):
        check_is_fitted(self)
        return self._scaler_.validate(self, X, reset=False, new=True)

    def _map(self, array, function, n_columns, width=1, out=None):
        """Apply a function of float64 tensors to the rows of an array, in pieces; dtype as array, float64 if 1-D.

        width: how many numbers the function makes of a row at once, if these are more than its columns.
        """
        n_rows = array.shape[0]
        dtype = array.dtype if n_columns and array.dtype == np.float32 else np.float64
        out = np.empty((n_rows,) if n_columns is None else (n_rows, n_columns), dtype=dtype) if out is None else out
        with torch.inference_mode():
            for rows, x in self._pieces(array, width):
                out[rows] = function(x).numpy(force=True)
                if rows.stop // RELEASED_AT > rows.start // RELEASED_AT:
                    release(out)
        return out

    def _pieces(self, array, width=1):
        """Pieces of the rows of an array: the slice, and a float64 tensor where the network is."""
        device = next(self.module_.parameters()).device
        for rows in gen_batches(array.shape[0], rows_at_once(max(array.shape[1], self.n_features_in_, width))):
            yield rows, torch.from_numpy(np.array(dense(array[rows]), dtype=np.float64)).to(device)
            if rows.stop // RELEASED_AT > rows.start // RELEASED_AT:
                release(array)

    def _encode(self, x):
        return self.module_.encode(self._observed(self._scaler_.transform(x))) * self._code_scale()

    def _observed(self, x):
        """What the network takes of rows in which cells may be missing.

        One that was fitted to complete rows takes these cells as it reconstructs them: the mean at first, then what
        the network gives for the row with its last reconstruction.
        """
        missing = x.isnan()
        if not missing.any():
            return x
        if getattr(self.module_, "fills", False):
            return TableRows.of(x)
        filled = x.nan_to_num(0.0)
        for _ in range(N_RECONSTRUCTIONS):
            filled = torch.where(missing, self._reconstruct(filled), x)
        return filled

    def _reconstruct(self, inputs):
        """What the network gives back of what it sees."""
        return self.module_.decode(self.module_.encode(inputs))

    def _decode(self, z):
        return self._scaler_.inverse_transform(self.module_.decode(z / self._code_scale()))

    def _code_scale(self):
        """What codes of the module are multiplied by: codes of unit variance become as large as PCA's of X."""
        code_scale = getattr(self.module_, "code_scale", 1.0)
        return 1.0 if code_scale is None else self.scale_ * code_scale

    def _inputs(self, x):
        """Rows as they are compared with their reconstruction: those of a table with categories coded and weighted."""
        if self._scaler_._columns_ is None:
            return x.clip(0, 1) if self._scaler_.probabilities else x
        return self._weighted(self._scaler_.transform(x))

    def _reconstruction(self, x):
        if self._scaler_._columns_ is None:
            return self._decode(self._encode(x))
        return self._weighted(self._reconstruct(self._observed(self._scaler_.transform(x))))

    def _weighted(self, inputs):
        weights = self._scaler_.weights()
        return inputs if weights is None else inputs * torch.tensor(weights).to(inputs).sqrt()

    def _minus_squared_error(self, x):
        inputs = self._inputs(x)
        return -torch.where(inputs.isnan(), 0, inputs - self._reconstruction(x)).square().sum(-1)

    @property
    def explained_variance_(self):
        explained, _ = self._explained()
        return self.scale_**2 * explained

    @property
    def explained_variance_ratio_(self):
        explained, total = self._explained()
        return explained / total if total > 0 else np.zeros_like(explained)

    def _explained(self):
        """What each component explains, (n_components_,), and the variance of all features; of scaled rows."""
        check_is_fitted(self)
        if getattr(self, "_explained_", None) is None:
            raise AttributeError(f"{type(self).__name__} has explained variances after fit, not after partial_fit.")
        return self._explained_

    @property
    def _n_features_out(self):
        return self.n_components_

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        tags.input_tags.sparse = tags.input_tags.allow_nan = True
        tags.input_tags.categorical = tags.input_tags.string = True
        return tags

    # Building the network, in fit and again when a pickle is read.

    def _new_network(self, scaler, seed, device, n_components):
        """The network with random weights, the same for the same seed."""
        options = scaler.network_options()
        parameters = inspect.signature(self._build_module).parameters.values()
        if "columns" in options and not any(p.kind is p.VAR_KEYWORD or p.name == "columns" for p in parameters):
            raise TypeError(
                f"X has missing cells or categories, and {type(self).__name__}._build_module takes no columns=..., "
                "what the network has to know of them. Let it take **options and pass these to AutoEncoderModule, or "
                "impute and encode X."
            )
        with reproducible(seed, device):
            network = self._build_module(scaler.n_inputs, n_components, scaler.scale_, **options)
            network = network.to(device, torch.float32)
        network.n_components = n_components
        return network

    def __getstate__(self):
        state = super().__getstate__().copy()
        if isinstance(state.get("module_"), torch.nn.Module):
            state["module_"] = module_arrays(state["module_"])
            del state["_scaler_"]
        return state

    def __setstate__(self, state):
        super().__setstate__(upgraded(type(self), state))
        if isinstance(getattr(self, "module_", None), dict):
            builder = type(self).__new__(type(self))  # with the parameters of the fit: they may have been changed since
            vars(builder).update(vars(self) | self._parameters_of_fit_)
            scaler = fitted_scaler(builder, self)
            network = builder._new_network(scaler, self._network_seed_, torch.device("cpu"), self.n_components_)
            load_module_arrays(network, self.module_)
            try:
                device = self._device()
            except ValueError:  # fitted on an accelerator that this machine does not have
                device = torch.device("cpu")
            self._scaler_, self.module_ = scaler, for_inference(network.to(device))


def for_inference(module):
    """The module as it is used after training, in float64; mps has none."""
    device = next(module.parameters()).device
    return module.eval().to(device if device.type != "mps" else "cpu", torch.float64)


def checked_draws(n_samples, random_state):
    """Number of rows to draw, and the generator to draw them with."""
    return at_least_one(n_samples=n_samples), check_random_state(random_state)
