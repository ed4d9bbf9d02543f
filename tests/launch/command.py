"""The command line as a person uses it: in a process of its own, watched from outside."""

import contextlib
import json
import os
import secrets
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from orchestrator.measure.sample import Record
from orchestrator.track.spool import records_in
from tests.worker.ranks import EXTENSIONS

MARK = "ORCHESTRATOR_TEST_MARK"
USER_CODE = """
import os, signal, time
import torch

class Net(torch.nn.Module):
    def __init__(self, mode="well", at=5, rank=1, step_s=0.0):
        super().__init__()
        self.layer = torch.nn.Linear(4, 2)
        self.mode, self.at, self.rank, self.step_s, self.n_calls = mode, at, rank, step_s, 0

    def forward(self, x, labels=None):
        time.sleep(self.step_s)
        self.n_calls += 1
        if self.n_calls == self.at and os.environ.get("RANK") == str(self.rank):
            if self.mode == "mistake":
                raise ValueError("the user's own mistake")
            if self.mode == "memory":
                raise MemoryError("no room for it")
            if self.mode == "crash":
                os.abort()
            if self.mode == "hang":
                time.sleep(10_000)
            if self.mode == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
        return self.layer(x)

class Rows(torch.utils.data.Dataset):
    def __init__(self, n_samples, poisoned):
        self.n_samples, self.poisoned = n_samples, poisoned
    def __len__(self):
        return self.n_samples
    def __getitem__(self, i):
        x = torch.full((4,), float("nan") if i == self.poisoned else float(i % 7))
        return {"x": x, "labels": i % 2}

def model(**config):
    return Net(**config)

def data(poisoned=None):
    return {"train": Rows(64, poisoned), "eval": Rows(16, None)}

def no_module():
    return "a model"

raise_on_import = os.environ.get("NO_SUCH_VARIABLE")
"""
JOB = """
name: users
model: {factory: "users:model", config: {}}
data: {factory: "users:data", config: {}}
training: {steps: 20, global_batch_size: 8, micro_batch_size: 4, loss: cross_entropy, engine: torch}
resources: {workers: 2, device: cpu, cpus_per_worker: 0.5}
"""


class Command:
    """One command; every process it starts, and theirs, carries a mark by which it is found."""

    def __init__(
        self,
        *arguments: str | Path,
        home: Path,
        forecast: bool = False,
        cwd: Path | None = None,
        **environment: str,
    ) -> None:
        self.home = home
        if arguments[0] == "launch" and not forecast:
            # Most tests are about the run, and users' models crash in a forecast as they do there.
            arguments = (*arguments, "--no-forecast")
        self._mark = secrets.token_hex(8)
        # Ray needs a folder with a short name.
        self._temp = Path(tempfile.mkdtemp(prefix="o", dir="/tmp"))
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "MLFLOW_"))}
        self._output = {name: (self._temp / name).open("w+") for name in ("stdout", "stderr")}
        self.started_s = time.monotonic()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "orchestrator", *map(str, arguments), "--home", str(home)],
            env={
                **inherited,
                MARK: self._mark,
                "TMPDIR": str(self._temp),
                # Not the cache of the person who runs the tests.
                "TORCH_EXTENSIONS_DIR": str(EXTENSIONS),
                "XDG_CACHE_HOME": str(EXTENSIONS.parent / "cache-tests"),
                **environment,
            },
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=self._output["stdout"],
            stderr=self._output["stderr"],
            start_new_session=True,
        )
        self.seconds = float("nan")

    def wait(self, *, timeout_s: float = 120) -> "Command":
        """Wait for its end; kills everything of it if it takes too long."""
        try:
            self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            for pid in self.left_running():
                os.kill(pid, signal.SIGKILL)
            raise
        self.seconds = time.monotonic() - self.started_s
        return self

    def wait_until(self, true: Callable[[], Any], *, timeout_s: float = 90) -> None:
        """Wait until something holds, while the command runs."""
        deadline_s = time.monotonic() + timeout_s
        while not true():
            assert self.process.poll() is None, self.stderr
            assert time.monotonic() < deadline_s, self.stderr
            time.sleep(0.05)

    def signal_group(self, number: signal.Signals) -> None:
        """Send a signal as a terminal does: to every process of the group."""
        os.killpg(self.process.pid, number)

    @property
    def exit_code(self) -> int:
        """What it ended with."""
        return self.process.wait(0)

    @property
    def stdout(self) -> str:
        """All it wrote there."""
        return (self._temp / "stdout").read_text()

    @property
    def stderr(self) -> str:
        """All it wrote there."""
        return (self._temp / "stderr").read_text()

    @property
    def answer(self) -> dict[str, Any]:
        """The one JSON object on stdout."""
        answer: dict[str, Any] = json.loads(self.stdout)
        return answer

    def left_running(self) -> list[int]:
        """Processes of this command that are there."""
        return processes_marked(self._mark)

    def left_behind(self) -> list[Path]:
        """Temporary files of this command that are there."""
        return [*self._temp.glob("orchestrator-*"), *Path("/dev/shm").glob("deepspeed*")]

    def listened_on(self) -> set[str]:
        """Addresses that its processes listen on, whatever the port."""
        found = set()
        for pid in self.left_running():
            with contextlib.suppress(psutil.NoSuchProcess):
                sockets = psutil.Process(pid).net_connections("inet")
                found |= {one.laddr.ip for one in sockets if one.status == psutil.CONN_LISTEN}
        return {address.removeprefix("::ffff:") for address in found}

    def end(self) -> None:
        """End what it left."""
        for pid in self.left_running():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def close(self) -> None:
        """Forget what it wrote; end what it left."""
        self.end()
        for file in self._output.values():
            file.close()
        shutil.rmtree(self._temp)

    @property
    def folder(self) -> Path:
        """The folder of its one run."""
        (folder,) = (self.home / "runs").iterdir()
        return folder

    def records(self) -> list[Record]:
        """What its ranks have reported."""
        return list(records_in(self.folder / "records.jsonl"))

    def tracked(self, query: str) -> list[Any]:
        """Rows of MLflow's database; of a single column, its values."""
        with sqlite3.connect(self.home / "mlflow.db") as database:
            rows = database.execute(query).fetchall()
        database.close()
        return [row[0] if len(row) == 1 else row for row in rows]

    def artifacts(self) -> set[str]:
        """Names of the artifacts in MLflow."""
        (root,) = (self.home / "artifacts").glob("*/*/artifacts")
        return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}


def processes_marked(mark: str) -> list[int]:
    """Processes whose environment, or that of who started them, has a mark."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            variables = (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if f"{MARK}={mark}".encode() in variables:
            found.append(int(folder.name))
    return found


def write_users_job(folder: Path) -> Path:
    """Write a job with the user's own model and data beside it."""
    (folder / "users.py").write_text(USER_CODE)
    path = folder / "job.yaml"
    path.write_text(JOB)
    return path
