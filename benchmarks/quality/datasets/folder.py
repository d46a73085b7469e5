from pathlib import Path

from benchmark_utils.data import from_npz, offer
from benchopt import BaseDataset


class FilesOf(dict):
    """The grid of a folder: benchopt fills in the path that was given, and this the names of the files there.

    A data set of benchopt's is one file, and its grid is known before its path: this is the one place to list them.
    """

    def copy(self):
        return FilesOf(self)

    def update(self, given):
        super().update(given)
        if "path" in given and "file" not in given:
            paths = given["path"] if isinstance(given["path"], (list, tuple)) else [given["path"]]
            names = sorted({file.stem for path in paths for file in Path(str(path)).glob("*.npz")})
            self["file"] = names or [None]


class Dataset(BaseDataset):
    """Every npz file of a directory: folder[path=DIR], or some: folder[path=DIR,file=[letter,usps]].

    An archive holds X and y, and may hold is_categorical (columns that become indicators) and kind ("table" or
    "pictures").
    """

    name = "folder"
    parameters = FilesOf(path=[None], file=[None])

    def __repr__(self):
        return f"folder[{Path(str(self.path)).resolve().name}/{self.file}]"

    def get_data(self):
        return offer(self.load)

    def load(self):
        if self.path is None:
            raise ValueError("give a path: folder[path=DIR]")
        if self.file is None:
            raise ValueError(f"there are no npz files in {self.path!r}")
        return from_npz(Path(self.path) / f"{self.file}.npz")
