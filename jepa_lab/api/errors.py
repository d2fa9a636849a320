"""What the public functions raise: errors whose message is meant for the user, as the command line prints them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from jepa_lab.contracts import plugin_failure
from jepa_lab.errors import disk_full


@contextmanager
def explained_errors() -> Iterator[None]:
    """Failures of plug-ins and of the disk as errors of ours; all others pass through.

    Raises:
        PluginError: the code of a plug-in failed. RunStopped: the disk is full.
    """
    try:
        yield
    except Exception as error:
        failure = disk_full(error) or plugin_failure(error)
        if failure is None:
            raise
        raise failure from error
