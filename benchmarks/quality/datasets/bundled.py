from benchmark_utils.data import offer
from benchopt import BaseDataset
from sklearn import datasets

LOADERS = {  # function, kind, target
    "digits": (datasets.load_digits, "pictures", "classes"),
    "breast_cancer": (datasets.load_breast_cancer, "table", "classes"),
    "wine": (datasets.load_wine, "table", "classes"),
    "iris": (datasets.load_iris, "table", "classes"),
    "diabetes": (datasets.load_diabetes, "table", "number"),
}


class Dataset(BaseDataset):
    """What scikit-learn ships."""

    name = "bundled"
    parameters = {"table": list(LOADERS)}
    parameter_template = "{table}"
    requirements = ["scikit-learn"]

    def get_data(self):
        return offer(self.load)

    def load(self):
        function, kind, target = LOADERS[self.table]
        X, y = function(return_X_y=True)
        return dict(X=X, y=y, kind=kind, target=target)
