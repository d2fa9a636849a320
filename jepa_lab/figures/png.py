"""Writing a figure as a PNG that is either whole or not there."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

from jepa_lab.errors import ConfigError, RunStopped

_REFUSED = {errno.EACCES, errno.ENOENT, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR, errno.EISDIR}


def write_png(figure: Any, out: Path) -> None:
    """Draw a matplotlib figure (Agg, no display needed) and write it; its folder is made where it is missing.

    Raises:
        ConfigError: if `out` cannot be written. RunStopped: if the disk is full.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    part = out.with_name(out.name + ".part")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        try:
            figure.savefig(part, format="png")
            os.replace(part, out)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise RunStopped(
                f"no space left to write the figure {out}: {error.strerror}; free space on that file system"
            ) from error
        if error.errno in _REFUSED:
            raise ConfigError(
                f"cannot write the figure {out}: {error.strerror}; choose a file in a folder that can be written"
            ) from error
        raise
