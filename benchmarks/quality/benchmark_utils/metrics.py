"""What codes keep of the rows they stand for. One metric, one function; arrays in, a number out.

Rows are X, of shape (n, d); codes are Z, of shape (n, k), in the same order. Distances are Euclidean. A metric that is
not defined for an input (fewer rows than neighbours, a single class) is NaN: an empty cell.
"""

import numpy as np
from scipy.spatial import procrustes
from scipy.spatial.distance import squareform
from scipy.stats import rankdata
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import euclidean_distances, normalized_mutual_info_score, r2_score, silhouette_score
from sklearn.model_selection import cross_val_score
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import gen_batches

MOST_ROWS = 10_000  # pairs of rows are all looked at up to here; of more rows a sample of this size is taken


# Reconstruction


def r2(X, X_hat):
    """Share of the variance of X that its reconstruction X_hat explains, all columns together: 1 - SSE / SST."""
    return r2_score(X, X_hat, multioutput="variance_weighted")


def mse(X, X_hat):
    """Mean over rows and columns of the squared error, in squared units of X."""
    return float(np.mean((X - X_hat) ** 2))


# Neighbourhoods: r(i, j) is the rank of j among the neighbours of i, 1 the nearest, ties broken by the order of rows.


def neighbour_ranks(rows):
    """Matrix (n, n) of all r(i, j); 0 on the diagonal. Takes 4 n^2 bytes."""
    n = len(rows)
    rows = rows.astype(np.float64)
    ranks = np.empty((n, n), dtype=np.int32)
    for block in gen_batches(n, 500):
        distances = euclidean_distances(rows[block], rows)
        distances[np.arange(len(distances)), np.arange(n)[block]] = -1
        order = np.argsort(distances, axis=1, kind="stable")
        np.put_along_axis(ranks[block], order, np.arange(n, dtype=np.int32)[None], axis=1)
    return ranks


def trustworthiness(ranks_x, ranks_z, k):
    """1 - 2 / (n k (2n - 3k - 1)) * sum of r_X(i, j) - k over the k neighbours j of i in Z that are none of its k in X.

    1: no strangers among the neighbours in the map; about 0.5: random. Needs k < n / 2. (Venna and Kaski 2001.)
    """
    n = len(ranks_x)
    if k >= n / 2:
        return np.nan
    strangers = ranks_x[(ranks_z <= k) & (ranks_x > k)]
    return 1 - 2 / (n * k * (2 * n - 3 * k - 1)) * float((strangers - k).sum(dtype=np.int64))


def continuity(ranks_x, ranks_z, k):
    """Trustworthiness with X and Z in each other's place: 1 if no neighbours were torn apart."""
    return trustworthiness(ranks_z, ranks_x, k)


def r_nx(ranks_x, ranks_z):
    """R_NX(k) for k = 1 ... n - 2: the share of k neighbours kept, Q_NX(k), rescaled so that a random map has 0.

    R_NX(k) = ((n - 1) Q_NX(k) - k) / (n - 1 - k). (Lee and others 2013.)
    """
    n = len(ranks_x)
    shared = np.bincount(np.maximum(ranks_x, ranks_z).ravel(), minlength=n)[1:]  # both ranks at most k: summed over k
    k = np.arange(1, n - 1)
    q_nx = np.cumsum(shared)[:-1] / (k * n)
    return ((n - 1) * q_nx - k) / (n - 1 - k)


def r_nx_area(curve):
    """Area under R_NX on a logarithmic axis of k: sum of R_NX(k) / k over the sum of 1 / k."""
    weights = 1 / np.arange(1, len(curve) + 1)
    return float(curve @ weights / weights.sum())


# Global shape: d_X and d_Z are the distances of all pairs of rows.


def pair_distances(rows):
    """Vector of the n (n - 1) / 2 distances."""
    return squareform(euclidean_distances(rows.astype(np.float64)), checks=False)


