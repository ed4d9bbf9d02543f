"""Shadow runs and profiles in processes of their own, and what is kept of them.

Touches the state folder: an answer is kept by the content of its question (plan, versions, user
code), so that the same question is answered at once the next time.
"""

import contextlib
import hashlib
import json
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from orchestrator.forecast.profile import ModelProfile
from orchestrator.forecast.shadow_result import ShadowResult, differences
from orchestrator.launch.home import own_code, versions
from orchestrator.plan.launch_plan import LaunchPlan
from orchestrator.spec.data import FactoryData
from orchestrator.spec.model import FactoryModel
from orchestrator.worker.shadow.requests import (
    ProfileRequest,
    Request,
    SelfTestRequest,
)

TIMEOUT_S = 900.0
"""For all requests of one call."""
_MOST_FILES = 500
_DEEPEST = 4
"""Folders below the job's, or the current one, in which the user's modules are looked for."""


class Shadows:
    """Answers requests, from what is kept or by running them.

    Args:
        cache: folder of kept answers; `None` keeps nothing.
        environment: of the processes.
        at_once: how many run at the same time.
    """

    def __init__(
        self, *, cache: Path | None, environment: Mapping[str, str], at_once: int = 2
    ) -> None:
        self._cache = cache
        self._environment = environment
        self._at_once = at_once

    def ask(self, requests: Sequence[Request]) -> list[ShadowResult | ModelProfile | str]:
        """Answer requests, those that must be run side by side in one process.

        Returns:
            For each its result, or in a line why there is none.
        """
        return [
            _read(answer, request)
            for request, answer in zip(requests, self._ask(requests), strict=True)
        ]

    def _ask(self, requests: Sequence[Request]) -> list[dict[str, Any]]:
        keys = [self._key(request) for request in requests]
        answers = {key: kept for key in keys if (kept := self._kept(key)) is not None}
        missing = {
            key: request for key, request in zip(keys, requests, strict=True) if key not in answers
        }
        if missing:
            for key, answer in zip(missing, self._run(list(missing.values())), strict=True):
                answers[key] = answer
                self._keep(key, answer)
        return [answers[key] for key in keys]

    def _run(self, requests: Sequence[Request]) -> list[dict[str, Any]]:
        # A session of its own, so that Ctrl-C reaches it once: through us.
        with subprocess.Popen(
            [sys.executable, "-m", "orchestrator.worker.shadow", str(self._at_once)],
            env={**self._environment, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        ) as process:
            try:
                out, err = process.communicate(pickle.dumps(list(requests)), timeout=TIMEOUT_S)
            except BaseException as error:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                if not isinstance(error, subprocess.TimeoutExpired):
                    raise
                out, err = process.communicate()
                err += f"\nit took over {TIMEOUT_S:.0f} s".encode()
        if process.returncode:
            # It was killed; what it had started does not end by itself.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        told = dict(_whole_lines(out))
        last = (err.decode(errors="replace").strip().splitlines() or [""])[-1][:200]
        problem = f"it gave no answer: {last}"
        if process.returncode < 0:
            problem = f"its process was killed ({signal.strsignal(-process.returncode)})"
        none: dict[str, Any] = {"problem": problem}
        return [told.get(number, none) for number in range(len(requests))]

    def _key(self, request: Request) -> str:
        question = {"request": _question(request), "versions": versions(), "code": own_code()}
        text = json.dumps(question, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def _kept(self, key: str) -> dict[str, Any] | None:
        if self._cache is None:
            return None
        try:
            kept: dict[str, Any] = json.loads((self._cache / f"{key}.json").read_text("utf-8"))
        except (OSError, ValueError):
            return None
        return kept

    def _keep(self, key: str, answer: dict[str, Any]) -> None:
        """Keep what was found; a failure may have been the machine's, and is tried again."""
        if self._cache is None or "done" not in answer:
            return
        path = self._cache / f"{key}.json"
        with contextlib.suppress(OSError):
            self._cache.mkdir(parents=True, exist_ok=True)
            beside = path.with_suffix(f".{os.getpid()}.tmp")
            beside.write_text(json.dumps(answer), encoding="utf-8")
            beside.replace(path)


def _whole_lines(out: bytes) -> Iterator[tuple[int, dict[str, Any]]]:
    """The answers that were written to their end."""
    for line in out.splitlines(keepends=True):
        if line.endswith(b"\n"):
            number, answer = json.loads(line)
            yield number, answer


def self_test(*, stage: int, precision: str) -> tuple[SelfTestRequest, SelfTestRequest]:
    """The two requests whose answers say whether the shim holds (`broken_shim`)."""
    fake, real = (
        SelfTestRequest(stage=stage, precision=precision, fake=is_fake) for is_fake in (True, False)
    )
    return fake, real


def broken_shim(fake: object, real: object) -> str | None:
    """Where fake tensors tell something else than real ones; `None` when they agree.

    Args:
        fake: the answers to the two requests of `self_test`.
        real: likewise.
    """
    if isinstance(fake, ShadowResult) and isinstance(real, ShadowResult):
        found = differences(fake, real)
        return found[0] if found else None
    return str(fake if isinstance(fake, str) else real)


def _read(answer: dict[str, Any], request: Request) -> ShadowResult | ModelProfile | str:
    if "done" not in answer:
        return str(answer["problem"])
    if isinstance(request, ProfileRequest):
        return ModelProfile.from_json(answer["done"])
    return ShadowResult.from_json(answer["done"])


# What a forecast does not depend on.
_IDLE_TRAINING = {
    "steps", "epochs", "seed", "schedule", "eval_every_steps", "global_batch_size",
    "micro_batch_size", "gradient_accumulation_steps",
}  # fmt: skip


def _question(request: Request) -> dict[str, Any]:
    """All that an answer depends on."""
    if isinstance(request, SelfTestRequest):
        return {"self-test": asdict(request)}
    plan = request.plan
    spec = plan.spec.model_dump(mode="json", include={"model", "data", "training", "zero"})
    spec["training"] = {k: v for k, v in spec["training"].items() if k not in _IDLE_TRAINING}
    spec["training"]["optimizer"].pop("lr")
    question: dict[str, Any] = {
        "kind": type(request).__name__,
        "spec": spec,
        "user_code": user_code(plan),
        "batch": asdict(plan.batch),
        "device": plan.resources.device,
    }
    if isinstance(request, ProfileRequest):
        question["batch"] = {"micro_batch_size": plan.batch.micro_batch_size}
        del question["spec"]["zero"]
        return question
    return question | {
        "rank": request.rank,
        "sample": request.sample,
        "threads": max(1, int(plan.resources.cpus_per_worker)),
        "deepspeed": _without_lr(plan.deepspeed),
        "compiled_ops": plan.compiled_ops,
        "allocator": asdict(request.allocator),
    }


def _without_lr(config: dict[str, Any] | None) -> dict[str, Any] | None:
    if config is None or "params" not in config.get("optimizer", {}):
        return config
    params = {key: value for key, value in config["optimizer"]["params"].items() if key != "lr"}
    return {**config, "optimizer": {**config["optimizer"], "params": params}}


def user_code(plan: LaunchPlan) -> list[dict[str, str]]:
    """Name -> content hash of the user's modules, which a factory may import, by folder."""
    if not _has_user_code(plan):
        return []
    return [_hashes(plan, plan.folder), _hashes(plan, Path.cwd())]


def user_modules(plan: LaunchPlan, folder: Path) -> list[Path]:
    """The modules in a folder and in those below it, the nearest first; none without a factory."""
    if not _has_user_code(plan):
        return []
    found: list[tuple[int, Path]] = []
    for name, below, files in os.walk(folder):
        here = Path(name)
        depth = len(here.relative_to(folder).parts)
        below[:] = sorted(_modules_may_lie_in(below)) if depth < _DEEPEST else []
        found += ((depth, here / file) for file in sorted(files) if file.endswith(".py"))
        if len(found) > 10 * _MOST_FILES:
            break
    return [path for _, path in sorted(found)[:_MOST_FILES]]


def _has_user_code(plan: LaunchPlan) -> bool:
    sections = (plan.spec.model, plan.spec.data)
    return any(isinstance(section, FactoryModel | FactoryData) for section in sections)


def _hashes(plan: LaunchPlan, folder: Path) -> dict[str, str]:
    hashes = {}
    for path in user_modules(plan, folder):
        # An editor's lock, such as a link that leads nowhere, is no module.
        with contextlib.suppress(OSError):
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            hashes[str(path.relative_to(folder))] = content
    return hashes


def _modules_may_lie_in(folders: Sequence[str]) -> Iterator[str]:
    return (name for name in folders if name.isidentifier() and name != "__pycache__")
