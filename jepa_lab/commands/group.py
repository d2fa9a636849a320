"""The group of all commands: what an error, a signal or a bug becomes."""

from __future__ import annotations

import signal
import sys
import traceback
from pathlib import Path
from typing import Any

import click

from jepa_lab.commands.printing import say, without_credentials
from jepa_lab.errors import ConfigError, JepaLabError, RunCrashed, disk_full
from jepa_lab.interruption import StopRequested, leaving_on_signals
from jepa_lab.output import unfailing_output
from jepa_lab.waiting_threads import spin_briefly


class Group(click.Group):
    """Turns our errors into one message and their exit code, and bugs of our own into exit code 1."""

    def main(self, *arguments: Any, **keywords: Any) -> Any:
        spin_briefly()
        with unfailing_output(), leaving_on_signals():
            return super().main(*arguments, **keywords)

    def invoke(self, ctx: click.Context) -> object:
        try:
            _check_current_folder()
            return super().invoke(ctx)
        except JepaLabError as error:
            say(f"error: {error}")
            sys.exit(error.exit_code)
        except KeyboardInterrupt as error:
            received = error.signal if isinstance(error, StopRequested) else signal.SIGINT
            say(f"stopped by {received.name}")
            sys.exit(128 + received)
        except click.ClickException as error:  # it repeats arguments, which may be URIs with passwords
            vars(error)["message"] = without_credentials(error.message) + _remedy(error)
            raise
        except (click.exceptions.Exit, click.Abort):  # click's own ways to end
            raise
        except Exception as error:  # the outermost place: whatever comes here is a bug of our own
            full = disk_full(error)
            if full is not None:
                say(f"error: {full}")
                sys.exit(full.exit_code)
            failure = _plugin_failure(error)
            if failure is not None:
                say(f"error: {failure}\n{traceback.format_exc()}")
                sys.exit(failure.exit_code)
            say(
                f"error: jepa-lab failed ({type(error).__name__}). This is a bug in jepa-lab, not a problem with your "
                f"files; please report the command and these lines:\n{traceback.format_exc()}"
            )
            sys.exit(RunCrashed.exit_code)


def _remedy(error: click.ClickException) -> str:
    """What click cannot know: settings of a pipeline look like options to whoever comes from other programs."""
    if not isinstance(error, click.NoSuchOption) or error.ctx is None:
        return ""
    takes_overrides = any(parameter.name == "overrides" for parameter in error.ctx.command.params)
    return " Settings are overrides, without dashes: training.epochs=10." if takes_overrides else ""


def _plugin_failure(error: Exception) -> JepaLabError | None:
    """The error of a plug-in's code, if it was that which failed; without plug-ins nothing more is imported."""
    if "jepa_lab.registry" not in sys.modules:
        return None
    from jepa_lab.contracts import plugin_failure

    return plugin_failure(error)


def _check_current_folder() -> None:
    """Without one, PyTorch's libraries end the process with a message about themselves."""
    try:
        Path.cwd()
    except FileNotFoundError:
        raise ConfigError("the current folder no longer exists; change to another one") from None
