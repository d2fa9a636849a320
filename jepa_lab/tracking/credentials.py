"""Tracking URIs without their user names and passwords, and texts without such URIs.

Credentials go to the process that talks to the tracker through its environment, and nowhere else.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from urllib.parse import unquote, urlsplit

FULL_URI_VARIABLE = "JEPA_LAB_TRACKING_URI"
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
    """The environment variables through which a mirror process gets the credentials of `uri`; often none.

    HTTP servers: MLflow's own MLFLOW_TRACKING_USERNAME and _PASSWORD. Databases, and servers that want a user
    name alone: the URI as a whole, in JEPA_LAB_TRACKING_URI, which a user may set too, for `jepa-lab sync`.
    """
    if without_credentials(uri) == uri:
        return {}
    parts = urlsplit(uri)
    if parts.scheme in ("http", "https") and parts.username and parts.password:
        return {
            "MLFLOW_TRACKING_USERNAME": unquote(parts.username),
            "MLFLOW_TRACKING_PASSWORD": unquote(parts.password),
        }
    return {FULL_URI_VARIABLE: uri}


def with_credentials(uri: str, environment: Mapping[str, str] = os.environ) -> str:
    """The URI to connect to: that of the environment if it is this one with credentials, else `uri`."""
    full = environment.get(FULL_URI_VARIABLE)
    return full if full is not None and without_credentials(full) == uri else uri


class ScrubbingFormatter(logging.Formatter):
    """A log formatter through which no credentials of a URI pass, tracebacks included."""

    def format(self, record: logging.LogRecord) -> str:
        return scrub(super().format(record))
