"""The command line: all commands in one group. They import torch and its friends only when they need them."""

from __future__ import annotations

import logging

import click

from jepa_lab import __version__
from jepa_lab.commands.attention import attention
from jepa_lab.commands.check import check
from jepa_lab.commands.compare import compare
from jepa_lab.commands.dashboard import dashboard
from jepa_lab.commands.export import export
from jepa_lab.commands.features import features
from jepa_lab.commands.group import Group
from jepa_lab.commands.list import list_components
from jepa_lab.commands.ls import list_run_folders
from jepa_lab.commands.masks import masks
from jepa_lab.commands.probe import probe
from jepa_lab.commands.register import register
from jepa_lab.commands.report import report
from jepa_lab.commands.run import run
from jepa_lab.commands.schema import schema
from jepa_lab.commands.show import show
from jepa_lab.commands.sweep import sweep
from jepa_lab.commands.sync import sync
from jepa_lab.commands.ui import ui


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """Pretrain image encoders by I-JEPA, probe them honestly, and compare choices."""
    logging.getLogger("jepa_lab").addHandler(logging.NullHandler())


for command in (
    run,
    check,
    list_run_folders,
    show,
    schema,
    list_components,
    masks,
    probe,
    export,
    features,
    register,
    attention,
    sweep,
    report,
    compare,
    sync,
    ui,
    dashboard,
):
    main.add_command(command)

if __name__ == "__main__":
    main()
