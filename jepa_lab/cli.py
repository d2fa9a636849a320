"""The command line. Commands import torch and its friends only when they need them."""

from __future__ import annotations

import errno
import logging
import signal
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from jepa_lab import __version__
from jepa_lab.errors import ConfigError, JepaLabError, RunCrashed, RunStopped
from jepa_lab.interruption import StopRequested, leaving_on_signals
from jepa_lab.output import lost_output, unfailing_output
from jepa_lab.waiting_threads import spin_briefly

if TYPE_CHECKING:
    from jepa_lab.run import RunOutcome
    from jepa_lab.training.team import Team

_OVERRIDES = "Overrides follow FILE as KEY=VALUE, values in YAML: training.epochs=10 masker=random"

_runs_option = click.option(
    "--runs", default="runs", show_default=True, type=click.Path(path_type=Path), help="Folder of the run folders."
)
_sweeps_option = click.option(
    "--sweeps",
    default="sweeps",
    show_default=True,
    type=click.Path(path_type=Path),
    help="Folder of the sweep folders.",
)
_DISK_FULL = {errno.ENOSPC, errno.EDQUOT}
_READER_LEFT = 128 + signal.SIGPIPE


class _Group(click.Group):
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
            _say(f"error: {error}")
            sys.exit(error.exit_code)
        except KeyboardInterrupt as error:
            _say("interrupted")
            sys.exit(128 + (error.signal if isinstance(error, StopRequested) else signal.SIGINT))
        except click.ClickException as error:  # it repeats arguments, which may be URIs with passwords
            vars(error)["message"] = _without_credentials(error.message)
            raise
        except (click.exceptions.Exit, click.Abort):  # click's own ways to end
            raise
        except Exception as error:  # the outermost place: whatever comes here is a bug of our own
            if isinstance(error, OSError) and error.errno in _DISK_FULL:
                where = "a file" if error.filename is None else str(error.filename)
                _say(f"error: {where} cannot be written ({error.strerror}); free space there and try again")
                sys.exit(RunStopped.exit_code)
            failure = _plugin_failure(error)
            if failure is not None:
                _say(f"error: {failure}\n{traceback.format_exc()}")
                sys.exit(failure.exit_code)
            _say(
                f"error: jepa-lab failed ({type(error).__name__}). This is a bug in jepa-lab, not a problem with your "
                f"files; please report the command and these lines:\n{traceback.format_exc()}"
            )
            sys.exit(RunCrashed.exit_code)


def _plugin_failure(error: Exception) -> JepaLabError | None:
    """The error of a plug-in's code, if it was that which failed; without plug-ins nothing more is imported."""
    if "jepa_lab.registry" not in sys.modules:
        return None
    from jepa_lab.contracts import plugin_failure

    return plugin_failure(error)


class _PrintingCommand(click.Command):
    """A command whose only product is what it prints."""

    def invoke(self, ctx: click.Context) -> object:
        result = super().invoke(ctx)
        _refuse_lost_output()
        return result


def _refuse_lost_output() -> None:
    """Fail where the product of a command, which is what it has printed, did not arrive.

    Raises:
        RunStopped: it could not be written. SystemExit: the reader left (`| head`), which is no error.
    """
    lost = lost_output()
    if lost is None:
        return
    if lost.errno == errno.EPIPE:
        sys.exit(_READER_LEFT)
    raise RunStopped(f"the output is incomplete ({lost.strerror or lost}); free space there, or send it elsewhere")


def _say(text: str) -> None:
    """A message to the standard error."""
    click.echo(_without_credentials(text), err=True)


def _without_credentials(text: str) -> str:
    """A message or traceback without the passwords of the URIs in it."""
    from jepa_lab.tracking.credentials import scrub  # pydantic comes with it, which a start need not wait for

    return scrub(text)


def _check_current_folder() -> None:
    """Without one, PyTorch's libraries end the process with a message about themselves."""
    try:
        Path.cwd()
    except FileNotFoundError:
        raise ConfigError("the current folder no longer exists; change to another one") from None


