"""Checkpoint: a callback that writes how far a fit is to a file, from which the same fit goes on."""

import glob
import json
import os
import time
import uuid
import zipfile
from numbers import Integral, Real
from pathlib import Path

import numpy as np
from sklearn.utils._param_validation import Interval, StrOptions, validate_params

from ._base import BaseAutoEncoder

__all__ = ["Checkpoint"]

# Number of the layout of the file.
FORMAT = 1
# The same rows and initial weights differ by no more, on another processor, as a share of their size.
TOLERANCE = 1e-3
# Seconds between two writes, and how many times as long as a write they are at least, where every is "auto".
SECONDS, WRITES = 300.0, 50
# What a write that was killed has left beside the file is removed if it is older, in seconds.
ABANDONED = 3600


class Checkpoint:
    """Callback that writes how far a fit is to a file, from which the same fit goes on after it was stopped.

    Run the same script again: if the file is there, `fit` goes on from it, and ends as if it had not been stopped. At
    the end the file stays. A fit that has ended is then not trained again, only its initialization is repeated; remove
    the file to train anew. The file is never half written, whenever the process is killed: a new one takes the place of
    the last when all of it is on the disk.

    Parameters
    ----------
    path : str or path
        File to write, in NumPy's format ``.npz``, whatever the suffix. It has arrays only: to read it needs no pickle.

    every : float or "auto", default="auto"
        Seconds after which the end of an epoch writes the file again: what a kill can cost, beside the epoch that it
        falls in. 0 writes it after every epoch. "auto" is 300, or fifty times as long as the last write took, so that
        writing takes no more than a fiftieth of the time.

    See Also
    --------
    sklearn.callback.ProgressBar : Shows how far a fit is.

    Notes
    -----
    A file is of one fit: of the same estimator with the same parameters, of the same rows and initial weights, in as
    many processes. Of any other it is an error, which says what differs. `random_state` must be an int, so that all
    that was drawn before is drawn again. Estimators whose fits have no order, those of a search, cannot share a file:
    set the callback for the fit of the best parameters. In a pipeline, set it on the step.

    Where the processes of a `torch.distributed` group fit together, the first alone reads and writes the file, as all
    have the same weights, moments and curves. If one is killed, the others end with a RuntimeError; start all again, as
    many as before and with the same rows each, and they go on from the file.

    The file has the weights of each network that trains, their best ones so far and the two moments of Adam, the curves
    and the losses of the validation rows; no rows. It is eight times as large as the weights where two initializations
    train, six times with a refit and three more in it, that times the number of folds, and 16 to 32 bytes for each
    validation row.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from sklearn.datasets import load_iris
    >>> from skae import AutoEncoder, Checkpoint
    >>> with TemporaryDirectory() as folder:
    ...     checkpoint = Checkpoint(Path(folder) / "fit.npz")
    ...     model = AutoEncoder(1, max_iter=5, random_state=0).set_callbacks(checkpoint).fit(load_iris().data)
    ...     print(checkpoint.path.exists())
    True
    """

    @validate_params(
        {"path": [str, os.PathLike], "every": [Interval(Real, 0, None, closed="left"), StrOptions({"auto"})]},
        prefer_skip_nested_validation=True,
    )
    def __init__(self, path, *, every="auto"):
        self.path, self.every = path, every
        self._fit = None

    def setup(self, estimator, context):
        """Check that the fit can have a file.

        Parameters
        ----------
        estimator : estimator of skae
            The estimator that is to be fitted.
        context : sklearn.callback.CallbackContext
            Its task.

        Raises
        ------
        TypeError
            If the estimator is not one of skae.
        ValueError
            If it is one of the fits of a search, or its random_state is not an int.
        """
        name = type(estimator).__name__
        if not isinstance(estimator, BaseAutoEncoder):
            raise TypeError(f"Checkpoint needs an estimator of skae, got {name}. Set it on the step of the pipeline.")
        while (context := context.parent) is not None:
            if not context.sequential_subtasks:
                raise ValueError(
                    f"Checkpoint has one file for one fit, and {context.estimator_name} makes many. Set it on an "
                    "estimator that is fitted alone."
                )
        if not Path(self.path).parent.is_dir():
            raise FileNotFoundError(f"The folder of the checkpoint {self.path} does not exist. Make it first.")
        if not isinstance(estimator.random_state, Integral):
            raise ValueError(
                f"Checkpoint needs an int as random_state of {name}, so that a fit that goes on draws what it has "
                f"drawn before, got {estimator.random_state!r}."
            )

    def on_fit_task_begin(self, estimator, context):
        """Go on from the file, if it is there, before the first epoch of a fit.

        Parameters
        ----------
        estimator : estimator of skae
            The estimator that is fitted.
        context : sklearn.callback.CallbackContext
            The task that begins.

        Raises
        ------
        ValueError
            If the file is not a checkpoint, or one of another fit.
        OSError
            If the file cannot be read, or its folder not be written to.
        """
        progress = getattr(estimator, "_progress", None)
        if progress is not None:
            self._fit = FitInFile(Path(self.path), estimator, progress)

    def on_fit_task_end(self, estimator, context):
        """Write the file at the end of the fit, or of an epoch if it is time.

        Parameters
        ----------
        estimator : estimator of skae
            The estimator that is fitted.
        context : sklearn.callback.CallbackContext
            The task that ends.

        Raises
        ------
        OSError
            If the file cannot be written; the one that is there stays.
        """
        if self._fit is not None and (context.max_subtasks or self._fit.is_due(self.every)):
            self._fit.write()

    def teardown(self, estimator, context):
        """Let go of the fit.

        Parameters
        ----------
        estimator : estimator of skae
            The estimator that was fitted.
        context : sklearn.callback.CallbackContext
            Its task.
        """
        self._fit = None


