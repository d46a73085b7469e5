"""How well are missing cells filled, and mixed tables reconstructed? Imputers side by side on tables with known cells.

    python benchmarks/imputation.py --folder DIR                     # tables of scikit-learn, and the csv files of DIR
    python benchmarks/imputation.py --file table.csv                 # a table of yours, with text and holes
    python benchmarks/imputation.py --folder DIR --calibration       # do 90 % intervals of draws hold 90 %?
    python benchmarks/imputation.py --folder DIR --reconstruction    # FAMD and AutoEncoder on rows held out

A share of the observed cells is hidden at random. The error of numbers is the root of the mean squared error divided by
the standard deviation of the column, of categories the share that is wrong; each is the mean over columns. mse is the
mean squared error of all hidden numbers, columns standardized.
"""

import argparse
import csv
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris, load_wine
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from skae import VAE, AutoEncoder, AutoEncoderImputer

BUNDLED = {"breast_cancer": load_breast_cancer, "iris": load_iris, "wine": load_wine, "diabetes": load_diabetes}


class LinearImputer(AutoEncoderImputer):
    """Probabilistic PCA by EM, of mixed columns a likelihood for each that starts at FAMD: the VAE without layers."""

    def _default(self, X):
        vae = super()._default(X)
        size = max(1, vae.n_components - 2)
        return VAE(size, hidden_layer_sizes=(), max_iter=1, random_state=0)


class CodedImputer:
    """An imputer of numbers, on z-scores and indicators of the observed cells, and the way back."""

    def __init__(self, imputer):
        self.imputer = imputer

    def fit_transform(self, frame):
        categorical = [name for name in frame if frame[name].dtype.kind not in "iuf"]
        numeric = [name for name in frame if name not in categorical]
        encoder = ColumnTransformer(
            [("numbers", StandardScaler(), numeric), ("categories", OneHotEncoder(sparse_output=False), categorical)]
        )
        table = encoder.fit_transform(frame.astype(dict.fromkeys(categorical, object)))
        out, start = frame.copy(), len(numeric)
        if categorical:
            one_hot = encoder.named_transformers_["categories"]
            for name, values in zip(categorical, one_hot.categories_, strict=True):
                missing = frame[name].isna().to_numpy()
                table[np.ix_(missing, np.arange(start, start + len(values)))] = np.nan
                start += len(values)
        filled = self.imputer.fit_transform(table)
        if numeric:
            scaler = encoder.named_transformers_["numbers"]
            out[numeric] = filled[:, : len(numeric)] * scaler.scale_ + scaler.mean_
        start = len(numeric)
        for name, values in zip(categorical, one_hot.categories_ if categorical else [], strict=True):
            known = [k for k, value in enumerate(values) if not pd.isna(value)]
            chosen = np.asarray(values, dtype=object)[known][filled[:, start : start + len(values)][:, known].argmax(1)]
            out[name] = frame[name].astype(object).where(frame[name].notna(), chosen)
            start += len(values)
        return out


class SimpleGuess:
    """Mean of numbers, most frequent category."""

    def fit_transform(self, frame):
        out = frame.copy()
        for name in frame:
            strategy = "mean" if frame[name].dtype.kind in "iuf" else "most_frequent"
            column = frame[[name]] if strategy == "mean" else frame[[name]].astype(object)
            out[name] = SimpleImputer(strategy=strategy).fit_transform(column)[:, 0]
        return out


IMPUTERS = {
    "mean or mode": SimpleGuess,
    "KNNImputer(10)": lambda: CodedImputer(KNNImputer(n_neighbors=10, keep_empty_features=True)),
    "IterativeImputer": lambda: CodedImputer(IterativeImputer(random_state=0, keep_empty_features=True)),
    "linear (pPCA or FAMD by EM)": lambda: LinearImputer(random_state=0),
    "AutoEncoderImputer": lambda: AutoEncoderImputer(random_state=0),
}


def read(path, n_rows):
    frame = pd.read_csv(path, na_values="?")
    frame = frame[[name for name in frame if frame[name].nunique() > 1]]
    return frame.sample(min(n_rows, len(frame)), random_state=0).reset_index(drop=True)


def tables(folder, file, n_rows):
    if file is not None:
        yield Path(file).stem, read(file, n_rows)
        return
    for name, load in BUNDLED.items():
        yield name, load(as_frame=True).data
    for path in sorted(folder.rglob("*.csv*")) if folder is not None else ():
        yield path.name.split(".")[0], read(path, n_rows)


def hidden(frame, share, mask):
    """The table with a share of its observed cells missing, and which these are."""
    chosen = (np.random.RandomState(mask).rand(*frame.shape) < share) & frame.notna().to_numpy()
    return frame.astype({n: float for n in frame if frame[n].dtype.kind in "iu"}).mask(chosen), chosen