def _found(given: Path, kind: Literal["pipeline", "ablation"]) -> Path:
    """The file that is meant, which may come with jepa-lab."""
    from jepa_lab.config.shipped import find_file

    file, note = find_file(given, kind)
    if note is not None:
        _say(f"note: {note}")
    return file


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """Pretrain image encoders by I-JEPA, probe them honestly, and compare choices."""
    logging.getLogger("jepa_lab").addHandler(logging.NullHandler())


@main.command(epilog=_OVERRIDES)
@click.argument("first", metavar="[FILE]", required=False)
@click.argument("overrides", nargs=-1)
@click.option("--preset", help="Apply a preset on top of FILE, before the overrides. Available: smoke.")
@_runs_option
@click.option(
    "--resume",
    metavar="RUN|auto",
    type=click.Path(path_type=Path),
    help="Resume this run, by its name under --runs or its path. `auto` resumes the newest unfinished run of FILE, or "
    "starts a new one.",
)
@click.option(
    "--from",
    "parent",
    metavar="RUN",
    type=click.Path(path_type=Path),
    help="Start a new run with the state of this one, for more epochs: training.epochs counts those of both.",
)
@click.option("--restart-schedules", is_flag=True, help="With --from: count epochs and steps from 0 again.")
def run(
    first: str | None,
    overrides: tuple[str, ...],
    preset: str | None,
    runs: Path,
    resume: Path | None,
    parent: Path | None,
    restart_schedules: bool,
) -> None:
    """Train and probe the pipeline FILE, or resume a run; start it with torchrun to use several processes.

    FILE is a path, or the name of a pipeline that comes with jepa-lab, such as `digits`.
    """
    from jepa_lab.training.distributed import joined_team

    file = None if first is None else Path(first)
    if (
        first is not None and "=" in first and (resume or parent) is not None
    ):  # overrides alone; a path would merge the // of a URI
        file, overrides = None, (first, *overrides)
    with joined_team() as team:
        with team.reporting():
            if resume is not None and parent is not None:
                raise ConfigError("--from starts a new run, --resume resumes an old one; leave one of them out")
            if restart_schedules and parent is None:
                raise ConfigError("--restart-schedules goes with --from RUN; leave it out")
        if parent is not None:
            outcome = _continue(parent, runs, file, overrides, preset, restart_schedules, team)
        elif resume is not None and str(resume) != "auto":
            outcome = _resume(resume, runs, file, overrides, preset, team)
        elif file is None:
            with team.reporting():
                raise ConfigError("`jepa-lab run` needs a pipeline FILE, as in `jepa-lab run digits`")
        else:
            outcome = _start(file, overrides, preset, runs, resume is not None, team)
        _print_outcome(outcome)


def _resume(
    run: Path, runs: Path, file: Path | None, overrides: tuple[str, ...], preset: str | None, team: Team
) -> RunOutcome:
    """Resume the run of a name or a path."""
    from jepa_lab.config.loading import load_pipeline
    from jepa_lab.resume import resume_run
    from jepa_lab.tracking.folder_names import find_folder
    from jepa_lab.tracking.run_folder import RunFolder

    with team.reporting():
        folder = RunFolder.open(find_folder(run, [runs]))
        source = folder.config if file is None else _found(file, "pipeline")
        given = load_pipeline(source, overrides, preset).pipeline if file or overrides or preset else None
    return resume_run(folder, given, sys.argv, team=team)


def _continue(
    run: Path,
    runs: Path,
    file: Path | None,
    overrides: tuple[str, ...],
    preset: str | None,
    restart_schedules: bool,
    team: Team,
) -> RunOutcome:
    """Start a new run with the state of another one; without a file with its configuration."""
    from jepa_lab.config.loading import load_pipeline
    from jepa_lab.parent import choose_parent
    from jepa_lab.run import start_run
    from jepa_lab.tracking.folder_names import find_folder
    from jepa_lab.tracking.run_folder import RunFolder

    with team.reporting():
        folder = RunFolder.open(find_folder(run, [runs]))
        source = folder.config if file is None else _found(file, "pipeline")
        loaded = load_pipeline(source, overrides, preset)
        parent = choose_parent(folder, loaded, restart_schedules=restart_schedules)
    return start_run(loaded, runs, sys.argv, team=team, parent=parent)


