"""How MLflow is told to be quick to give up and quiet: its environment, its loggers.

The environment is for the caller to apply before mlflow is first imported.
"""

import logging
import warnings

_CHATTY = ("mlflow", "alembic", "sqlalchemy", "urllib3.connectionpool")


def mlflow_environment() -> dict[str, str]:
    """The variables MLflow reads.

    Returns:
        Short waits, because only the writer waits and it tries again by itself (the defaults block
        for 244 s on a dead server); no telemetry; no log handlers of MLflow's own.

    Source:
        mlflow 3.17.2, environment_variables.py.
    """
    return {
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
        "MLFLOW_ENABLE_ASYNC_LOGGING": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_CONFIGURE_LOGGING": "false",
        "GIT_PYTHON_REFRESH": "quiet",
    }


def server_environment() -> dict[str, str]:
    """The variables of an MLflow server of ours: no telemetry, and no jobs started over HTTP."""
    return {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "GIT_PYTHON_REFRESH": "quiet",
    }


def silence() -> None:
    """Keep MLflow's and its libraries' words from the terminal.

    Their failures reach us as exceptions and are told once, in one line.
    """
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    # SQLAlchemy 2.1 says this of MLflow's own tables.
    warnings.filterwarnings(
        "ignore", message="The ``noload`` loader strategy", category=DeprecationWarning
    )
