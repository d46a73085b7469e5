"""Modules with ``encode`` and ``decode``: a linear map plus a multilayer perceptron on either side of the code.

The linear maps carry the PCA fallback: initialized at the principal axes, with the perceptrons' output layers at zero,
the module *is* PCA (or probabilistic PCA), and training continues from there.
"""

import torch
from torch import Tensor, nn

from ._axes import LEAST_NOISE, MOST_OBSERVED_AXES, PrincipalAxes, observed_axes, principal_axes
from ._layers import Columns, FillingEncoder, LinearPlusPerceptron, PosteriorEncoder, factor_model
from ._losses import coded_probabilities, drawn_categories
from ._rows import SparseRows

__all__ = ["AutoEncoderModule", "Network", "VariationalModule"]

# Probabilities are initialized this far from 0 and 1, so that their logits and the gradients of these are finite.
MARGIN = 0.01


class Network(nn.Module):
    """What the estimators ask of a network. Of these, ``encode`` and ``decode`` are needed; the rest has a default.

    code_scale: what codes are multiplied by to be in the units of the scaled rows, a number or a tensor of shape
    (n_components,), 1 if it is not set; None if codes have units of their own, as those of a prior.
    columns: what it knows of a table. fills: whether it takes rows with missing cells, NaN; it then has
    ``fill_by(axes)``, which is given their principal axes.
    code_map: the maps of its code that the network can absorb and its objective allows: "linear" for all that are
    invertible, "orthogonal", "signed permutation", "permutation", "signs", or None. Unless None it has
    ``map_code(matrix, inverse, shift)``, after which the code is ``matrix (z - shift)`` where it was z.
    n_code_parts: components are dealt out to so many parts of the code in turn, and stay in theirs.
    starts_once: whether random weights are not worth a run of their own beside PCA.
    has_pca: whether the network is PCA once it is initialized at principal axes, so that it can be the PCA fallback.
    """

    code_scale: Tensor | float | None
    code_map: str | None = None
    n_code_parts: int = 1
    has_pca: bool = True
    columns: Columns | None = None
    fills: bool = False
    starts_once: bool = False

    def encode(self, x: Tensor) -> Tensor:
        """Codes of scaled rows, (batch, n_inputs) -> (batch, n_components)."""
        raise NotImplementedError

    def decode(self, z: Tensor) -> Tensor:
        """Scaled rows of codes, (batch, n_components) -> (batch, n_features)."""
        raise NotImplementedError

    def principal_axes(
        self, x: Tensor | SparseRows, n_axes: int, rows: Tensor | None = None, weights: Tensor | None = None
    ) -> PrincipalAxes:
        """The principal axes of x, or of some of its rows, that `initialize` takes."""
        return principal_axes(x, n_axes, rows, weights)

    def initialize(self, x: Tensor | SparseRows, rows: Tensor, axes: PrincipalAxes | None) -> None:
        """Initialize what depends on data: at principal axes, or, if axes is None, beside the random weights.

        x: scaled rows, (n_samples, n_inputs), to be taken as x[rows]; rows: indices of those that may be looked at,
        more than once if they weigh more.
        """


