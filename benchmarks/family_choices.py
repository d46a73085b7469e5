"""What chose the defaults of the members beyond the first three, and what they cost: the figures in results.md.

    python benchmarks/family_choices.py jacobian | contraction | sparsity | adversary | decay | codebooks | classes
        [--folder DIR]

Without a folder of npz files (X, y) the sets are those that scikit-learn ships.
"""

import argparse
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.metrics import r2_score
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.model_selection import train_test_split
from sklearn.svm import SVC

import skae
from skae import VQVAE, AdversarialAutoEncoder, ConditionalVAE, ContractiveAutoEncoder, SparseAutoEncoder
from skae._adam import adam
from skae._contractive import encode_with_jacobian
from skae._losses import squared_error
from skae._networks import AutoEncoderModule

MOST_ROWS = 2_000


def data(folder):
    """Names and rows, up to 2,000 of each set: pictures in [0, 1], tables standardized."""
    sets = {"digits": load_digits().data / 16, "breast_cancer": standardized(load_breast_cancer().data)}
    for path in sorted(Path(folder).glob("*.npz")) if folder else ():
        X = np.load(path)["X"].astype(float)[:MOST_ROWS]
        if np.isfinite(X).all() and X.shape[1] < 1_000:
            pictures = X.min() >= 0 and X.shape[1] ** 0.5 % 1 == 0 and X.shape[1] > 16
            sets[path.stem] = X / X.max() if pictures else standardized(X)
    return sets


def standardized(X):
    deviations = X.std(axis=0)
    return (X - X.mean(axis=0)) / np.where(deviations == 0, 1, deviations)


def splits(X, n_seeds=2):
    return [(seed, *train_test_split(X, random_state=seed)) for seed in range(n_seeds)]


def show(*cells):
    print("| " + " | ".join(f"{c:.3f}" if isinstance(c, float) else str(c) for c in cells) + " |", flush=True)


def jacobian(sets):
    """Time of a step with the penalty, of that without; the same by torch.func."""

    def by_torch_func(encoder, x):
        return encoder(x), torch.func.vmap(torch.func.jacrev(encoder))(x).square().sum((-2, -1))

    def plain(encoder, x):
        return encoder(x), 0.0

    def step(encode, module, optimizer, x):
        z, penalty = encode(module.encoder, x)
        optimizer.zero_grad()
        (squared_error(x, module.decode(z)) + 0.1 * penalty).mean().backward()
        optimizer.step()

    for n_features, batch in ((30, 32), (64, 40), (784, 100)):
        for hidden in ((128,), (128, 64)):
            for k in (2, 10, 32):
                module, x = AutoEncoderModule(n_features, k, hidden, "silu"), torch.randn(batch, n_features)
                optimizer, times = adam(module, 0.1), {}
                for _ in range(7):
                    for encode in (plain, encode_with_jacobian, by_torch_func):
                        step(encode, module, optimizer, x)
                        start = perf_counter()
                        for _ in range(10):
                            step(encode, module, optimizer, x)
                        times.setdefault(encode, []).append(perf_counter() - start)
                medians = [median(t) for t in times.values()]
                show(n_features, hidden, k, *(t / medians[0] for t in medians[1:]))


def contraction(sets):
    """R2 of held-out rows, and movement of their codes under noise as a share of their variance."""
    for name in ("digits", "breast_cancer"):
        for seed, train, test in splits(sets[name]):
            noisy = test + 0.3 * train.std() * np.random.RandomState(0).standard_normal(test.shape)
            for k in (2, 10):
                for weight in (0, 0.01, 0.03, 0.1, 0.3, 1):
                    model = ContractiveAutoEncoder(k, contraction=weight, random_state=seed).fit(train)
                    Z = model.transform(test)
                    moved = np.square(model.transform(noisy) - Z).sum() / np.square(Z - Z.mean(axis=0)).sum()
                    show(name, seed, k, weight, model.score(test), float(moved))


def sparsity(sets):
    """R2, share of active entries and mean activity of 100 components on held-out digits."""
    ((_, train, test),) = splits(sets["digits"], 1)
    for penalty, weights in (("l1", (0.3, 1, 3)), ("kl", (1, 3, 10, 20, 40))):
        for weight in weights:
            model = SparseAutoEncoder(100, penalty=penalty, sparsity=weight, random_state=0).fit(train)
            Z = model.transform(test)
            show(penalty, weight, model.score(test), float((Z != 0).mean()), float(Z.mean()))