def _start(
    file: Path, overrides: tuple[str, ...], preset: str | None, runs: Path, look_for_unfinished: bool, team: Team
) -> RunOutcome:
    """Start a run, or resume an unfinished one of the same pipeline."""
    from jepa_lab.config.loading import load_pipeline
    from jepa_lab.resume import find_unfinished, resume_run
    from jepa_lab.run import start_run

    with team.reporting():
        loaded = load_pipeline(_found(file, "pipeline"), overrides, preset)
    if look_for_unfinished:
        folder = team.from_leader(lambda: find_unfinished(runs, loaded.pipeline))
        if folder is not None:
            click.echo(f"resuming {folder.path}")
            return resume_run(folder, loaded.pipeline, sys.argv, team=team)
        click.echo(f"no unfinished run of this pipeline and seed in {runs}; starting a new one")
    return start_run(loaded, runs, sys.argv, team=team)


def _print_outcome(outcome: RunOutcome) -> None:
    from jepa_lab.summary import print_summary

    print_summary(outcome.result, outcome.folder.path, outcome.tracker)
    if not outcome.mirror.complete:
        click.echo(outcome.mirror.sentence(outcome.folder.path))


@main.command(cls=_PrintingCommand, epilog=_OVERRIDES)
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("overrides", nargs=-1)
@click.option("--preset", help="Apply a preset on top of FILE, before the overrides. Available: smoke.")
def check(file: Path, overrides: tuple[str, ...], preset: str | None) -> None:
    """Validate FILE without training: resolved YAML, sizes, FLOPs, steps, masks.

    FILE is a path, or the name of a pipeline that comes with jepa-lab, such as `digits`.
    """
    from jepa_lab.config.checks import check_pipeline
    from jepa_lab.config.loading import dump_pipeline, load_pipeline
    from jepa_lab.inspection import inspect_pipeline, print_inspection
    from jepa_lab.run import build_tracker

    loaded = load_pipeline(_found(file, "pipeline"), overrides, preset)
    geometry = check_pipeline(loaded, elsewhere=True)
    tracker = build_tracker(loaded.pipeline, None)
    click.echo(dump_pipeline(loaded.pipeline))
    print_inspection(inspect_pipeline(loaded), geometry)
    click.echo(f"tracking: {tracker.describe()}")


@main.command(cls=_PrintingCommand, name="ls")
@_runs_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_run_folders(runs: Path, as_json: bool) -> None:
    """List the runs below --runs: state, step, accuracies with their controls."""
    import json
    from dataclasses import asdict

    from jepa_lab.run_list import list_runs, print_runs

    lines = list_runs(runs)
    if as_json:
        click.echo(json.dumps([asdict(line) for line in lines], indent=1))
    else:
        print_runs(lines, runs)


@main.command(cls=_PrintingCommand)
@click.argument("run", type=click.Path(path_type=Path))
@_runs_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON: all of result.json.")
def show(run: Path, runs: Path, as_json: bool) -> None:
    """Print the result of a run again, or how far it has come.

    RUN is the name of a run under --runs, or the path of its folder.
    """
    import json

    from jepa_lab.run_list import print_run, run_as_json
    from jepa_lab.tracking.folder_names import find_folder
    from jepa_lab.tracking.run_folder import RunFolder

    folder = RunFolder.open(find_folder(run, [runs]))
    if as_json:
        click.echo(json.dumps(run_as_json(folder), indent=1))
    else:
        print_run(folder)


@main.command(cls=_PrintingCommand)
@click.option("--ablation", is_flag=True, help="Print the schema of ablation files instead.")
def schema(ablation: bool) -> None:
    """Print the JSON schema of pipeline files, for editors."""
    import json

    from jepa_lab.config.loading import load_plugins
    from jepa_lab.config.pipeline import Pipeline
    from jepa_lab.sweeps.ablation import Ablation

    load_plugins([])
    model = Ablation if ablation else Pipeline
    document = {"$schema": "https://json-schema.org/draft/2020-12/schema", **model.model_json_schema()}
    click.echo(json.dumps(document, indent=1))


