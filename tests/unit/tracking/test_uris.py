"""A path is not a URI: what SQLite URIs are made of paths, and which files they mean."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy
from sqlalchemy.engine import make_url

from jepa_lab.errors import ConfigError
from jepa_lab.tracking.description import RunDescription, TrackerSettings
from jepa_lab.tracking.mirror_cursor import MirrorCursor, load_cursor
from jepa_lab.tracking.mlflow_tracker import MlflowParams, MlflowTracker
from jepa_lab.tracking.records import write_record
from jepa_lab.tracking.run_folder import RunFolder
from jepa_lab.tracking.uris import (
    absolute_uri,
    artifact_uri,
    check_artifact_location,
    check_uri,
    default_artifact_location,
    default_uri,
    sqlite_path,
    sqlite_uri,
    uri_for_mlflow,
)

NAMES = ["a b", "a%20b", "a?b", "a#b", "a+b", "a&b", "ä", "a;b", "a'b", "run%41", "a%3Fb", "a%2520b", "a:b@c", "{a}[b]"]
"""Folders whose names mean something else in a URI."""


def file_that_opens(uri: str) -> Path:
    """What SQLAlchemy, and with it MLflow and Optuna, opens."""
    engine = sqlalchemy.create_engine(uri)
    with engine.connect() as connection:
        connection.exec_driver_sql("CREATE TABLE opened (x)")
    engine.dispose()
    database = engine.url.database
    assert database is not None
    return Path(database).absolute()


@pytest.mark.parametrize("name", NAMES)
def test_the_default_store_is_in_the_very_folder(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / name)
    uri = default_uri()
    check_uri(uri)
    assert sqlite_path(uri) == tmp_path / name / "mlflow.db"
    assert file_that_opens(uri) == tmp_path / name / "mlflow.db"
    assert file_that_opens(uri_for_mlflow(sqlite_uri(Path("other.db")))) == tmp_path / name / "other.db"
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", NAMES)
def test_mlflow_makes_no_folder_for_the_uri_it_is_given(name: str, tmp_path: Path) -> None:
    from mlflow.store.db.utils import _make_parent_dirs_if_sqlite

    (tmp_path / name).mkdir()
    _make_parent_dirs_if_sqlite(uri_for_mlflow(sqlite_uri(tmp_path / name / "mlflow.db")))
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", NAMES)
def test_artifacts_lie_beside_the_store(name: str, tmp_path: Path) -> None:
    from mlflow.utils.file_utils import local_file_uri_to_path

    location = default_artifact_location(sqlite_uri(tmp_path / name / "mlflow.db"))
    assert location is not None
    assert local_file_uri_to_path(location) == str(tmp_path / name / "mlflow-artifacts")


@pytest.mark.parametrize("name", NAMES)
def test_an_artifact_location_may_be_a_path(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.utils.file_utils import local_file_uri_to_path

    monkeypatch.chdir(tmp_path)
    for given in (name, str(tmp_path / name), (tmp_path / name).as_uri()):
        settings = MlflowTracker(MlflowParams(artifact_location=given)).settings()
        assert settings is not None
        assert settings.artifact_location == (tmp_path / name).as_uri()
        assert local_file_uri_to_path(settings.artifact_location) == str(tmp_path / name)


@pytest.mark.parametrize("location", ["s3://bucket/a%20b", "dbfs:/a%20b", "mlflow-artifacts:/x", "gs://b?x#y"])
def test_an_artifact_location_of_another_kind_stays_as_it_is(location: str) -> None:
    assert artifact_uri(location) == location


@pytest.mark.parametrize("location", ["file:///p/a?b", "file:/p/a#b"])
def test_a_file_uri_that_would_be_cut_off_is_refused_with_its_escapes(location: str) -> None:
    with pytest.raises(ValueError, match="%3F and %23"):
        check_artifact_location(location)


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("sqlite:////p/a%20b/m.db", "/p/a b/m.db"),
        ("sqlite:////p/a b/m.db", "/p/a b/m.db"),
        ("sqlite:////p/a%2520b/m.db?timeout=5", "/p/a%20b/m.db"),
        ("sqlite+pysqlite:////p/a%3Fb/m.db", "/p/a?b/m.db"),
        ("sqlite:////p/a#b/m.db", "/p/a#b/m.db"),
        ("sqlite:////p/100%/m.db", "/p/100%/m.db"),
        ("sqlite:////p/ä/m.db", "/p/ä/m.db"),
        ("sqlite:////p/%C3%A4/m.db", "/p/ä/m.db"),
    ],
)
def test_a_users_uri_is_read_as_sqlalchemy_reads_it(uri: str, path: str) -> None:
    check_uri(uri)
    assert sqlite_path(uri) == Path(path)
    assert make_url(uri).database == path
    assert sqlite_path(absolute_uri(uri)) == Path(path)
    assert absolute_uri(absolute_uri(uri)) == absolute_uri(uri)
    assert make_url(absolute_uri(uri)).query == make_url(uri_for_mlflow(uri)).query == make_url(uri).query


def test_a_relative_uri_is_one_of_the_current_folder_whatever_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a%20b?c").mkdir()
    monkeypatch.chdir(tmp_path / "a%20b?c")
    settings = MlflowTracker(MlflowParams(uri="sqlite:///sub%3F/x.db")).settings()
    assert settings is not None
    assert sqlite_path(settings.uri) == tmp_path / "a%20b?c" / "sub?" / "x.db"


@pytest.mark.parametrize(
    ("uri", "remedy"),
    [
        ("sqlite:////p/a?b/m.db", "%3F"),
        ("sqlite:////p/m.db?", "%3F"),
        ("sqlite:////p/m.db?mode=ro", "%3F"),
        ("sqlite:///file:/p/m.db?uri=true", "%3F"),
        ("sqlite:////p/%FF/m.db", "%25"),
        ("sqlite:////p/%00/m.db", "%25"),
    ],
)
def test_a_path_that_no_uri_means_is_refused_with_its_escapes(uri: str, remedy: str) -> None:
    with pytest.raises(ValueError, match=remedy):
        check_uri(uri)


@pytest.mark.parametrize("neighbour", [True, False])
def test_a_path_with_percent_signs_is_refused_where_it_may_have_been_put_in_as_it_is(
    tmp_path: Path, neighbour: bool
) -> None:
    """As in `tracking.uri=sqlite:///$PWD/mlflow.db`."""
    (tmp_path / "a%20b").mkdir()
    if neighbour:
        (tmp_path / "a b").mkdir()
    uri = f"sqlite:///{tmp_path}/a%20b/mlflow.db"
    with pytest.raises(ValueError, match="a%2520b") as caught:
        check_uri(uri)
    assert f"{sqlite_uri(tmp_path / 'a b' / 'mlflow.db')}" in str(caught.value)
    check_uri(sqlite_uri(tmp_path / "a%20b" / "mlflow.db"))


def test_either_of_two_folders_can_be_named(tmp_path: Path) -> None:
    for name in ("a?b", "a%3Fb"):
        (tmp_path / name).mkdir()
    for name in ("a?b", "a%3Fb"):
        uri = sqlite_uri(tmp_path / name / "m.db")
        check_uri(uri)
        assert sqlite_path(uri) == tmp_path / name / "m.db"


def test_a_folder_whose_name_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="tracking: none"):
        sqlite_uri(tmp_path / "a\udcff" / "m.db")


def write_old_run(folder: Path, uri: str, params: dict[str, str], artifact_location: str | None = None) -> RunFolder:
    """A run folder whose run.json is of version 1."""
    run = RunFolder.create(folder / "runs", "old", "0123456789", 0, "name: old\n")
    tracker = {
        "uri": uri,
        "artifact_location": artifact_location,
        "experiment": "e",
        "run_name": None,
        "flush_seconds": 1.0,
    }
    content = {"params": params, "tags": {}, "dataset": None, "tracker": tracker, "run_uid": "u1", "started": 1.0}
    write_record(run.description, "run", 1, content)
    return run


@pytest.mark.parametrize("name", NAMES)
def test_an_old_run_whose_uri_was_not_escaped_has_its_store_in_the_very_folder(name: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    folder.mkdir()
    cut = Path(f"{folder}/mlflow.db".partition("?")[0]).parent / "mlflow-artifacts"  # what old versions took it for
    run = write_old_run(folder, f"sqlite:///{folder}/mlflow.db", {"tracking.uri": "null"}, cut.as_uri())
    tracker = run.read_description().tracker
    assert tracker is not None
    assert tracker.uri == sqlite_uri(folder / "mlflow.db")
    assert tracker.artifact_location == (folder / "mlflow-artifacts").as_uri()


def test_an_old_uri_keeps_its_options(tmp_path: Path) -> None:
    run = write_old_run(tmp_path, "sqlite:////p/a%41/m.db?timeout=5", {})
    tracker = run.read_description().tracker
    assert tracker is not None
    assert tracker.uri == "sqlite:////p/a%2541/m.db?timeout=5"


def test_an_old_uri_that_the_user_had_escaped_means_the_file_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "a b").mkdir()
    (tmp_path / "a%20b").mkdir()
    uri = f"sqlite:///{tmp_path}/a%20b/m.db"
    run = write_old_run(tmp_path, uri, {"tracking.uri": uri})
    before = run.read_description().tracker
    with closing(sqlite3.connect(tmp_path / "a b" / "m.db")) as made:
        made.execute("CREATE TABLE opened (x)")
    after = run.read_description().tracker
    assert before is not None
    assert after is not None
    assert sqlite_path(before.uri) == tmp_path / "a%20b" / "m.db"
    assert sqlite_path(after.uri) == tmp_path / "a b" / "m.db"


def test_an_old_record_of_a_plain_folder_is_still_known_to_be_complete(tmp_path: Path) -> None:
    folder = tmp_path / "a(1)"
    folder.mkdir()
    uri = f"sqlite:///{folder}/mlflow.db"
    run = write_old_run(folder, uri, {})
    MirrorCursor(uri, "e", "u1", run_id="r1").save(run)
    assert load_cursor(run, run.read_description()).run_id == "r1"


def test_an_old_record_that_went_to_the_neighbour_is_sent_again(tmp_path: Path) -> None:
    folder = tmp_path / "a%20b"
    folder.mkdir()
    uri = f"sqlite:///{folder}/mlflow.db"
    run = write_old_run(folder, uri, {})
    MirrorCursor(uri, "e", "u1", run_id="r1").save(run)
    assert load_cursor(run, run.read_description()).run_id is None


def test_a_run_folder_says_which_version_it_is_and_comes_back_as_it_was(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path, "run", "0123456789", 0, "name: run\n")
    settings = TrackerSettings(sqlite_uri(tmp_path / "a%20b" / "m.db"), None, "e", None, 1.0)
    run.write_description(RunDescription({}, {}, tracker=settings))
    assert json.loads(run.description.read_text())["format_version"] == 2
    assert run.read_description().tracker == settings


def test_a_missing_sqlalchemy_is_told_with_the_remedy() -> None:
    code = (
        "import sys; sys.modules['sqlalchemy'] = None\n"
        "from jepa_lab.tracking.mlflow_tracker import MlflowParams, MlflowTracker\n"
        "from jepa_lab.errors import ConfigError\n"
        "try:\n    MlflowTracker(MlflowParams())\nexcept ConfigError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "needs the package sqlalchemy" in done.stdout
    assert "tracking: none" in done.stdout
