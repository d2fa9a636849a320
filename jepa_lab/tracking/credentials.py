"""Tracking URIs without their user names and passwords, and texts without such URIs.

Credentials go to the process that talks to the tracker through its environment, and nowhere else.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
from collections.abc import Iterator, Mapping
from urllib.parse import unquote, urlsplit

FULL_URI_VARIABLE = "JEPA_LAB_TRACKING_URI"
STORE_VARIABLE = "MLFLOW_TRACKING_URI"
# Names of query keys, wherever they stand in the name: sslpassword, access_token, X-Amz-Signature, ...
_SECRET_KEYS = (
    r"[\w.%-]*(?:passw|passphrase|pwd|token|secret|credential|signature|api_?key|odbc_connect)[\w.%-]*"
    r"|user|username|uid|sig|auth"
)
_AUTHORITY = re.compile(r"^(?P<scheme>[A-Za-z][\w+.-]*)://(?P<user>[^/?#]*)@")
_SECRET_QUERY = re.compile(rf"([?&])(?:{_SECRET_KEYS})=[^&#]*", re.IGNORECASE)
# Wider than a URI needs to be, so that a password that should have been percent-encoded goes as well, and that of
# a URI that was taken for a path and lost a slash.
_USER_INFO_IN_TEXT = re.compile(r"(\b(?:https?|postgres\w*|mysql|mssql)(?:\+\w+)?:/{1,2}|://)(?!/)\S*@")
_SECRET_IN_TEXT = re.compile(rf"([?&](?:{_SECRET_KEYS})=)[^&#\s'\"]+", re.IGNORECASE)


def without_credentials(uri: str) -> str:
    """The URI without user name, password and secret query keys; safe to write down."""
    bare = _AUTHORITY.sub(lambda match: f"{match['scheme']}://", uri)
    bare = _SECRET_QUERY.sub(lambda match: match[1], bare)
    head, mark, query = bare.partition("?")
    query = re.sub("&{2,}", "&", query).strip("&")
    return f"{head}{mark}{query}" if query else head


def scrub(text: str) -> str:
    """`text` without the user names and passwords of the URIs in it (for logs, messages, command lines)."""
    return _SECRET_IN_TEXT.sub(r"\1***", _USER_INFO_IN_TEXT.sub(r"\1", text))


def credential_environment(uri: str) -> dict[str, str]:
    """The environment variable through which a mirror process gets a URI with credentials; none without any.

    It is JEPA_LAB_TRACKING_URI, which a user may set too, for `jepa-lab sync`.
    """
    return {} if without_credentials(uri) == uri else {FULL_URI_VARIABLE: uri}


def with_credentials(uri: str, environment: Mapping[str, str] = os.environ) -> str:
    """The URI with its credentials, where a variable of the environment is this very URI with some; else `uri`."""
    for variable in (FULL_URI_VARIABLE, STORE_VARIABLE):
        full = environment.get(variable)
        if full is not None and full != uri and without_credentials(full) == uri:
            return full
    return uri


def connection_uri(uri: str) -> str:
    """What MLflow's client is given to connect to `uri`: bare where `server_credentials` passes the credentials on."""
    return without_credentials(uri) if _user_and_password(uri) else uri


@contextlib.contextmanager
def server_credentials(uri: str) -> Iterator[None]:
    """Within the block MLflow's requests carry the user name and password of the URI of a server.

    MLflow reads MLFLOW_TRACKING_USERNAME and _PASSWORD at every request, to whatever server. They are set for no
    longer than the block, because the next run that `sync` completes may be on another server.

    Args:
        uri: with its credentials; one without any, or of a database, changes nothing.
    """
    found = _user_and_password(uri)
    if found is None:
        yield
        return
    names = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(zip(names, found, strict=True))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _user_and_password(uri: str) -> tuple[str, str] | None:
    """Those of the URI of a server; None for a database, and where one of the two is missing."""
    if not uri.startswith(("http://", "https://")):
        return None
    parts = urlsplit(uri)
    return (unquote(parts.username), unquote(parts.password)) if parts.username and parts.password else None


class ScrubbingFormatter(logging.Formatter):
    """A log formatter through which no credentials of a URI pass, tracebacks included."""

    def format(self, record: logging.LogRecord) -> str:
        return scrub(super().format(record))