@main.command(name="list", cls=_PrintingCommand)
@click.argument("family", required=False)
@click.option("--json", "form", flag_value="json", help="Print JSON.")
@click.option("--markdown", "form", flag_value="markdown", help="Print the page docs/components.md.")
@click.option("--plugin", "plugins", multiple=True, help="Module to import first, as under plugins: in a pipeline.")
def list_components(family: str | None, form: str | None, plugins: tuple[str, ...]) -> None:
    """Show the components of every family, or of FAMILY: summary, source, fields."""
    import jepa_lab.interop.exports
    import jepa_lab.sweeps.executors
    import jepa_lab.weights.sources  # noqa: F401  (families that no pipeline names)
    from jepa_lab.catalogue import catalogue, catalogue_as_markdown, print_catalogue
    from jepa_lab.config.loading import load_plugins

    load_plugins(plugins)
    if form == "json":
        import json

        click.echo(json.dumps(catalogue(family), indent=1))
    elif form == "markdown":
        click.echo(catalogue_as_markdown(catalogue(family)), nl=False)
    else:
        print_catalogue(catalogue(family))


@main.command(epilog=_OVERRIDES)
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("overrides", nargs=-1)
@click.option("--preset", help="Apply a preset on top of FILE, before the overrides. Available: smoke.")
@click.option("--out", required=True, type=click.Path(path_type=Path, dir_okay=False), help="PNG to write.")
def masks(file: Path, overrides: tuple[str, ...], preset: str | None, out: Path) -> None:
    """Draw context (green) and target (red) patches on images of FILE's data set."""
    from jepa_lab.config.checks import check_pipeline
    from jepa_lab.config.loading import load_pipeline
    from jepa_lab.mask_picture import draw_pipeline_masks

    loaded = load_pipeline(_found(file, "pipeline"), overrides, preset)
    check_pipeline(loaded)
    draw_pipeline_masks(loaded, out)
    click.echo(f"wrote {out}")


@main.command(
    epilog="Overrides can change the probe and the device: probe.encoder=context 'probe.additional=[finetune]'"
)
@click.argument("run", metavar="RUN|FILE", type=click.Path(path_type=Path))
@click.argument("overrides", nargs=-1)
@click.option("--step", type=int, help="Checkpoint to probe (default: the last one).")
@click.option(
    "--score-test", is_flag=True, help="Score the test split, too, once per probe; the looks at it are counted."
)
@click.option(
    "--encoder",
    metavar="SOURCE",
    help="Probe the encoder of SOURCE on the data of the pipeline FILE: a run, an export, models:/..., runs:/..., a "
    "released checkpoint, a folder of timm or transformers; see `jepa-lab list weight_source`.",
)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="With --encoder: JSON file to write.")
@click.option("--uri", help="With --encoder: tracking URI of models:/ and runs:/.")
@_runs_option
def probe(
    run: Path,
    overrides: tuple[str, ...],
    step: int | None,
    score_test: bool,
    encoder: str | None,
    out: Path | None,
    uri: str | None,
    runs: Path,
) -> None:
    """Probe a run's encoder again, with the same or other settings or data, on the validation split.

    RUN is the name of a run under --runs, or the path of its folder. With --encoder, FILE is a pipeline, which says
    data and probes; nothing is pretrained.
    """
    from jepa_lab.reprobe import probe_again
    from jepa_lab.summary import print_probe
    from jepa_lab.tracking.folder_names import find_folder
    from jepa_lab.tracking.run_folder import RunFolder

    if encoder is not None:
        if step is not None:
            raise ConfigError("--step is of a run; with --encoder leave it out")
        _probe_source(_found(run, "pipeline"), overrides, encoder, (runs, uri, out), score_test)
        return
    if out is not None or uri is not None:
        raise ConfigError("--out and --uri go with --encoder; the file of a run's probe lies in its folder")
    file, result = probe_again(RunFolder.open(find_folder(run, [runs])), overrides, step, score_test=score_test)
    print_probe(result)
    click.echo(f"wrote {file}")