class AutoEncoderModule(Network):
    """Encoder ``(batch, n_features) -> (batch, n_components)`` and its mirror image, the decoder.

    columns: what to know of a table, whose missing cells the encoder then fills.

    With ``probabilities=True`` the features are in [0, 1] and ``decode`` is the logistic function of ``logits``. There
    the linear map gives the probability itself, cut to [0.01, 0.99], and the perceptron is added to its logit, so that
    PCA's reconstruction can initialize this decoder too.

    Codes are about of unit variance, which suits the perceptrons; ``code_scale`` gives them the units of x.
    """

    def __init__(
        self,
        n_features: int,
        n_components: int,
        hidden_layer_sizes: tuple[int, ...],
        activation: str,
        probabilities: bool = False,
        n_heads: int = 1,
        columns: Columns | None = None,
    ) -> None:
        super().__init__()
        self.n_components, self.probabilities, self.columns = n_components, probabilities, columns
        if columns is not None and columns.missing:
            n_axes = min(n_components, max(n_features - 1, 1), MOST_OBSERVED_AXES)
            self.encoder = FillingEncoder(n_features, hidden_layer_sizes, n_heads * n_components, activation, n_axes)
        else:
            self.encoder = LinearPlusPerceptron(n_features, hidden_layer_sizes, n_heads * n_components, activation)
        self.decoder = LinearPlusPerceptron(n_components, hidden_layer_sizes[::-1], n_features, activation)
        if probabilities:
            nn.init.constant_(self.decoder.linear.bias, 0.5)
        self.register_buffer("code_scale", torch.ones(n_components))

    def encode(self, x: Tensor) -> Tensor:
        return self.encoder(x)

    def decode(self, z: Tensor) -> Tensor:
        return self.logits(z).sigmoid() if self.probabilities else self.decoder(z)

    @property
    def code_map(self) -> str:
        # codes without a scale have units of their own, which they are to keep
        return "linear" if isinstance(self.code_scale, Tensor) else "signed permutation"

    def map_code(self, matrix: Tensor, inverse: Tensor, shift: Tensor) -> None:
        self.encoder.map_outputs(matrix, shift)
        self.decoder.map_inputs(inverse, shift)
        if isinstance(self.code_scale, Tensor):  # of a permutation; whoever rescales codes sets it
            self.code_scale.copy_(matrix.abs() @ self.code_scale.cpu().double())

    def slopes(self) -> Tensor | None:
        """The matrix of a linear decoder, (n_features, n_components); None if it is not linear."""
        perceptron = self.decoder.perceptron
        linear = perceptron is None or not bool(perceptron[-1].weight.any())
        return self.decoder.linear.weight[:, : self.n_components] if linear and not self.probabilities else None

    def logits(self, z: Tensor) -> Tensor:
        logits = self.decoder.linear(z).clamp(MARGIN, 1 - MARGIN).logit()
        return logits if self.decoder.perceptron is None else logits + self.decoder.perceptron(z)

    @property
    def fills(self) -> bool:
        """Whether cells may be missing, so that principal axes are needed to fill them, with random weights too."""
        return self.columns is not None and self.columns.missing

    def principal_axes(
        self, x: Tensor | SparseRows, n_axes: int, rows: Tensor | None = None, weights: Tensor | None = None
    ) -> PrincipalAxes:
        return (observed_axes if self.fills else principal_axes)(x, n_axes, rows, weights)

    def fill_by(self, pca: PrincipalAxes) -> None:
        """Fill missing cells by probabilistic PCA."""
        self.encoder.fill_by(pca)

    def initialize(self, x: Tensor | SparseRows, rows: Tensor, axes: PrincipalAxes | None) -> None:
        if axes is not None:
            self.set_pca(axes)

    def set_pca(self, pca: PrincipalAxes) -> None:
        """Make encoding and decoding PCA, with codes of unit variance."""
        mean, axes, variances = pca[:3]
        deviations = variances.sqrt()
        inverse = torch.where(variances > 0, 1 / deviations, 0)
        if self.code_scale is not None:
            self.code_scale.copy_(torch.where(variances > 0, deviations, 1))
        encode = inverse[:, None] * axes
        self.encoder.set_linear(encode, -encode @ mean)
        self.decoder.set_linear((deviations[:, None] * axes).T, mean)


