"""What the public functions raise: errors whose message is meant for the user, as the command line prints them."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from jepa_lab.contracts import plugin_failure
from jepa_lab.errors import RunStopped

_DISK_FULL = {errno.ENOSPC, errno.EDQUOT}


@contextmanager
def explained_errors() -> Iterator[None]:
    """Failures of plug-ins and of the disk as errors of ours; all others pass through.

    Raises:
        PluginError: the code of a plug-in failed. RunStopped: the disk is full.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _DISK_FULL:
            raise
        where = "a file" if error.filename is None else str(error.filename)
        raise RunStopped(f"{where} cannot be written ({error.strerror}); free space there and try again") from error
    except Exception as error:
        failure = plugin_failure(error)
        if failure is None:
            raise
        raise failure from error