def _probe_source(
    file: Path, overrides: tuple[str, ...], source: str, places: tuple[Path, str | None, Path | None], score_test: bool
) -> None:
    """Probe an encoder that comes from elsewhere.

    Args:
        places: folder of run folders, tracking URI, and the file to write.
    """
    from jepa_lab.config.loading import load_pipeline
    from jepa_lab.interop.probe_source import probe_source
    from jepa_lab.looks import KIND, VERSION
    from jepa_lab.summary import print_probe
    from jepa_lab.tracking.records import write_record
    from jepa_lab.weights.sources.base import SourceContext

    runs, uri, out = places
    context = SourceContext((runs,), uri=uri)
    found = probe_source(load_pipeline(file, overrides), source, context, click.echo, score_test=score_test)
    print_probe(found.content)
    for note in found.notes:
        click.echo(f"note: {note}")
    if out is not None:
        write_record(out, KIND, VERSION, found.content)
        click.echo(f"wrote {out}")


@main.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--to",
    "form",
    required=True,
    metavar="FORMAT",
    help="timm, transformers, safetensors or onnx; see `jepa-lab list export_format`.",
)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder to write; it must not exist.")
@click.option("--encoder", type=click.Choice(["target", "context"]), default="target", show_default=True)
@click.option("--step", type=int, help="Checkpoint to export (default: the last one).")
@_runs_option
def export(
    run: Path, form: str, out: Path, encoder: Literal["target", "context"], step: int | None, runs: Path
) -> None:
    """Write a run's encoder for another library, checked on the run's images, with a model card.

    RUN is the name of a run under --runs, or the path of its folder.
    """
    from jepa_lab.interop.export import ExportRequest, export_run
    from jepa_lab.tracking.folder_names import find_folder
    from jepa_lab.tracking.run_folder import RunFolder

    outcome = export_run(RunFolder.open(find_folder(run, [runs])), ExportRequest(form, encoder, step), out)
    click.echo(outcome.sentence())


@main.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path, dir_okay=False), help="PNG to write.")
@click.option("--step", type=int, help="Checkpoint to draw (default: the last one).")
@click.option("--encoder", type=click.Choice(["target", "context"]), default="target", show_default=True)
@click.option("--layer", type=int, help="Block to draw, counted from 1 (default: the last one).")
@click.option("--images", default=4, show_default=True, type=click.IntRange(1, 32), help="Number of validation images.")
@click.option(
    "--query", type=int, nargs=2, help="Draw what one patch attends to, given by its row and column, counted from 0."
)
@_runs_option
def attention(
    run: Path,
    out: Path,
    step: int | None,
    encoder: Literal["target", "context"],
    layer: int | None,
    images: int,
    query: tuple[int, int] | None,
    runs: Path,
) -> None:
    """Draw which patches a run's encoder attends to, for each head, on validation images.

    RUN is the name of a run under --runs, or the path of its folder.
    There is no class token: by default a map shows how much attention each patch receives from all patches.
    """
    from jepa_lab.attention_picture import AttentionQuestion, draw_run_attention
    from jepa_lab.tracking.folder_names import find_folder
    from jepa_lab.tracking.run_folder import RunFolder

    folder = RunFolder.open(find_folder(run, [runs]))
    draw_run_attention(folder, AttentionQuestion(step, encoder, layer, images, query), out)
    click.echo(f"wrote {out}")


