from importlib.metadata import PackageNotFoundError, version

import joblib
import numpy as np
from benchmark_utils import data, guard, method, metrics
from benchopt import BaseObjective
from sklearn.model_selection import train_test_split
from threadpoolctl import threadpool_limits

NEIGHBOURS = (5, 15, 50)
NOISE = 0.3  # of each column's standard deviation
MASKED = 0.1  # share of the entries
MAP_ROWS, PICTURES = 1_000, 10  # kept for the figures
PACKAGES = ("numpy", "scipy", "scikit-learn", "torch", "umap-learn", "openTSNE", "skae", "benchopt")


def versions():
    """Of all that figures depend on, in one line."""
    found = []
    for name in PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"no {name}")
    return ", ".join(found)


class Objective(BaseObjective):
    """What a code of `n_components` numbers keeps of a row, on rows that were held out and on those of the fit.

    A quarter of the rows is held out, other rows for every repetition, classes in proportion. Tables are standardized
    on the training rows; pictures are divided by their maximum. Of more than `max_rows` rows a sample is taken.
    `time_limit` is in seconds and `memory_limit` in GB.
    """

    name = "Dimensionality reduction"
    min_benchopt_version = "1.10"
    sampling_strategy = "run_once"
    parameters = {"n_components": [2], "max_rows": [20_000], "time_limit": [600], "memory_limit": [8]}
    parameter_template = "{n_components} components, up to {max_rows} rows"
    test_config = {"dataset": {"name": "simulated"}, "max_rows": 100}

    def skip(self, problem=None, X=None, **data):
        if problem is None and X.shape[1] <= self.n_components:
            problem = f"{self.n_components} components are no reduction of {X.shape[1]} columns"
        return problem is not None, problem

    def set_data(self, X, y, kind, target):
        self.X, self.y, self.kind, self.target = X, y, kind, target
        self.content = joblib.hash((X, y, kind, target))

    def get_objective(self):
        """Rows, targets, limits: what a method is given. All draws come from the seed of the repetition."""
        self.seed = self.get_seed(use_repetition=True) % 2**31
        rng = np.random.RandomState(self.seed)
        train, test = self._split()
        X, X_test = self.X[train], self.X[test]
        if self.kind == "pictures":
            shift, scale = 0, np.abs(X).max()
        else:
            shift, scale = X.mean(axis=0), X.std(axis=0)
            scale = np.where(scale == 0, 1, scale)
        X, X_test = (X - shift) / scale, (X_test - shift) / scale
        mask = rng.uniform(size=X_test.shape) < MASKED
        self.rows = {
            "train": X,
            "test": X_test,
            "noisy": X_test + NOISE * X.std(axis=0) * rng.standard_normal(X_test.shape),
            "masked": np.where(mask, X.mean(axis=0), X_test),
        }
        self.labels = {name: None if self.y is None else self.y[at] for name, at in (("train", train), ("test", test))}
        task = dict(
            X=X,
            y=self.labels["train"],
            target=self.target,
            groups={name: self.rows[name] for name in ("test", "noisy", "masked")},
            n_components=self.n_components,
            random_state=self.seed,
        )
        limits = dict(seconds=self.time_limit, gigabytes=self.memory_limit)
        return dict(task=task, limits=limits, twice=self._repetition == 0)

    def _split(self):
        rows = np.arange(len(self.X))
        if len(rows) > self.max_rows:
            rows = np.random.RandomState(self.seed).choice(rows, self.max_rows, replace=False)
        classes = self.y[rows] if self.target == "classes" else None
        if classes is not None:
            counts = np.unique(classes, return_counts=True)[1]
            if counts.min() < 2 or len(counts) > len(rows) // 4:
                classes = None  # they cannot all be in both parts
        return train_test_split(rows, test_size=0.25, random_state=self.seed, stratify=classes)

    def evaluate_result(self, outcome, uses_y):
        """All figures of one run, `train_` and `test_` in front of those of the two groups of rows."""
        result = dict(
            reason=outcome["reason"],
            uses_y=uses_y,
            target=self.target or "none",
            kind=self.kind,
            n_all=len(self.X),
            n_train=len(self.rows["train"]),
            n_test=len(self.rows["test"]),
            n_features=self.X.shape[1],
            sampled=len(self.rows["train"]) > metrics.MOST_ROWS,
            versions=versions(),
        )
        if outcome["reason"]:
            return result
        try:
            with threadpool_limits(1):  # the same figures however many runs share the machine
                return result | self._figures(**outcome)
        except (ValueError, MemoryError) as error:
            return result | dict(reason=f"its codes could not be evaluated: {guard.one_line(error)}")

    def _figures(self, codes, rebuilt, log_likelihoods, fit_seconds, transform_seconds, peak_memory, reason, twin=None):
        result = {f"{group}_log_likelihood": value for group, value in log_likelihoods.items()}
        for group in ("train", "test"):
            if group in codes:
                result |= self._group(group, codes, rebuilt)
        for change in ("noisy", "masked"):
            if change in codes:
                result[f"{change}_shift"] = metrics.code_shift(codes["test"], codes[change])
            if change in rebuilt:
                result[f"{change}_r2"] = metrics.r2(self.rows["test"], rebuilt[change])
        if twin is not None:
            result["agreement"] = metrics.agreement(codes["train"], twin)
        result |= dict(
            fit_seconds=fit_seconds,
            rows_per_second=len(codes["train"]) / fit_seconds,
            transform_seconds=transform_seconds * 1_000 / len(self.rows["test"]),
            peak_memory=peak_memory / 2**20,
        )
        return result | self._kept(codes, rebuilt)

    def _group(self, group, codes, rebuilt):
        X, Z, y = self.rows[group], codes[group], self.labels[group]
        result = {}
        if group in rebuilt:
            result |= dict(r2=metrics.r2(X, rebuilt[group]), mse=metrics.mse(X, rebuilt[group]))
        if y is not None:
            classes = self.target == "classes"
            for name, model in (("knn", metrics.knn(classes)), ("linear", metrics.linear(classes))):
                if group == "train":
                    result[name] = metrics.cross_validated(model, Z, y, classes)
                else:
                    result[name] = model.fit(codes["train"], self.labels["train"]).score(Z, y)
            if classes:
                result |= dict(silhouette=metrics.silhouette(Z, y), nmi=metrics.cluster_nmi(Z, y))
        if len(X) > metrics.MOST_ROWS:
            sample = np.random.RandomState(0).choice(len(X), metrics.MOST_ROWS, replace=False)
            X, Z = X[sample], Z[sample]
        ranks_x, ranks_z = metrics.neighbour_ranks(X), metrics.neighbour_ranks(Z)
        curve = metrics.r_nx(ranks_x, ranks_z)
        for k in NEIGHBOURS:
            result[f"trustworthiness_{k}"] = metrics.trustworthiness(ranks_x, ranks_z, k)
            result[f"continuity_{k}"] = metrics.continuity(ranks_x, ranks_z, k)
            result[f"r_nx_{k}"] = curve[k - 1] if k <= len(curve) else np.nan
        del ranks_x, ranks_z
        result["r_nx_area"] = metrics.r_nx_area(curve)
        distances_x, distances_z = metrics.pair_distances(X), metrics.pair_distances(Z)
        result["triplets"] = metrics.triplet_accuracy(distances_x, distances_z)
        result["stress"] = metrics.stress(distances_x, distances_z)
        result["spearman"] = metrics.spearman(distances_x, distances_z)
        return {f"{group}_{name}": value for name, value in result.items()}

    def _kept(self, codes, rebuilt):
        """For the figures, of the first repetition: a map of two components, some pictures and what was rebuilt."""
        group = "test" if "test" in codes else "train"
        kept = dict(map_group=group)
        if self._repetition == 0 and codes[group].shape[1] == 2:
            kept["map"] = codes[group][:MAP_ROWS].astype(np.float32)
            if self.y is not None:
                kept["map_labels"] = self.labels[group][:MAP_ROWS].astype(np.float32)
        if self._repetition == 0 and self.kind == "pictures" and "test" in rebuilt:
            kept["originals"] = self.rows["test"][:PICTURES].astype(np.float32)
            kept["pictures"] = rebuilt["test"][:PICTURES].astype(np.float32)
        return kept

    def get_one_result(self):
        codes = {name: rows[:, : self.n_components] for name, rows in self.rows.items()}
        times = dict(fit_seconds=1.0, transform_seconds=1.0, peak_memory=0.0)
        outcome = dict(codes=codes, rebuilt=self.rows, log_likelihoods={}, reason="", **times)
        return dict(outcome=outcome, uses_y=False)

    def _get_state(self):
        """What a cached figure depends on besides names and parameters: changed, it is computed anew."""
        sources = data.fingerprint(module.__file__ for module in (data, guard, method, metrics))
        return dict(content=getattr(self, "content", None), sources=sources, versions=versions())

    def __setstate__(self, state):
        self.content = state["content"]  # the rows themselves are loaded where they are needed