class VariationalModule(AutoEncoderModule):
    """Gaussian posterior ``N(mean, diag(exp(log_var)))`` over codes; ``encode`` is its mean.

    A Gaussian decoder has one noise variance for all features: ``log_noise`` is its logarithm, learned if
    ``noise_variance`` is None and fixed at it otherwise. The distribution of the codes is the module ``prior``, which
    the estimator sets.
    """

    # The logarithm of the noise has to fall by several units while a weight moves by a few tenths: it is this many
    # times the parameter that the optimizer steps.
    NOISE_STEP = 10.0
    # No posterior need be wider than e times the prior; for a row far from all others its exponential would overflow.
    MOST_LOG_VAR = 1.0

    def __init__(
        self,
        n_features: int,
        n_components: int,
        hidden_layer_sizes: tuple[int, ...],
        activation: str,
        probabilities: bool = False,
        noise_variance: float | None = None,
        beta: float = 1.0,
        columns: Columns | None = None,
    ) -> None:
        options = dict(probabilities=probabilities, n_heads=2, columns=columns)
        super().__init__(n_features, n_components, hidden_layer_sizes, activation, **options)
        self.prior = None
        self.code_scale = None  # codes have the units of the prior
        self.beta = beta
        log_noise = torch.tensor(1.0 if noise_variance is None else noise_variance).log()
        self.learns_noise = noise_variance is None and not probabilities
        if columns is not None:
            self._know(columns, hidden_layer_sizes, n_components, activation)
            if hidden_layer_sizes or any(columns.categorical):  # a linear model of numbers stays probabilistic PCA
                log_noise = log_noise.expand(n_features).clone()
        self.noise = nn.Parameter(log_noise / self.NOISE_STEP, requires_grad=self.learns_noise)

    def _know(self, columns: Columns, hidden_layer_sizes: tuple[int, ...], n_components: int, activation: str) -> None:
        """Take over what a table needs: the posterior given observed cells, and places and shares of categories."""
        if columns.missing:
            self.encoder = PosteriorEncoder(
                len(columns.shares), hidden_layer_sizes, n_components, activation, columns.column_of_input
            )
        self.register_buffer("shares", columns.shares)
        self.register_buffer("least_noise", columns.least_noise)
        self.register_buffer("numbers", columns.numbers)
        self.register_buffer("categories", columns.categories)
        self.register_buffer("members", columns.members)

    @property
    def starts_once(self) -> bool:
        """The encoder is the posterior of probabilistic PCA with random weights too: a second run gained nothing."""
        return self.fills

    @property
    def code_map(self) -> str:
        # rotated, a diagonal covariance would not be one; the factor of one given observed cells depends on the order
        return "signs" if self.fills else "signed permutation"

    def map_code(self, matrix: Tensor, inverse: Tensor, shift: Tensor) -> None:
        self.encoder.map_outputs(torch.block_diag(matrix, matrix.abs()), torch.cat([shift, torch.zeros_like(shift)]))
        self.decoder.map_inputs(inverse, shift)
        if hasattr(self.prior, "map_code"):
            self.prior.map_code(inverse)

    def slopes(self) -> Tensor | None:
        return None if self.has_categories else super().slopes()

    @property
    def log_noise(self) -> Tensor:
        if not self.learns_noise:
            return self.NOISE_STEP * self.noise
        least = self.least_noise if self.noise.ndim else LEAST_NOISE
        return torch.log((self.NOISE_STEP * self.noise).exp() + least)

    def posterior(self, x: Tensor) -> tuple[Tensor, ...]:
        """Mean and log-variance of each code; with missing cells also the factor that makes them correlated."""
        if self.fills:
            return self.encoder(x)
        mean, log_var = self.encoder(x).chunk(2, dim=-1)
        return mean, log_var.clamp(max=self.MOST_LOG_VAR)

    def encode(self, x: Tensor) -> Tensor:
        return self.posterior(x)[0]

    @property
    def has_categories(self) -> bool:
        return self.columns is not None and any(self.columns.categorical)

    def decode(self, z: Tensor) -> Tensor:
        return self.expected(self.outputs(z))

    def expected(self, y: Tensor) -> Tensor:
        """Rows that the decoder's outputs stand for: means, and probabilities of logits."""
        if self.probabilities:
            return y.sigmoid()
        return coded_probabilities(y, self.categories, self.shares) if self.has_categories else y

    def outputs(self, z: Tensor) -> Tensor:
        r"""Means of numbers and logits of probabilities and of categories.

        With shares p the logits are :math:`\ln p_k + (W z)_k / \sqrt{p_k}` and the perceptron's output: to first order
        in z the probabilities are those of the linear map of coded indicators.
        """
        if self.probabilities:
            return self.logits(z)
        if not self.has_categories:
            return self.decoder(z)
        y = self.shares.log() + self.decoder.linear(z) / self.shares.sqrt()
        return y if self.decoder.perceptron is None else y + self.decoder.perceptron(z)

    def drawn(self, z: Tensor, normal: Tensor, uniform: Tensor) -> Tensor:
        """Rows from the likelihood, given codes and random numbers, one for each input of a row."""
        if self.probabilities:
            return (uniform < self.decode(z)).to(z)
        y = self.outputs(z)
        x = y + (0.5 * self.log_noise).exp() * normal
        return drawn_categories(x, y, uniform, self.categories, self.shares) if self.has_categories else x

    def modelled(self, x: Tensor) -> Tensor:
        """The columns of x that the decoder gives: here all."""
        return x

    def fill_by(self, pca: PrincipalAxes) -> None:
        loadings, noise = factor_model(pca, self.encoder.loadings.shape[1])
        self.encoder.set_factor_model(loadings, pca.mean, float(noise))

    def with_condition(self, z: Tensor, x: Tensor) -> Tensor:
        """What the decoder takes for codes z of rows x: here the codes alone."""
        return z

    def initialize(self, x: Tensor | SparseRows, rows: Tensor, axes: PrincipalAxes | None) -> None:
        super().initialize(x, rows, axes)
        if hasattr(self.prior, "initialize"):
            self.prior.initialize(x, rows)

    @torch.no_grad()
    def set_pca(self, pca: PrincipalAxes) -> None:
        r"""Make this probabilistic PCA, whose bound is the log-likelihood (Lucas et al. 2019, section 4).

        With noise v and s = beta v, the best linear decoder has columns :math:`\sqrt{\lambda_i - s}\, u_i` and the
        posterior is :math:`N(\sqrt{\lambda_i - s} / \lambda_i \, u_i^T (x - mean), s / \lambda_i)`, for every component
        with :math:`\lambda_i > s`; the others are the prior. Learned noise is set to its best value, the sum of the
        discarded variances over their number (n_all - beta n_components). Where rows are fewer than features that is,
        as in PCA, the number of variances that the rows could show: less noise would be too little for other rows.
        """
        mean, axes, variances, total, n_all = pca
        n_components = len(axes)
        rest = max(total - float(variances.sum()), 0.0)
        if self.learns_noise:
            positive = variances[variances > 0]
            noise = rest / max(n_all - self.beta * min(n_components, n_all), 1)
            if n_components >= n_all and len(positive):
                noise = 0.5 * float(positive.min())  # no variance is discarded: the model is exact for any less noise
            if self.noise.ndim:
                noise = self.least_noise.new_tensor(noise).clamp(min=2 * self.least_noise) - self.least_noise
            else:
                noise = torch.tensor(max(noise, 2 * LEAST_NOISE) - LEAST_NOISE)
            self.noise.copy_(noise.log() / self.NOISE_STEP)
        # for beta = 0 the posterior has next to no width
        s = max(self.beta * float(self.log_noise.exp().mean()), 1e-12)
        if self.probabilities:
            s = max(rest / max(n_all - n_components, 1), LEAST_NOISE)
        active = variances > s
        decode = torch.where(active, (variances - s).clamp_min(0).sqrt(), 0)
        encode = torch.where(active, decode / variances, 0)[:, None] * axes
        log_var = torch.where(active, (s / variances).log(), 0)
        self.decoder.set_linear((decode[:, None] * axes).T, mean)
        if self.fills:
            self.encoder.set_factor_model((decode[:, None] * axes).T, mean, max(s, LEAST_NOISE))
            return
        self.encoder.set_linear(torch.cat([encode, torch.zeros_like(encode)]), torch.cat([-encode @ mean, log_var]))
