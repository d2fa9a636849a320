"""Writing a figure as a PNG that is either whole or not there."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

from jepa_lab.errors import ConfigError
from jepa_lab.tracking.atomic import explain_os_error

_REFUSED = {errno.EACCES, errno.ENOENT, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR, errno.EISDIR}


def write_png(figure: Any, out: Path) -> None:
    """Draw a matplotlib figure (Agg, no display needed) and write it; its folder is made where it is missing.

    Raises:
        ConfigError: if `out` cannot be written. RunStopped: if the disk is full or fails.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    # Hidden, as every unfinished file of a run folder is: a killed run leaves it, and a mirror must not send it.
    part = out.with_name(f".{out.name}.part")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        try:
            # Without matplotlib's version in it, two figures of the same pixels are the same bytes.
            figure.savefig(part, format="png", metadata={"Software": None})
            os.replace(part, out)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        if error.errno in _REFUSED:
            raise ConfigError(
                f"cannot write the figure {out}: {error.strerror}; choose a file in a folder that can be written"
            ) from error
        explained = explain_os_error(error, out)
        if explained is None:
            raise
        raise explained from error