@main.command(epilog="Overrides follow FILE as KEY=VALUE and hold for every arm: data.root=FOLDER training.epochs=10")
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("overrides", nargs=-1)
@click.option("--preset", help="Apply a preset to every arm, with fewer seeds. Available: smoke.")
@_sweeps_option
@click.option(
    "--slots",
    type=click.IntRange(min=1),
    help="Number of trials to run in parallel (default: one per GPU, or one per CPU core).",
)
@click.option(
    "--slots-per-gpu",
    type=click.IntRange(min=1),
    help="Trials that share each GPU and its memory, instead of --slots (default: 1).",
)
@click.option("--storage", help="Optuna storage URL (default: a journal in the sweep's folder).")
@click.option("--dry-run", is_flag=True, help="Print the plan and an estimate of its time, and stop.")
def sweep(
    file: Path,
    overrides: tuple[str, ...],
    preset: str | None,
    sweeps: Path,
    slots: int | None,
    slots_per_gpu: int | None,
    storage: str | None,
    dry_run: bool,
) -> None:
    """Train every arm of the ablation FILE with every seed, and compare them. Run it again to resume.

    FILE is a path, or the name of an ablation that comes with jepa-lab, such as `predictor_size`.
    """
    from jepa_lab.reports.report import print_table
    from jepa_lab.sweeps.estimate import print_plan
    from jepa_lab.sweeps.executors import EXECUTORS
    from jepa_lab.sweeps.plan import load_plan
    from jepa_lab.sweeps.sweep import SweepSettings, run_sweep
    from jepa_lab.training.team import refuse_torchrun

    refuse_torchrun("sweep")
    file = _found(file, "ablation")
    plan = load_plan(file, overrides, preset)
    local = EXECUTORS.get("local")
    executor = local.config_type.model_validate({"slots": slots, "slots_per_gpu": slots_per_gpu})
    local.component.planned_slots(executor, plan.on_gpu)  # refuses what cannot be meant, before anything is written
    if dry_run:
        print_plan(plan, executor)
        _refuse_lost_output()
        return
    outcome = run_sweep(plan, file.read_text(encoding="utf-8"), SweepSettings(sweeps, storage, executor, sys.argv))
    print_table(outcome.report)
    click.echo(f"sweep folder: {outcome.folder.path}\nreport:       {outcome.folder.report / 'report.html'}")
    click.echo(f"tracking:     {outcome.tracker}")
    if not outcome.mirror.complete:
        click.echo(outcome.mirror.sentence(outcome.folder.path))
    if outcome.stopped_by is not None:
        click.echo(f"stopped by {outcome.stopped_by.name}; run the same command again to resume", err=True)
        sys.exit(128 + outcome.stopped_by)


@main.command()
@click.argument("sweep", type=click.Path(path_type=Path))
@click.option("--storage", help="Optuna storage URL, if the sweep was given one.")
@_sweeps_option
def report(sweep: Path, storage: str | None, sweeps: Path) -> None:
    """Write the tables, figures and HTML page of a sweep again.

    SWEEP is the name of a sweep under --sweeps, or the path of its folder.
    """
    from jepa_lab.reports.report import print_table, write_report
    from jepa_lab.sweeps.folder import SweepFolder
    from jepa_lab.sweeps.results import report_input
    from jepa_lab.sweeps.studies import open_studies
    from jepa_lab.tracking.folder_names import find_folder

    folder = SweepFolder.open(find_folder(sweep, [sweeps], "sweep"))
    content = report_input(folder, open_studies(folder, storage))
    print_table(content)
    for path in write_report(content, folder.report):
        click.echo(f"wrote {path}")


