from benchmark_utils.data import from_frame, offer
from benchopt import BaseDataset
from benchopt.config import get_data_path
from sklearn.datasets import fetch_openml

SETS = {  # OpenML's id, kind
    "mnist": (554, "pictures"),
    "fashion_mnist": (40996, "pictures"),
    "letter": (6, "table"),
    "pendigits": (32, "table"),
    "satimage": (182, "table"),
    "adult": (1590, "table"),
}


class Dataset(BaseDataset):
    """Downloaded from OpenML once, cached under data/, checked against the MD5 sum that OpenML gives.

    `table` is a name above or any id: openml[table=[letter,61]].
    """

    name = "openml"
    parameters = {"table": list(SETS)}
    parameter_template = "{table}"
    requirements = ["scikit-learn", "pandas"]
    test_parameters = {"table": ["letter"]}

    def get_data(self):
        return offer(self.load)

    def load(self):
        data_id, kind = SETS.get(self.table, (self.table, "table"))
        folder = get_data_path("openml")
        answer = fetch_openml(data_id=data_id, as_frame=True, data_home=folder, parser="pandas")
        data = from_frame(answer.data)
        return data | dict(y=answer.target.to_numpy() if answer.target is not None else None, kind=kind)