def spearman(distances_x, distances_z):
    """Rank correlation of the two vectors of distances."""
    ranks = [_twice_rank(distances) for distances in (distances_x, distances_z)]
    return _correlation(*(twice.astype(np.float64) for twice in ranks))


def _twice_rank(values):
    """Ties have the mean rank: twice that is a whole number, in half the memory."""
    ranks = rankdata(values)
    ranks *= 2
    return ranks.astype(np.int32)


def _correlation(a, b):
    a -= a.mean()  # in place: the vectors of 10,000 rows take 400 MB each
    b -= b.mean()
    length = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / length) if length > 0 else np.nan


def stress(distances_x, distances_z):
    """sqrt(sum (d_X - a d_Z)^2 / sum d_X^2) at the best scale a = sum d_X d_Z / sum d_Z^2 (Kruskal's stress-1)."""
    xx, xz, zz = distances_x @ distances_x, distances_x @ distances_z, distances_z @ distances_z
    return float(np.sqrt(max(1 - xz**2 / (xx * zz), 0))) if xx * zz > 0 else np.nan


def triplet_accuracy(distances_x, distances_z, n_triplets=100_000, seed=0):
    """Share of random triplets of rows whose order d(a, b) < d(a, c) is the same in Z; ties in X are left out."""
    n = round((1 + np.sqrt(1 + 8 * len(distances_x))) / 2)
    a, b, c = np.random.RandomState(seed).randint(n, size=(3, n_triplets))
    distinct = (a != b) & (a != c) & (b != c)
    a, b, c = a[distinct], b[distinct], c[distinct]

    def place(i, j):
        low, high = np.minimum(i, j), np.maximum(i, j)
        return n * low - low * (low + 1) // 2 + high - low - 1

    ab, ac = place(a, b), place(a, c)
    x, z = (np.sign(distances[ab] - distances[ac]) for distances in (distances_x, distances_z))
    return float(np.mean(x[x != 0] == z[x != 0])) if (x != 0).any() else np.nan


# Labels


def knn(classes):
    """5 nearest neighbours among the codes: scored by accuracy, or R2 where the target is a number."""
    return KNeighborsClassifier(5) if classes else KNeighborsRegressor(5)


def linear(classes):
    """Logistic (or ridge) regression on standardized codes: scored by accuracy, or R2 where the target is a number."""
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=2_000, tol=1e-3) if classes else Ridge())


def cross_validated(model, Z, y, classes):
    """Mean score over 5 folds; fewer where a class is small."""
    folds = min(5, np.unique(y, return_counts=True)[1].min() if classes else len(y) // 2)
    return float(cross_val_score(model, Z, y, cv=folds).mean()) if folds > 1 else np.nan


def silhouette(Z, y):
    """Mean over rows of (b - a) / max(a, b): a the mean distance to the own class, b to the nearest other one."""
    return silhouette_score(Z, y) if 1 < len(np.unique(y)) < len(y) else np.nan


def cluster_nmi(Z, y, seed=0):
    """Normalized mutual information of the classes with k-means clusters, as many of them; best of 5 starts."""
    k = len(np.unique(y))
    if k < 2:
        return np.nan
    return normalized_mutual_info_score(y, KMeans(k, n_init=5, random_state=seed).fit_predict(Z))


# Robustness and stability


def code_shift(Z, Z_changed):
    """How far a change of the rows moves their codes: mean squared distance, as a share of the codes' variance."""
    variance = ((Z - Z.mean(axis=0)) ** 2).sum()
    return float(((Z_changed - Z) ** 2).sum() / variance) if variance > 0 else np.nan


def agreement(Z, Z_other):
    """1 - Procrustes disparity of two sets of codes of the same rows: 1 if they differ by shift, turn and scale."""
    if np.ptp(Z, axis=0).max() == 0 or np.ptp(Z_other, axis=0).max() == 0:
        return np.nan
    return 1 - float(procrustes(Z, Z_other)[2])