class FitInFile:
    """A fit and its file."""

    def __init__(self, path, estimator, progress):
        self.path, self.progress = path, progress
        self.name = json.dumps({"format": FORMAT, "estimator": type(estimator).__name__})
        self.origin = progress.origin() | {
            f"parameters/{name}": np.array(_text(value)) for name, value in estimator.get_params(deep=False).items()
        }
        self.unfinished = path.with_name(f"{path.name}.{uuid.uuid4().hex}.part")
        self.unfinished.touch()  # an error now, not after hours, if that cannot be
        self.unfinished.unlink()
        for left in path.parent.glob(f"{glob.escape(path.name)}.*.part"):
            if time.time() - left.stat().st_mtime > ABANDONED:
                left.unlink(missing_ok=True)
        if path.exists():
            arrays = self._read()
            self._check(arrays)
            progress.load(_nested(arrays)["progress"])
        self.written, self.took = time.monotonic(), 0.0

    def is_due(self, every):
        """Whether so many seconds have passed since the last write."""
        every = max(SECONDS, WRITES * self.took) if every == "auto" else every
        return time.monotonic() - self.written >= every

    def write(self):
        begun = time.monotonic()
        arrays = {"fit": np.array(self.name)} | _flat({"origin": self.origin, "progress": self.progress.arrays()})
        try:
            with self.unfinished.open("wb") as file:
                np.savez(file, **arrays)
                file.flush()
                os.fsync(file.fileno())
            os.replace(self.unfinished, self.path)
        finally:
            self.unfinished.unlink(missing_ok=True)
        if os.name == "posix":  # the new name too is to survive a loss of power
            folder = os.open(self.path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        self.written = time.monotonic()
        self.took = self.written - begun

    def _read(self):
        try:
            if not zipfile.is_zipfile(self.path):
                raise ValueError("it is no npz file")
            with self.path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
                if "fit" not in file.files:
                    raise ValueError("it is an npz file of something else")
                arrays = {name: file[name] for name in file.files}
            if json.loads(str(arrays["fit"])) == json.loads(self.name):
                return arrays
            raise ValueError(f"it is of {arrays['fit']}, not of {self.name}")
        except (ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(
                f"{self.path} is no checkpoint of this fit: {error}. Use another path, or remove the file."
            ) from error

    def _check(self, arrays):
        """ValueError if the file is of another fit."""
        differ = [
            f"{name.removeprefix('parameters/')} was {arrays.get(f'origin/{name}', '-')} and is now {now}"
            for name, now in self.origin.items()
            if name.startswith("parameters/") and str(arrays.get(f"origin/{name}")) != str(now)
        ]
        was, now = int(arrays.get("origin/processes", 1)), int(self.origin["processes"])
        if not differ and was != now:
            differ = [f"the number of processes that fit together was {was} and is now {now}"]
        if not differ and arrays["origin/folds"] != self.origin["folds"]:
            differ = ["other rows train, or other rows validate"]
        for name, what in (
            ("rows", "the rows of X or their weights differ (each fold of a search needs a file of its own)"),
            ("neighbors", "the neighbours of the rows, or y, differ"),
            ("weights", "the initial weights differ"),
        ):
            if not differ and name in self.origin and not _are_near(arrays[f"origin/{name}"], self.origin[name]):
                differ = [what]
        if differ:
            raise ValueError(
                f"{self.path} is the checkpoint of another fit: {'; '.join(differ)}. Fit as before to go on, remove "
                "the file to train anew, or use another path."
            )


def _are_near(found, expected):
    size = np.abs(expected).mean() if expected.size else 0.0
    return found.shape == expected.shape and np.allclose(found, expected, rtol=TOLERANCE, atol=TOLERANCE * size)


def _text(value):
    """A parameter as a text that is the same in every process; of objects their type, as the rows tell what they do."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_text, value))}]"
    if isinstance(value, Real):
        return repr(value.item() if isinstance(value, np.generic) else value)
    return repr(value) if value is None or isinstance(value, str) else type(value).__name__


def _flat(tree, prefix=""):
    """Arrays of nested dictionaries, by their path."""
    arrays = {}
    for name, value in tree.items():
        arrays |= _flat(value, f"{prefix}{name}/") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return arrays


def _nested(arrays):
    tree = {}
    for path, value in arrays.items():
        *folders, name = path.split("/")
        place = tree
        for folder in folders:
            place = place.setdefault(folder, {})
        place[name] = value
    return tree
