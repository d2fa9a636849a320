"""The few kinds of error that a user can meet, and the exit code of each.

A message says the place (field, file, line), the value, the rule and the remedy.
Anything that is not one of these is a mistake of our own: exit code 1 and a traceback.
"""


class JepaLabError(Exception):
    """Base of the errors whose message is meant for the user.

    Any message can be printed and stored: a character of a file name that is not UTF-8 is written as an escape.
    """

    exit_code = 2

    def __init__(self, *args: object) -> None:
        super().__init__(
            *(arg.encode(errors="backslashreplace").decode() if isinstance(arg, str) else arg for arg in args)
        )


class ConfigError(JepaLabError):
    """A setting, a file or an option is wrong; nothing was started."""


class DataError(JepaLabError):
    """The data are missing, unreadable or do not fit the settings."""


class DeviceError(JepaLabError):
    """The requested device, precision or compiler is not available here."""


class RunFolderError(JepaLabError):
    """A run folder cannot be written, is not a run, or belongs to another configuration."""


class RunInterrupted(JepaLabError):
    """Ctrl-C ended a run; it can be resumed."""

    exit_code = 130


class RunTerminated(RunInterrupted):
    """SIGTERM ended a run; it can be resumed."""

    exit_code = 143


class RunCrashed(JepaLabError):
    """A mistake of our own ended a run; the message names the log that holds the traceback."""

    exit_code = 1


class RunStopped(JepaLabError):
    """A good run was stopped from outside: disk, memory, non-finite numbers, a collapse."""

    exit_code = 3


class RunOutOfMemory(RunStopped):
    """The memory of the machine or of its accelerator is full."""


class RunPruned(RunStopped):
    """A search ended the run early, because its intermediate values were poor."""
