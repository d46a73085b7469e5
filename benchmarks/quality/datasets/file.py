from pathlib import Path

import pandas as pd
from benchmark_utils.data import from_frame, from_npz, offer
from benchopt import BaseDataset


class Dataset(BaseDataset):
    """A table of one's own: file[path=my.csv,target=price]. csv (also .gz), parquet, or npz with X and y.

    The target is a column, and need not be given; text in other columns becomes indicators.
    """

    name = "file"
    parameters = {"path": [None], "target": [None]}

    def __repr__(self):
        return f"file[{Path(str(self.path)).name}{f',target={self.target}' if self.target else ''}]"

    def get_data(self):
        return offer(self.load)

    def load(self):
        if self.path is None:
            raise ValueError("give a path: file[path=my.csv,target=price]")
        path = Path(self.path)
        if not path.is_file():
            raise ValueError(f"there is no file {str(path)!r}")
        if path.suffix == ".npz":
            if self.target is not None:
                raise ValueError("an npz file holds its target as y: give no target")
            return from_npz(path)
        if path.suffix == ".parquet":
            return from_frame(pd.read_parquet(path), self.target)
        if path.suffix in (".csv", ".gz"):
            return from_frame(pd.read_csv(path), self.target)
        raise ValueError(f"{path.name} is none of csv, csv.gz, parquet, npz")
