"""Do the components of two seeds compare, before and after they are ordered, and what does ordering cost?

    python benchmarks/ordering.py --folder DIR

DIR holds npz files as for pca_fallback.py; without it only the sets that scikit-learn ships are used. AutoEncoder with
its defaults is fitted to the same rows with two seeds, from the initialization "pca" and from "random". "same place" is
the mean over components of the absolute correlation of the code of one fit with that of the other; "matched" the same
after the best pairing of components. Then the largest correlation of two components of a fit, the share of the variance
that the first half of them explains, how far reconstructions are apart before and after, in units of their standard
deviation, and the share of the processor time of a fit that ordering takes.
"""

import argparse
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from pca_fallback import BUNDLED, split
from scipy.optimize import linear_sum_assignment

from skae import AutoEncoder, _base


class Watched:
    """In place of the function that orders components: also keeps the code and the reconstruction before, and after."""

    def __init__(self):
        self.ordered = _base.ordered

    def __call__(self, network, axes, data, *rest):
        begun = time.thread_time()
        found, explained = self.ordered(network, axes, data, *rest)
        self.seconds = time.thread_time() - begun
        with torch.no_grad():
            self.codes = [module.encode(data.x).double().numpy() for module in (network, found)]
            before, after = (module.decode(module.encode(data.x)) for module in (network, found))
        self.apart = float((after - before).abs().max() / before.std())
        return found, explained


def agreement(first, second):
    """Mean absolute correlation of the components of two codes: in the same place, and paired as well as possible."""
    k = first.shape[1]
    shared = np.abs(np.corrcoef(first.T, second.T)[:k, k:])
    return np.diag(shared).mean(), shared[linear_sum_assignment(-shared)].mean()


def measure(X, k, init, options):
    watched, figures = Watched(), []
    for seed in (0, 1):
        _base.ordered, begun = watched, time.thread_time()
        try:
            model = AutoEncoder(k, init=init, random_state=seed, **options).fit(X)
        finally:
            _base.ordered = watched.ordered
        share = watched.seconds / (time.thread_time() - begun)
        ratio = model.explained_variance_ratio_
        figures.append((*watched.codes, ratio, watched.apart, share))
    first, second = figures
    before, after = (agreement(first[place], second[place]) for place in (0, 1))
    correlated = [np.abs(np.corrcoef(first[place].T) - np.eye(k)).max() for place in (0, 1)]
    half = first[2][: k // 2].sum() / first[2].sum()
    return *before, *after, *correlated, half, max(first[3], second[3]), 0.5 * (first[4] + second[4])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--sets", nargs="*")
    parser.add_argument("--components", type=int, nargs="*", default=[3, 10])
    parser.add_argument("--inits", nargs="*", default=["pca", "random"])
    parser.add_argument("--limit", type=int, default=1000, help="rows of a set, at most")
    parser.add_argument("--max-iter", type=int)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    found = [] if arguments.folder is None else sorted(path.stem for path in arguments.folder.glob("*.npz"))
    names = arguments.sets or ["breast_cancer", "digits", *found]
    print(
        "| data | rows | k | init | same place | ordered | matched | ordered | most correlated | ordered "
        "| first half explains | apart | cost |"
    )
    print("|---" * 13 + "|")
    for name in (name for name in names if name in BUNDLED or name in found):
        X, _ = split(name, arguments.folder, 0, limit=arguments.limit)
        for k in arguments.components:
            for init in arguments.inits:
                figures = measure(X, k, init, dict(max_iter=arguments.max_iter))
                place, matched, place_after, matched_after, most, most_after, half, apart, cost = figures
                print(
                    f"| {name} | {len(X)} | {k} | {init} | {place:.2f} | {place_after:.2f} | {matched:.2f} "
                    f"| {matched_after:.2f} | {most:.2f} | {most_after:.2f} | {half:.2f} | {apart:.0e} | {cost:.1%} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
