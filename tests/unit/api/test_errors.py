"""Messages of the public functions name arguments where those of the command line name options."""

from __future__ import annotations

import click
import pytest

import jepa_lab
from jepa_lab.api.errors import explained_errors, in_options, in_python
from jepa_lab.cli import main
from jepa_lab.errors import ConfigError, ConfigProblems, Key

OF_THE_TERMINAL = {"--help", "--json", "--quiet", "--dry-run", "--only", "--arm", "--seed"}
"""They print, or split a sweep by hand over machines, each of which is given a command."""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("--preset 'x' is unknown", "preset='x' is unknown"),
        ("use --slots, whose default is one", "use `slots`, whose default is one"),
        ("--slots-per-gpu 99 lets 99 trials share it", "slots_per_gpu=99 lets 99 trials share it"),
        ("--executor=slurm", "executor='slurm'"),
        ("--executor-option", "executor_options"),
        ("--seeds", "seeds"),
        ("`jepa-lab sweep FILE --seeds 0-4`, with --seeds", "`jepa-lab sweep FILE --seeds 0-4`, with `seeds`"),
        ("torchrun --nproc-per-node 2; docker run --shm-size", "torchrun --nproc-per-node 2; docker run --shm-size"),
    ],
)
def test_an_option_is_the_argument_of_its_name(text: str, expected: str) -> None:
    assert in_python(text, jepa_lab.sweep) == expected


@pytest.mark.parametrize("name", ["run", "sweep", "probe"])
def test_every_option_is_an_argument_of_the_function(name: str) -> None:
    renamed = {"--encoder"} if name == "probe" else set()  # it is the first argument there
    for option in main.commands[name].params:
        long = max(option.opts, key=len)
        if isinstance(option, click.Option) and long not in OF_THE_TERMINAL | renamed:
            assert in_python(long, getattr(jepa_lab, name)) != long, long


def test_text_remedy_and_place_are_reworded_and_keys_are_kept() -> None:
    with pytest.raises(ConfigError) as caught, explained_errors(jepa_lab.sweep):
        raise ConfigError(Key("seed"), " is not --seeds", remedy="give --seeds 0", place="--metric")
    assert str(caught.value) == "metric: seed is not `seeds`; give seeds=0"
    assert caught.value.keys == ("seed",)
    with pytest.raises(ConfigProblems) as both, explained_errors(jepa_lab.sweep):
        raise ConfigProblems("--arms: no", "--base: no")
    assert both.value.lines == ("`arms`: no", "`base`: no")


def test_a_command_that_calls_a_function_keeps_its_options() -> None:
    with pytest.raises(ConfigError, match=r"^--seeds$"), in_options(), explained_errors(jepa_lab.sweep):
        raise ConfigError("--seeds")
