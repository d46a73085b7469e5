"""Are the fits of two versions the same, bit for bit? Digests of what every estimator gives, to be compared.

    python benchmarks/digests.py > before.txt        # at one commit
    python benchmarks/digests.py --against before.txt   # at another, on the same machine: names every case that differs

Bits depend on the processor and on the versions of torch and NumPy, so that digests are compared and never stored.
"""

import argparse
import copy
import hashlib
import warnings

import numpy as np
import torch
from joblib import Parallel, delayed
from sklearn.datasets import load_breast_cancer, load_digits, load_iris

import skae
from skae import BaseAutoEncoder


class LaplaceAutoEncoder(BaseAutoEncoder):
    def _loss(self, module, x):
        return (x - module.decode(module.encode(x))).abs().sum(-1)


class TwoLayers(BaseAutoEncoder):
    def _loss(self, module, x):
        return (x - module.decode(module.encode(x))).square().sum(-1)

    def _build_module(self, n_features, n_components, scale):
        module = torch.nn.Module()
        module.first = torch.nn.Linear(n_features, n_components)
        module.second = torch.nn.Linear(n_components, n_features)
        module.encode, module.decode = module.first.forward, module.second.forward
        return module


def tables():
    rng = np.random.RandomState(0)
    digits, y = load_digits(return_X_y=True)
    cancer = load_breast_cancer().data
    return {
        "digits": digits[:700] / 16,
        "labelled": np.column_stack([digits / 16, y])[:700],
        "cancer": ((cancer - cancer.mean(axis=0)) / cancer.std(axis=0)).astype(np.float32),
        "iris": load_iris().data[::3],
        "few": load_iris().data[::17],
        "wide": rng.standard_normal((60, 300)) * np.geomspace(3, 0.1, 300) + 5,
        "large": rng.standard_normal((2200, 20)) @ rng.standard_normal((20, 90)),
    }


def cases():
    """Name, estimator, name of the table."""
    quick = dict(max_iter=4, random_state=0)
    public = [getattr(skae, name) for name in skae.__all__]
    members = [each for each in public if issubclass(each, skae.BaseAutoEncoder) and each is not skae.BaseAutoEncoder]
    for member in members:
        for table in ("digits", "cancer", "iris", "few", "wide", "large"):
            yield member(3, **quick), table
        yield member(0.8, **quick), "cancer"
        yield member(3, init="random", **quick), "cancer"
        yield member(3, hidden_layer_sizes=(), activation="tanh", **quick), "digits"
        yield member(3, hidden_layer_sizes=30, alpha=0, batch_size=50, **quick), "digits"
        yield member(4, random_state=3), "iris"
        yield member(4, max_iter=25, random_state=1), "digits"
        if member is not skae.AdversarialAutoEncoder:
            yield member(3, early_stopping=False, **quick), "cancer"
            yield member(3, validation_fraction=0.3, n_iter_no_change=2, max_iter=40, random_state=0), "cancer"
    yield skae.AutoEncoder(3, loss="binary_cross_entropy", **quick), "digits"
    for noise in ("masking", "salt_and_pepper", "swap"):
        yield skae.DenoisingAutoEncoder(3, noise=noise, noise_level=0.2, **quick), "digits"
    yield skae.VAE(3, likelihood="bernoulli", **quick), "digits"
    yield skae.VAE(3, noise_variance=0.1, beta=2.0, **quick), "digits"
    for prior in ("vamp", "flow"):
        yield skae.VAE(3, prior=prior, **quick), "digits"
        yield skae.VAE(3, prior=prior, init="random", **quick), "cancer"
    yield skae.VAE(3, free_bits=0.2, **quick), "digits"
    condition = dict(condition_features=[64], categorical_features=[64])
    yield skae.ConditionalVAE(3, **condition, **quick), "labelled"
    yield skae.ConditionalVAE(0.5, condition_features=[3, 64], **quick), "labelled"
    yield skae.ConditionalVAE(3, likelihood="bernoulli", init="random", **condition, **quick), "labelled"
    for penalty in ("l1", "kl"):
        yield skae.SparseAutoEncoder(80, penalty=penalty, **quick), "digits"
        yield skae.SparseAutoEncoder(0.7, penalty=penalty, init="random", **quick), "cancer"
    yield skae.SparseAutoEncoder(80, n_active=5, sparse_output=True, **quick), "digits"
    yield skae.VQVAE(6, n_codes=8, n_codebooks=3, **quick), "digits"
    yield skae.VQVAE(6, n_codes=8, n_codebooks=3, init="random", **quick), "cancer"
    yield skae.ContractiveAutoEncoder(4, contraction=0, **quick), "digits"
    yield skae.AdversarialAutoEncoder(4, hidden_layer_sizes=(), **quick), "digits"
    yield LaplaceAutoEncoder(3, **quick), "cancer"
    yield TwoLayers(3, init="random", **quick), "cancer"


def found(model, X):
    """What a fitted model gives, as arrays."""
    Z = model.transform(X)
    yield Z.toarray() if hasattr(Z, "toarray") else Z
    conditional = isinstance(model, skae.ConditionalVAE) and model.condition_features is not None
    given = dict(condition=X[:1, model.condition_indices_]) if conditional else {}
    yield model.inverse_transform(Z, **given)
    yield model.score_samples(X)
    yield np.round(model.score(X), 6)  # sums in pieces, whose size may change
    yield from (model.loss_curve_, model.validation_curve_ or [], model.best_loss_)
    yield from (model.best_iter_, model.n_iter_, model.n_samples_, model.n_components_, model.mean_, model.scale_)
    if hasattr(model, "sample"):
        yield model.sample(4, random_state=0, **given)
    if hasattr(model, "elbo"):
        yield from model.elbo(X[:20], n_draws=7)
    for name in ("active_units_", "noise_variance_", "codebooks_", "code_frequencies_", "components_"):
        if hasattr(model, name):
            yield getattr(model, name)


def digest(model, table):
    """A line for the fit, and one for each way to continue training."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    X, name = tables()[table], " ".join(repr(model).split())
    stages = {
        "fit": lambda: model.fit(X),
        "copied": lambda: copy.deepcopy(model),
        "partial_fit after fit": lambda: copy.deepcopy(model).partial_fit(X[: len(X) // 2]),
        "warm start": lambda: model.set_params(warm_start=True).fit(X),
        "partial_fit": lambda: (
            type(model)(**model.get_params()).partial_fit(X[: len(X) // 2 + 1]).partial_fit(X[len(X) // 2 :])
        ),
    }
    lines = []
    for stage, fitted in stages.items():
        digest = hashlib.sha256()
        for value in found(fitted(), X):
            digest.update(np.ascontiguousarray(value).tobytes())
        lines.append(f"{digest.hexdigest()[:16]}  {stage:22} {table:9} {name}")
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", help="what this script printed at another commit")
    arguments = parser.parse_args()
    lines = [line for lines in Parallel(2)(delayed(digest)(*case) for case in cases()) for line in lines]
    if not arguments.against:
        print("\n".join(lines))
        return
    with open(arguments.against) as file:
        before = {line[16:].rstrip(): line[:16] for line in file}
    now = {line[16:].rstrip(): line[:16] for line in lines}
    changed = sorted(name for name in before.keys() & now.keys() if before[name] != now[name])
    unpaired = before.keys() ^ now.keys()
    print(*changed, f"{len(changed)} of {len(now)} digests differ, {len(unpaired)} have no counterpart", sep="\n")
    raise SystemExit(bool(changed or unpaired))


if __name__ == "__main__":
    main()
