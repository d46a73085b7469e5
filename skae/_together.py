"""Fits beside one another: where the searches of scikit-learn run them, so that their networks can train as one."""

import warnings
from collections.abc import Callable
from contextvars import copy_context
from threading import Semaphore, Thread, get_ident
from time import perf_counter
from typing import Any

from joblib import Parallel, delayed
from joblib.parallel import FallbackToBackend, ParallelBackendBase, get_active_backend

from ._stack import Stacks
from ._training import Epoch, losses_of, ordinary_modes, train_alone, trains_together

__all__ = ["FITS_AT_ONCE", "Together", "run_together"]

# A search hands over twice as many jobs as joblib can take at once, unless pre_dispatch says otherwise.
FITS_AT_ONCE = 256


class Together(ParallelBackendBase):
    """Backend of joblib for the jobs of a search, which ends with the search.

    Jobs are collected until the first result is asked for, and run then. What else asks joblib for workers while the
    search is on, such as a forest in the refit, is given the backend around it.
    """

    supports_retrieve_callback = False
    supports_sharedmem = True
    uses_threads = True

    def __init__(self) -> None:
        super().__init__(nesting_level=0)
        self.around, self.n_jobs_around = get_active_backend()
        self.n_processes, self.ready = 0, []

    def configure(self, n_jobs: int = 1, parallel: Parallel | None = None, **options: Any) -> int:
        if self.n_processes:
            raise FallbackToBackend(self.around)
        self.n_processes = self.around.effective_n_jobs(n_jobs)
        return self.effective_n_jobs(n_jobs)

    def effective_n_jobs(self, n_jobs: int) -> int:
        if self.ready is None:
            return self.around.effective_n_jobs(n_jobs)
        return FITS_AT_ONCE // 2

    def submit(self, function: Callable[[], Any], callback: Callable[[Any], None] | None = None) -> "Job":
        self.ready.append(Job(self, function, callback))
        return self.ready[-1]

    apply_async = submit  # its name before joblib 1.5

    def run(self) -> None:
        """Run all jobs that are ready, in this process or each in one of several."""
        jobs, self.ready = self.ready, []
        shares = [jobs[first :: self.n_processes] for first in range(min(self.n_processes, len(jobs)))]
        functions = [[job.function for job in share] for share in shares]
        if len(shares) == 1:
            results = [run_together(functions[0])]
        else:
            results = Parallel(len(shares), backend=self.around)(delayed(run_together)(part) for part in functions)
        for share, ended in zip(shares, results, strict=True):
            for job, result in zip(share, ended, strict=True):
                job.result = result
        for job in jobs:
            job.callback(job)  # from which joblib takes that it can hand over another

    def get_nested_backend(self) -> tuple[ParallelBackendBase, int | None]:
        return (self.around, self.n_jobs_around) if self.n_processes == 1 else super().get_nested_backend()

    def terminate(self) -> None:
        self.ready = None


class Job:
    """A job of joblib, and what comes out of it."""

    def __init__(self, backend: Together, function: Callable[[], Any], callback: Callable[[Any], None]) -> None:
        self.backend, self.function, self.callback = backend, function, callback
        self.result: Any = None

    def get(self, timeout: float | None = None) -> Any:
        while self.result is None:
            self.backend.run()
        return self.result


class Stopped(BaseException):
    """Ends a fit of which nothing is wanted any more."""


class Fit(Thread):
    """A fit in a thread of its own, which runs only while another thread waits for it in `proceed`.

    So fits never run at once, and what the process has one of, such as the filters of warnings or the generators of
    random numbers, is as it would be if they ran one after another.
    """

    def __init__(self, function: Callable[[], Any]) -> None:
        super().__init__(daemon=True)
        self.function, self.context = function, copy_context()
        self.turn, self.rest = Semaphore(0), Semaphore(0)
        self.asked: list[Epoch] = []
        self.reply: list[float | Exception] = []
        self.result: Any = None
        self.error: BaseException | None = None
        self.stopped, self.seconds = False, 0.0

    def proceed(self, reply: list[float | Exception] = ()) -> None:
        """Let the fit run until it asks for epochs to be trained or has ended; reply: losses or errors."""
        self.asked, self.reply, modes = [], reply, _modes()
        if self.ident is None:
            self.start()
        else:
            self.turn.release()
        self.rest.acquire()
        _set_modes(modes)

    def stop(self) -> None:
        """End the fit where it is."""
        if self.ident is not None and self.is_alive():
            self.stopped = True
            self.turn.release()
            self.join()

    def run(self) -> None:
        self.context.run(self._run)

    def _run(self) -> None:
        trains_together.set(self._ask)
        try:
            self.result = self.function()
        except BaseException as error:
            self.error = error
        finally:
            self.rest.release()

    def _ask(self, epochs: list[Epoch]) -> list[float]:
        if get_ident() != self.ident:  # a thread that the fit has started
            return [train_alone(epoch) for epoch in epochs]
        self.asked, modes, begun = epochs, _modes(), perf_counter()
        if epochs and not self.stopped:
            self.rest.release()
            self.turn.acquire()
            _set_modes(modes)
        if self.stopped:
            raise Stopped
        self.seconds -= perf_counter() - begun
        return losses_of(self.reply) if epochs else []


def run_together(functions: list[Callable[[], Any]]) -> list[Any]:
    """What functions return that fit estimators, with their networks trained beside one another.

    The fits take turns. Once each has asked for an epoch of its networks, or has ended, those that are furthest train
    as one: the others wait, so that all come to the same epoch again after some have begun their refit. If one raises,
    the others end.
    """
    fits, stacks = [Fit(function) for function in functions], Stacks()
    try:
        for fit in fits:
            fit.proceed()
        while waiting := [fit for fit in fits if fit.asked]:
            _raise_first_error(fits)
            most = max(fit.asked[0].done for fit in waiting)
            _train([fit for fit in waiting if fit.asked[0].done == most], stacks)
        _raise_first_error(fits)
    finally:
        for fit in fits:
            fit.stop()
    return [_with_fit_time(fit.result, fit.seconds) for fit in fits]


def _train(fits: list[Fit], stacks: Stacks) -> None:
    """Train the epochs that fits ask for, and let them run on."""
    with ordinary_modes():  # those of the caller are not those of the fits
        results = iter(stacks.train([epoch for fit in fits for epoch in fit.asked]))
    for fit in fits:
        losses, seconds = zip(*(next(results) for _ in fit.asked), strict=True)
        fit.seconds += sum(seconds)
        fit.proceed(list(losses))


def _raise_first_error(fits: list[Fit]) -> None:
    for fit in fits:
        if fit.error is not None:
            raise fit.error


def _with_fit_time(results: Any, seconds: float) -> Any:
    """Results of scikit-learn's `_fit_and_score`, less the time in which the fit waited, with its share of training."""
    if isinstance(results, list) and len(results) == 1 and isinstance(results[0], dict) and "fit_time" in results[0]:
        results[0]["fit_time"] += seconds
    return results


def _modes() -> dict[str, Any]:
    """The filters of warnings and what shows them, which `warnings.catch_warnings` sets for all threads."""
    names = "filters", "showwarning", "_showwarnmsg_impl"
    return {name: vars(warnings)[name] for name in names if name in vars(warnings)}


def _set_modes(modes: dict[str, Any]) -> None:
    vars(warnings).update(modes)
    with warnings.catch_warnings():  # which tells the interpreter that the filters have changed
        pass
