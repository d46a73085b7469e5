"""What the files of the benchmark share."""

from copy import copy

from benchopt.utils.terminal_output import TerminalOutput


def _still(terminal):
    """Its state, dicts copied: benchopt 1.10 changes them in one thread while joblib pickles them in another.

    Without this about one parallel run in a few hundred ends with "dictionary changed size during iteration".
    """
    return {name: copy(value) for name, value in vars(terminal).copy().items()}


TerminalOutput.__getstate__ = _still
