"""Where records go: the spool on disk, and the one writer that brings it to MLflow.

Only functions in here import mlflow, and only when they are called.
"""