def discrepancy(first, second):
    """Unbiased squared maximum mean discrepancy with a Gaussian kernel (Gretton et al. 2012, eq. 3)."""
    gamma = 1 / (2 * first.shape[1])
    kernels = [rbf_kernel(A, gamma=gamma) for A in (first, second)]
    within = sum((k.sum() - np.trace(k)) / (len(k) * (len(k) - 1)) for k in kernels)
    return within - 2 * rbf_kernel(first, second, gamma=gamma).mean()


def adversary(sets):
    """R2, and discrepancy of codes from the prior over the largest of twenty pairs of its draws: training, held-out."""
    for name, X in sets.items():
        for seed, train, test in splits(X):
            for k in (2, 8):
                for weight in (0, 0.1, 0.3):
                    model = AdversarialAutoEncoder(k, adversary_weight=weight, random_state=seed).fit(train)
                    cells = []
                    for rows in (train, test):
                        Z, rng = model.transform(rows), np.random.RandomState(0)
                        draws = [rng.standard_normal((2, *Z.shape)) for _ in range(20)]
                        by_chance = max(discrepancy(*pair) for pair in draws)
                        cells.append(float(np.mean([discrepancy(Z, pair[0]) for pair in draws[:3]]) / by_chance))
                    show(name, seed, k, weight, model.score(test), *cells)


def decay(sets):
    """R2 of training and of held-out digits, for the share of the old codebook that a batch leaves."""
    ((_, train, test),) = splits(sets["digits"], 1)
    for value in (0.8, 0.9, 0.95, 0.99):
        skae._vector_quantized.DECAY = value
        for k, n_codes, n_codebooks in ((10, 64, 1), (64, 64, 1), (16, 32, 2), (32, 64, 4)):
            model = VQVAE(k, n_codes=n_codes, n_codebooks=n_codebooks, random_state=0).fit(train)
            show(value, k, n_codes, n_codebooks, model.score(train), model.score(test))


def codebooks(sets):
    """R2 of held-out rows: k-means, VQVAE of as many centres, on all rows; then four codebooks."""
    for name, X in sets.items():
        for seed, train, test in splits(X, 3):
            for n_codes in (64, 256):
                if n_codes > len(train) // 3:
                    continue
                kmeans = KMeans(n_codes, n_init=3, random_state=seed).fit(train)
                centres = kmeans.cluster_centers_[kmeans.predict(test)]
                cells = [r2_score(test, centres, multioutput="variance_weighted")]
                options = dict(n_components=min(64, X.shape[1]), n_codes=n_codes, random_state=seed)
                for early_stopping in (True, False):
                    cells.append(VQVAE(early_stopping=early_stopping, **options).fit(train).score(test))
                show(name, seed, n_codes, *cells)
            if X.shape[1] >= 16:
                options = dict(n_components=16, n_codebooks=4, random_state=seed)
                initial = VQVAE(max_iter=1, learning_rate_init=1e-12, hidden_layer_sizes=(), **options).fit(train)
                show(name, seed, "4 x 64", initial.score(test), VQVAE(**options).fit(train).score(test))


def classes(sets):
    """Share of the digits drawn of a class that a classifier of real ones recognizes, by components and seed."""
    X, y = load_digits(return_X_y=True)
    judge, wanted = SVC(C=10).fit(X / 16, y), np.repeat(np.arange(10), 200)
    for k in (2, 4, 6, 10, 16):
        for seed in range(3):
            model = ConditionalVAE(k, condition_features=[64], categorical_features=[64], random_state=seed)
            drawn = model.fit(np.column_stack([X / 16, y])).sample(2_000, condition=wanted[:, None], random_state=0)
            show(k, seed, float((judge.predict(drawn[:, :64]) == wanted).mean()))


def main():
    questions = (jacobian, contraction, sparsity, adversary, decay, codebooks, classes)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("question", choices=[q.__name__ for q in questions])
    parser.add_argument("--folder", help="directory of npz files with X and y")
    arguments = parser.parse_args()
    globals()[arguments.question](data(arguments.folder))


if __name__ == "__main__":
    main()