@main.command(
    cls=_PrintingCommand, epilog="Without RUN or EXPERIMENT: the experiment $MLFLOW_EXPERIMENT_NAME, else jepa-lab."
)
@click.argument("names", nargs=-1, metavar="[RUN | EXPERIMENT]...")
@click.option(
    "--metric", default="probe/validation_accuracy", show_default=True, help="Metric to compare the groups by."
)
@click.option("--by", metavar="KEY", help="Group by this parameter alone, such as masker.name.")
@click.option("--baseline", metavar="ARM", help="Group to compare the others with.")
@click.option("--format", "form", type=click.Choice(["table", "md", "csv", "tex"]), default="table", show_default=True)
@click.option(
    "--uri",
    help="Tracking URI (default: the store of the folders named, else $MLFLOW_TRACKING_URI, else mlflow.db in this "
    "folder).",
)
@_runs_option
@_sweeps_option
def compare(
    names: tuple[str, ...],
    metric: str,
    by: str | None,
    baseline: str | None,
    form: str,
    uri: str | None,
    runs: Path,
    sweeps: Path,
) -> None:
    """Compare runs recorded in MLflow, one line per group of runs that differ only in seed.

    RUN is a run id, a run name, a run folder, or a sweep (its folder or its own run), which stands for its trials.
    """
    from jepa_lab.reports.comparison import Question
    from jepa_lab.reports.comparison import compare as compare_runs
    from jepa_lab.reports.latex import render_latex
    from jepa_lab.reports.long_form import csv_text
    from jepa_lab.reports.markdown import render_markdown
    from jepa_lab.runs.predictions import predictions_of_run
    from jepa_lab.sweeps.objectives import direction_of
    from jepa_lab.tracking.mlflow_reading import read_runs
    from jepa_lab.tracking.run_folder import RunFolder

    direction = direction_of(metric)
    read = read_runs(names, uri, [runs, sweeps])
    compared = compare_runs(read.frame, Question(metric, direction == "maximize", by, baseline), read.source)
    kept = {folder: predictions_of_run(RunFolder(Path(folder))) for folder in compared.run_folders}
    compared = compared.with_predictions(kept)
    text, footnotes = compared.as_text()
    if form == "table":
        from rich.console import Console

        from jepa_lab.tables.terminal import print_text_table

        print_text_table(text, footnotes, Console(highlight=False))
        return
    writers = {
        "md": lambda: render_markdown([(text, footnotes)]),
        "tex": lambda: render_latex(text, footnotes),
        "csv": lambda: csv_text(compared.content),
    }
    click.echo(writers[form](), nl=False)


@main.command()
@click.argument("names", nargs=-1, metavar="[RUN | SWEEP]...", type=click.Path(path_type=Path))
@_runs_option
@_sweeps_option
@click.pass_context
def sync(context: click.Context, names: tuple[Path, ...], runs: Path, sweeps: Path) -> None:
    """Complete the MLflow record of runs and sweeps whose tracker was unreachable.

    RUN and SWEEP are names under --runs and --sweeps, or paths of folders; a sweep stands for all its trials. Without
    any, all records are completed that need it.
    """
    from jepa_lab.tracking.folder_names import find_folder
    from jepa_lab.tracking.mirror import folders_to_sync
    from jepa_lab.tracking.mirror import sync as complete
    from jepa_lab.tracking.run_folder import RunFolder

    named = tuple(find_folder(name, [runs, sweeps], "run or sweep") for name in names)
    for path in named:
        RunFolder.open(path)  # a wrong path is told before anything is sent
    roots = _roots_to_sync(context, runs, sweeps)
    chosen = named or tuple(path for root in roots for path in folders_to_sync(root))
    codes = {0}
    for path in chosen:
        try:
            state = complete(path)
        except JepaLabError as error:  # the others are completed all the same
            click.echo(f"error: {error}", err=True)
            codes.add(error.exit_code)
        else:
            click.echo(state.sentence(path))
            codes.add(0 if state.complete else 3)
    if not chosen:
        where = " and ".join(map(str, roots))
        click.echo(f"nothing to do: no run below {where} waits for its tracker")
    sys.exit(2 if 2 in codes else max(codes))


def _roots_to_sync(context: click.Context, runs: Path, sweeps: Path) -> list[Path]:
    """The folders that were named, else those of the two that are there; the first where neither is."""
    named = click.core.ParameterSource.COMMANDLINE
    given = [root for name, root in (("runs", runs), ("sweeps", sweeps)) if context.get_parameter_source(name) == named]
    return given or [root for root in (runs, sweeps) if root.is_dir()] or [runs]


@main.command()
@click.option("--uri", help="Tracking URI (default: $MLFLOW_TRACKING_URI, else mlflow.db in this folder).")
@click.option("--port", default=5000, show_default=True, type=click.IntRange(1, 65535))
def ui(uri: str | None, port: int) -> None:
    """Open MLflow's web pages for a store of runs; only this machine can reach them."""
    from jepa_lab.tracking.ui import serve_ui

    serve_ui(uri, port, say=click.echo)


if __name__ == "__main__":
    main()
