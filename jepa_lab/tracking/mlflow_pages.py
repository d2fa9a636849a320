"""Addresses of MLflow's pages; the server is asked by its REST interface, without importing MLflow."""

from __future__ import annotations

import base64
import json
import os
from typing import Any
from urllib.error import URLError
from urllib.parse import quote, unquote, urlsplit
from urllib.request import ProxyHandler, Request, build_opener

from jepa_lab.tracking.credentials import without_credentials

_SECONDS = 10.0
_API = "/api/2.0/mlflow/experiments/"
# Without it MLflow 3 opens an experiment at its traces, of which there are none here.
_RUNS = "/#/experiments/{}/runs?workflowType=machine_learning"


def runs_link(server: str, shown: str, experiment: str) -> str:
    """The page with the runs of an experiment.

    Args:
        server: address at which the server is asked, perhaps with credentials.
        shown: address that a browser is given.
        experiment: its name. Where the server has none of it, the page is that of the one that was changed last.
    Returns:
        The list of experiments, where the server has none, or does not say.
    """
    shown = shown.rstrip("/")
    try:
        found = _experiment(server.rstrip("/"), experiment)
    except (URLError, OSError, ValueError):
        found = None
    return f"{shown}/#/experiments" if found is None else f"{shown}{_RUNS.format(quote(found))}"


def _experiment(server: str, name: str) -> str | None:
    """Id of the experiment of this name, else of the one that was changed last.

    Raises:
        URLError, OSError, ValueError: the server did not answer, or something else did.
    """
    answer = _ask(server, "search?max_results=1000&order_by=last_update_time%20DESC")
    experiments = answer.get("experiments", [])
    named = [each for each in experiments if each["name"] == name]
    others = [each for each in experiments if each["experiment_id"] != "0"]  # MLflow's own, which nothing is in
    return next((str(each["experiment_id"]) for each in [*named, *others]), None)


def _ask(server: str, question: str) -> dict[str, Any]:
    parts = urlsplit(server)
    headers = {}
    user = unquote(parts.username or os.environ.get("MLFLOW_TRACKING_USERNAME", ""))
    if user:
        password = unquote(parts.password or os.environ.get("MLFLOW_TRACKING_PASSWORD", ""))
        headers["Authorization"] = f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"
    elif os.environ.get("MLFLOW_TRACKING_TOKEN"):
        headers["Authorization"] = f"Bearer {os.environ['MLFLOW_TRACKING_TOKEN']}"
    request = Request(f"{without_credentials(server)}{_API}{question}", headers=headers)
    opener = build_opener(ProxyHandler({})) if parts.hostname in ("127.0.0.1", "::1", "localhost") else build_opener()
    with opener.open(request, timeout=_SECONDS) as reply:
        answer = json.loads(reply.read())
    if not isinstance(answer, dict):
        raise ValueError("not MLflow's answer")
    return answer