def errors(frame, filled, chosen):
    """Error of numbers, of categories, and mean squared error of all hidden numbers."""
    numbers, wrong, squares = [], [], []
    for place, name in enumerate(frame):
        cells = chosen[:, place]
        if not cells.any():
            continue
        truth, guess = frame[name][cells], filled[name][cells]
        if frame[name].dtype.kind in "iuf":
            square = np.square((guess.to_numpy(float) - truth.to_numpy(float)) / frame[name].std(ddof=0))
            numbers.append(np.sqrt(square.mean()))
            squares.append(square)
        else:
            wrong.append(np.mean(guess.astype(str).to_numpy() != truth.astype(str).to_numpy()))
    mse = np.concatenate(squares).mean() if squares else np.nan
    return np.mean(numbers) if numbers else np.nan, np.mean(wrong) if wrong else np.nan, mse


def as_frame(filled, frame):
    return filled if hasattr(filled, "columns") else pd.DataFrame(filled, columns=frame.columns)


def imputation(name, frame, arguments):
    for mask in range(arguments.masks):
        holes, chosen = hidden(frame, arguments.share, mask)
        for method, make in IMPUTERS.items():
            start = time.process_time()
            filled = as_frame(make().fit_transform(holes), frame)
            seconds = time.process_time() - start
            numbers, wrong, mse = errors(frame, filled, chosen)
            yield dict(table=name, rows=len(frame), columns=frame.shape[1], mask=mask, method=method) | dict(
                numbers=numbers, categories=wrong, mse=mse, seconds=seconds
            )


def calibration(name, frame, arguments):
    """Coverage of 90 % intervals, and expected calibration error of the shares of categories among 50 draws."""
    holes, chosen = hidden(frame, arguments.share, 0)
    model = AutoEncoderImputer(random_state=0).fit(holes).estimator_
    draws = [as_frame(draw, frame) for draw in model.impute(holes, n_draws=50, random_state=0)]
    inside, believed, right = [], [], []
    for place, column in enumerate(frame):
        cells = chosen[:, place]
        values = np.array([draw[column][cells].to_numpy() for draw in draws])
        truth = frame[column][cells].to_numpy()
        if frame[column].dtype.kind in "iuf":
            low, high = np.quantile(values.astype(float), [0.05, 0.95], axis=0)
            inside.append((low <= truth) & (truth <= high))
        else:
            for category in frame[column].dropna().unique():
                believed.append((values == category).mean(axis=0))
                right.append(truth == category)
    row = dict(table=name, rows=len(frame), coverage=np.concatenate(inside).mean() if inside else np.nan)
    if believed:
        believed, right = np.concatenate(believed), np.concatenate(right)
        bins = np.minimum((believed * 10).astype(int), 9)
        parts = [(bins == b) for b in range(10) if (bins == b).any()]
        row["calibration_error"] = sum(p.mean() * abs(believed[p].mean() - right[p].mean()) for p in parts)
    else:
        row["calibration_error"] = np.nan
    yield row


def reconstruction(name, frame, arguments):
    """Errors of rows held out, by FAMD (the linear AutoEncoder, which stays at it) and AutoEncoder."""
    frame = frame.dropna().reset_index(drop=True)
    if all(frame[column].dtype.kind in "iuf" for column in frame):  # numbers alone share one scale
        frame = (frame - frame.mean()) / frame.std(ddof=0)
    order = np.random.RandomState(0).permutation(len(frame))
    train, test = (frame.iloc[rows].reset_index(drop=True) for rows in np.split(order, [len(frame) * 3 // 5]))
    for k in (2, 10):
        for method, options in (("FAMD", dict(hidden_layer_sizes=(), max_iter=1)), ("AutoEncoder", {})):
            start = time.process_time()
            model = AutoEncoder(k, random_state=0, **options).fit(train)
            seconds = time.process_time() - start
            back = as_frame(model.inverse_transform(model.transform(test)), test)
            numbers, wrong, mse = errors(test, back, np.ones(test.shape, dtype=bool))
            yield dict(table=name, rows=len(train), components=k, method=method) | dict(
                numbers=numbers, categories=wrong, mse=mse, seconds=seconds
            )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--file")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--tables", nargs="*", help="names of the tables to take; all if not given")
    parser.add_argument("--rows", type=int, default=5000, help="rows of a table, at most")
    parser.add_argument("--share", type=float, default=0.3, help="of the observed cells, to hide")
    parser.add_argument("--masks", type=int, default=2)
    parser.add_argument("--calibration", action="store_true")
    parser.add_argument("--reconstruction", action="store_true")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    measure = calibration if arguments.calibration else reconstruction if arguments.reconstruction else imputation
    rows = []
    for name, frame in tables(arguments.folder, arguments.file, arguments.rows):
        if arguments.tables and name not in arguments.tables:
            continue
        for row in measure(name, frame, arguments):
            if not rows:
                print("| " + " | ".join(row) + " |\n|" + "---|" * len(row))
            rows.append(row)
            cells = (f"{value:.3f}" if isinstance(value, float) else str(value) for value in row.values())
            print("| " + " | ".join(cells) + " |", flush=True)
            if arguments.out:
                with open(arguments.out, "w", newline="") as file:
                    writer = csv.DictWriter(file, row)
                    writer.writeheader()
                    writer.writerows(rows)


if __name__ == "__main__":
    main()
