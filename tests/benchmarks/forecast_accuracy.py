"""How near forecasts come to what real ranks hold: each rank and phase of every strategy.

    make bench-forecast                                   the whole matrix, about twenty minutes
    make bench-forecast ARGS="--quick"                    six configurations; nothing is written
    make bench-forecast ARGS="--resume /tmp/receipts"     keep receipts there, go on from them
    make bench-forecast ARGS="--readme"                   also put the short table into the README

Four models, ZeRO stages 0 to 3, offload to the host or none, with and without activation
checkpointing, one micro-batch a step or four. Each is forecast twice, by a shadow run of each rank
and by the closed form with the model's profile, and then trained for three steps by two real ranks
that meet over gloo; step 2 is the memory probe. A forecast never sees the run it is held against.

The exit code is 1 when the shadow runs miss what is to be reached, or a configuration gave nothing.
"""

import argparse
import hashlib
import json
import os
import platform
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, TypeVar

from orchestrator.errors import OrchestratorError
from orchestrator.forecast.accuracy import (
    NOTICED_RATIO,
    AccuracyRow,
    accuracy,
    accuracy_markdown,
    as_percent,
    nearest_rank,
)
from orchestrator.forecast.allocator_settings import AllocatorSettings
from orchestrator.forecast.closed_form import closed_form
from orchestrator.forecast.comparison import worst_category
from orchestrator.forecast.profile import ModelProfile
from orchestrator.forecast.receipts import (
    Method,
    Receipt,
    error_ratio,
    load_receipts,
    store_receipt,
)
from orchestrator.forecast.shadow_result import ShadowResult
from orchestrator.launch.compiled_ops import has_compiler, make_ready
from orchestrator.launch.home import versions
from orchestrator.launch.preflight import examine
from orchestrator.launch.shadows import Shadows
from orchestrator.measure.ledger import Ledger
from orchestrator.measure.sample import PHASES
from orchestrator.plan.forecast_setup import setup_of
from orchestrator.plan.launch_plan import LaunchPlan, make_plan
from orchestrator.spec.load import JobFile
from orchestrator.units import MIB, as_duration
from orchestrator.worker.shadow.requests import ProfileRequest, Request, ShadowRequest
from tests.small_jobs import MACHINE, write_job
from tests.worker.ranks import EXTENSIONS, Outcome, run_ranks

ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path(__file__).parent / "results"
README = ROOT / "README.md"
MARKS = ("<!-- forecast accuracy: made by make bench-forecast -->", "<!-- end -->")

MEDIAN_RATIO, WORST_RATIO = 0.005, 0.02
"""To be reached over all phases; and no forecast may be under by more than NOTICED_RATIO."""

Item = TypeVar("Item")

N_RANKS = 2
SHADOWS_AT_ONCE = 2
CONFIGURATIONS_A_BATCH = 16
"""Whose shadows are asked for together; real runs of a batch follow."""
METHODS: tuple[Method, ...] = ("shadow", "closed_form")


# What is forecast and run.


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A model, its data, and where its factory lies."""

    model: dict[str, Any]
    data: dict[str, Any]
    micro_batch_size: int
    folder: Path = ROOT


IMAGES = {"source": "synthetic", "kind": "images", "n_samples": 256, "n_eval_samples": 16}
TOKENS = {"source": "synthetic", "kind": "tokens", "n_samples": 256, "n_eval_samples": 16}
SUBJECTS = {
    "gpt2": Subject(
        model={"family": "gpt2", "config": {"n_embd": 128, "n_layer": 4, "n_head": 4}},
        data={**TOKENS, "sequence_length": 128},
        micro_batch_size=4,
    ),
    "resnet": Subject(
        model={
            "family": "resnet",
            "config": {
                "embedding_size": 32,
                "hidden_sizes": [64, 128, 256],
                "depths": [1, 1, 1],
            },
        },
        data={**IMAGES, "image_size": 32},
        micro_batch_size=8,
    ),
    "vit": Subject(
        model={
            "factory": "vit_factory:build_model",
            "config": {
                "image_size": 32,
                "patch_size": 4,
                "hidden_size": 128,
                "n_layers": 4,
                "n_heads": 4,
            },
        },
        data={**IMAGES, "image_size": 32},
        micro_batch_size=8,
        folder=Path(__file__).parent,
    ),
    "mlp": Subject(
        model={"factory": "factories:build_model", "config": {"width": 64, "depth": 4}},
        data={"factory": "factories:build_data", "config": {"n_samples": 512, "noise": 0.05}},
        micro_batch_size=32,
        folder=ROOT / "jobs",
    ),
}
"""Sizes as in `jobs/`; the ViT is as large as its GPT-2."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """One job of the matrix."""

    subject: str
    zero: dict[str, Any]
    checkpointing: bool
    accumulation_steps: int

    @property
    def name(self) -> str:
        """Also the key of its receipts."""
        parts = [self.subject, f"zero{self.zero['stage']}"]
        parts += [
            f"{what}-cpu" for what in ("optimizer", "params") if f"offload_{what}" in self.zero
        ]
        parts += ["ckpt"] if self.checkpointing else []
        return "-".join([*parts, f"acc{self.accumulation_steps}"])


ON_HOST = {"offload_optimizer": "cpu"}
STRATEGIES: tuple[dict[str, Any], ...] = (
    *({"stage": stage} for stage in (0, 1, 2, 3)),
    *({"stage": stage, **ON_HOST} for stage in (1, 2, 3)),
    {"stage": 3, **ON_HOST, "offload_params": "cpu"},
)
MATRIX = tuple(
    Configuration(
        subject=subject, zero=zero, checkpointing=checkpointing, accumulation_steps=accumulation
    )
    for subject, zero, checkpointing, accumulation in product(
        SUBJECTS, STRATEGIES, (False, True), (1, 4)
    )
)
QUICK = (
    "gpt2-zero0-acc1",
    "gpt2-zero3-optimizer-cpu-params-cpu-ckpt-acc4",
    "resnet-zero2-acc4",
    "vit-zero1-optimizer-cpu-ckpt-acc1",
    "vit-zero3-acc4",
    "mlp-zero3-ckpt-acc1",
)


class Planner:
    """Makes plans; a factory's parameters are counted once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._cpu_adam = has_compiler(os.environ)
        self._counted: dict[str, int] = {}

    def plan(self, configuration: Configuration) -> LaunchPlan:
        subject = SUBJECTS[configuration.subject]
        training = {
            "steps": 3,
            "micro_batch_size": subject.micro_batch_size,
            "gradient_accumulation_steps": configuration.accumulation_steps,
            "global_batch_size": (
                subject.micro_batch_size * configuration.accumulation_steps * N_RANKS
            ),
            "activation_checkpointing": configuration.checkpointing,
        }
        job = write_job(
            self._folder,
            name=configuration.subject,
            model=subject.model,
            data=subject.data,
            training=training,
            zero=configuration.zero,
            resources={"workers": N_RANKS, "device": "cpu"},
        )
        # A factory is looked for beside its job.
        job = replace(job, path=subject.folder / "job.yaml")
        n_params = (
            self._n_params(configuration.subject, job) if "factory" in subject.model else None
        )
        return make_plan(job, machine=MACHINE, cpu_adam=self._cpu_adam, n_params=n_params)

    def _n_params(self, subject: str, job: JobFile) -> int:
        if subject not in self._counted:
            self._counted[subject] = examine(job, environment=os.environ).n_params
        return self._counted[subject]


# Forecasts and runs.


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What one rank holds, as one side tells it."""

    phases: dict[str, Ledger]
    host_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A configuration that gave nothing, or nothing by a method."""

    name: str
    reason: str


def by_configuration(failures: Iterable[Failure]) -> list[Failure]:
    """One for each configuration, with all its reasons."""
    reasons: dict[str, list[str]] = {}
    for one in failures:
        reasons.setdefault(one.name, []).append(one.reason)
    return [Failure(name=name, reason="; ".join(told)) for name, told in reasons.items()]


Forecasts = dict[Method, list[Held]]
"""Method -> of each rank."""


def ask(
    shadows: Shadows, plans: dict[str, LaunchPlan]
) -> Iterator[tuple[str, Forecasts | Failure]]:
    """Forecast plans; a method that fails is told and left out."""
    requests: list[Request] = []
    for plan in plans.values():
        requests.append(ProfileRequest(plan=plan))
        requests += [
            ShadowRequest(plan=plan, rank=rank, sample=None, allocator=AllocatorSettings())
            for rank in range(N_RANKS)
        ]
    answers = cut(shadows.ask(requests), 1 + N_RANKS)
    for (name, plan), (profile, *shadowed) in zip(plans.items(), answers, strict=True):
        forecasts: Forecasts = {}
        by_shadow = [one for one in shadowed if isinstance(one, ShadowResult)]
        if len(by_shadow) == N_RANKS:
            forecasts["shadow"] = [
                Held(phases=one.peak_ledgers, host_bytes=sum(one.host_ledger.values()))
                for one in by_shadow
            ]
        else:
            reason = next(one for one in shadowed if isinstance(one, str))
            yield name, Failure(name=name, reason=f"shadow run: {reason}")
        if isinstance(profile, ModelProfile):
            forecasts["closed_form"] = [
                by_arithmetic(plan, profile, rank) for rank in range(N_RANKS)
            ]
        else:
            yield name, Failure(name=name, reason=f"profile of the model: {profile}")
        yield name, forecasts


def cut(items: Sequence[Item], n: int) -> list[Sequence[Item]]:
    """In pieces of n."""
    return [items[first : first + n] for first in range(0, len(items), n)]


def by_arithmetic(plan: LaunchPlan, profile: ModelProfile, rank: int) -> Held:
    made = closed_form(setup_of(plan), profile=profile, rank=rank)
    return Held(phases=made.phase_ledgers, host_bytes=sum(made.host_ledger.values()))


def run_really(name: str, plan: LaunchPlan) -> list[Held] | Failure:
    """Train for three steps; what each rank held, or why that is not known."""
    make_ready(plan.compiled_ops, folder=EXTENSIONS, environment=os.environ, show=print)
    try:
        outcome = run_ranks(plan, work=silent_rank)
    except TimeoutError as err:
        return Failure(name=name, reason=f"real run: {err}")
    if outcome.errors:
        rank, last = next(iter(outcome.last_errors().items()))
        return Failure(name=name, reason=f"real run: rank {rank}: {last}")
    return [measured(outcome, rank) for rank in range(N_RANKS)]


def silent_rank(plan, place, *, put):
    """A rank as in a launch, whose libraries' words do not stand between the progress lines."""
    from orchestrator.worker.rank import run_rank

    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    run_rank(plan, place, put=put, timeout_s=60)


def measured(outcome: Outcome, rank: int) -> Held:
    init = outcome.facts(rank).init_peak_ledger
    assert init is not None, "a CPU rank traces its construction"
    probed = outcome.probed(rank)
    return Held(
        phases={"init": init, **probed.peak_ledgers},
        host_bytes=sum(probed.host_ledger.values()),
    )


def receipt_of(
    configuration: Configuration,
    plan: LaunchPlan,
    *,
    method: Method,
    rank: int,
    forecast: Held,
    seen: Held,
) -> Receipt:
    zero, batch = plan.spec.zero, plan.batch
    return Receipt(
        run_key=configuration.name,
        time_unix_s=time.time(),
        strategy=plan.strategy,
        stage=zero.stage,
        offload_optimizer=zero.offload_optimizer,
        offload_params=zero.offload_params,
        precision=plan.spec.training.precision,
        activation_checkpointing=configuration.checkpointing,
        workers=batch.workers,
        micro_batch_size=batch.micro_batch_size,
        accumulation_steps=batch.accumulation_steps,
        device="cpu",
        model=configuration.subject,
        method=method,
        versions=versions(),
        rank=rank,
        forecast=forecast.phases,
        measured=seen.phases,
        forecast_host_bytes=forecast.host_bytes,
        measured_host_bytes=seen.host_bytes,
        forecast_nvme_bytes=None,
        measured_nvme_bytes=None,
        forecast_reserved_bytes=None,
        measured_reserved_bytes=None,
        forecast_device_bytes=None,
        measured_device_bytes=None,
        forecast_step_s=None,
        measured_step_s=None,
    )


# What is kept between two starts.


class Kept:
    """Receipts, in memory and, where a folder was named, in it.

    Args:
        folder: `None` keeps nothing beyond this process.

    Raises:
        SystemExit: what lies there was made by other code.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._receipts: dict[Method, dict[tuple[str, int], Receipt]] = {m: {} for m in METHODS}
        if folder is None:
            return
        made_by, path = code_and_versions(), folder / "made_by.txt"
        if path.exists() and path.read_text(encoding="utf-8") != made_by:
            raise SystemExit(
                f"{folder}: its receipts are of other code or versions; remove it or name another"
            )
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(made_by, encoding="utf-8")
        for method in METHODS:
            for receipt in load_receipts(folder / method).kept:
                self._receipts[method][receipt.run_key, receipt.rank] = receipt

    def add(self, receipt: Receipt) -> None:
        self._receipts[receipt.method][receipt.run_key, receipt.rank] = receipt
        if self._folder is not None:
            store_receipt(self._folder / receipt.method, receipt)

    def has(self, name: str) -> bool:
        """Whether a configuration is complete."""
        return all((name, rank) in self._receipts[m] for m in METHODS for rank in range(N_RANKS))

    def of(self, method: Method, names: Sequence[str]) -> list[Receipt]:
        """In the order of the names."""
        known = self._receipts[method]
        return [known[n, r] for n in names for r in range(N_RANKS) if (n, r) in known]


def code_and_versions() -> str:
    """Names all that a receipt of this benchmark depends on."""
    files = [
        *sorted((ROOT / "orchestrator").rglob("*.py")),
        Path(__file__).with_name("vit_factory.py"),
        ROOT / "jobs" / "factories.py",
    ]
    content = hashlib.sha256(repr(SUBJECTS).encode())
    for path in files:
        content.update(path.read_bytes())
    return f"{content.hexdigest()} {json.dumps(versions(), sort_keys=True)}\n"


@dataclass(slots=True)
class Spent:
    """Seconds of this start."""

    forecasts_s: float = 0.0
    runs_s: float = 0.0
    n_runs: int = 0


def work(configurations: Sequence[Configuration], *, kept: Kept, spent: Spent) -> Iterator[Failure]:
    """Forecast and run what has no receipts yet, telling the progress; failures come out."""
    missing = [one for one in configurations if not kept.has(one.name)]
    n_done = len(configurations) - len(missing)
    if n_done:
        print(f"{n_done} of {len(configurations)} configurations are kept from before")
    environment = {**os.environ, "TORCH_EXTENSIONS_DIR": str(EXTENSIONS)}
    shadows = Shadows(cache=None, environment=environment, at_once=SHADOWS_AT_ONCE)
    with tempfile.TemporaryDirectory() as folder:
        planner = Planner(Path(folder))
        for batch in cut(missing, CONFIGURATIONS_A_BATCH):
            plans: dict[str, LaunchPlan] = {}
            for one in batch:
                try:
                    plans[one.name] = planner.plan(one)
                except OrchestratorError as err:
                    yield Failure(name=one.name, reason=f"plan: {err}")
            began_s = time.perf_counter()
            forecasts: dict[str, Forecasts] = {}
            for name, answer in ask(shadows, plans):
                if isinstance(answer, Failure):
                    yield answer
                elif answer:
                    forecasts[name] = answer
            took_s = time.perf_counter() - began_s
            spent.forecasts_s += took_s
            print(f"{len(forecasts)} configurations forecast in {as_duration(took_s)}", flush=True)
            for one in batch:
                n_done += 1
                if one.name not in forecasts:
                    continue
                began_s = time.perf_counter()
                seen = run_really(one.name, plans[one.name])
                took_s = time.perf_counter() - began_s
                spent.runs_s += took_s
                spent.n_runs += 1
                count = f"[{n_done:3d}/{len(configurations)}] {one.name}: {as_duration(took_s)}"
                if isinstance(seen, Failure):
                    print(f"{count}, {seen.reason}", flush=True)
                    yield seen
                    continue
                for method, by_rank in forecasts[one.name].items():
                    for rank, forecast in enumerate(by_rank):
                        kept.add(
                            receipt_of(
                                one, plans[one.name],
                                method=method, rank=rank, forecast=forecast, seen=seen[rank],
                            )
                        )  # fmt: skip
                print(f"{count}; {worst_of(kept, one.name)}", flush=True)


def worst_of(kept: Kept, name: str) -> str:
    told = []
    for method in METHODS:
        rows = accuracy(kept.of(method, [name]), by=())
        if rows:
            worst = rows[-1].worst
            where = f"rank {worst.rank}, {worst.phase}"
            told.append(f"{method.replace('_', ' ')} {as_percent(worst.error_ratio)} ({where})")
    return ", ".join(told)


# What is told.


def phases_row(receipts: Sequence[Receipt]) -> AccuracyRow | None:
    """Over all phases of all receipts."""
    rows = accuracy(receipts, by=())
    return rows[-1] if rows else None


def at_phase(receipt: Receipt, phase: str) -> Receipt:
    """The receipt with one phase only."""
    return replace(
        receipt,
        forecast={phase: receipt.forecast[phase]},
        measured={phase: receipt.measured[phase]},
    )


def misses(shadow: Sequence[Receipt]) -> list[str]:
    """What was to be reached and is not."""
    row = phases_row(shadow)
    if row is None:
        return ["nothing was measured"]
    found = []
    if row.median_ratio > MEDIAN_RATIO:
        found.append(f"the median error is {row.median_ratio:.2%}, over {MEDIAN_RATIO:.1%}")
    if abs(row.worst.error_ratio) > WORST_RATIO:
        found.append(f"the worst is {as_percent(row.worst.error_ratio)}, over {WORST_RATIO:.0%}")
    if row.noticed_under_ratio:
        found.append(f"{row.noticed_under_ratio:.1%} are under by more than {NOTICED_RATIO:.0%}")
    return found


def far_off(shadow: Sequence[Receipt]) -> list[str]:
    """A line for each phase of each rank that is not as near as it should be."""
    return [
        f"{receipt.run_key}, rank {receipt.rank}, {phase}: {as_percent(ratio)}; "
        f"{worst_category(at_phase(receipt, phase))}"
        for receipt in shadow
        for phase, ratio in receipt.phase_error_ratios().items()
        if abs(ratio) > WORST_RATIO or ratio < -NOTICED_RATIO
    ]


def by_phase(receipts: Sequence[Receipt]) -> str:
    rows = []
    for phase in PHASES:
        one = phases_row([at_phase(receipt, phase) for receipt in receipts])
        rows += [] if one is None else [replace(one, group={"phase": phase})]
    return accuracy_markdown(rows)


def host_line(receipts: Sequence[Receipt]) -> str:
    errors = [
        abs(ratio)
        for one in receipts
        if (
            ratio := error_ratio(
                one.forecast_host_bytes or 0, measured=one.measured_host_bytes or 0
            )
        )
        is not None
    ]
    if not errors:
        return "Nothing was offloaded to the host."
    return (
        f"Offloaded tensors in host memory, {len(errors):,} ranks: median error "
        f"{nearest_rank(errors, percent=50):.2%}, worst {max(errors):.2%}."
    )


def all_of_them(shadow: Sequence[Receipt], closed: Sequence[Receipt]) -> str:
    """A line a configuration: the error of its worst rank in each phase."""
    head = f"| configuration | peak MiB | {' | '.join(PHASES)} | closed form, worst phase |"
    lines = [head, "|---|---:|" + "---:|" * len(PHASES) + "---:|"]
    for name in dict.fromkeys(one.run_key for one in (*shadow, *closed)):
        ranks = [one for one in shadow if one.run_key == name]
        errors = [one.phase_error_ratios() for one in ranks]
        cells = [
            as_percent(max((e[phase] for e in errors if phase in e), key=abs, default=None))
            for phase in PHASES
        ]
        beside = phases_row([one for one in closed if one.run_key == name])
        peaks = [one.peak_bytes[1] for one in ranks if one.peak_bytes is not None]
        peak = f"{max(peaks) / MIB:,.2f}" if peaks else "-"
        worst = None if beside is None else beside.worst.error_ratio
        lines.append(f"| {name} | {peak} | {' | '.join(cells)} | {as_percent(worst)} |")
    return "\n".join(lines)


def machine() -> str:
    return f"{os.cpu_count()} cores, {platform.machine()}, CPU only"


def short_table(shadow: Sequence[Receipt], closed: Sequence[Receipt], *, date: str) -> str:
    """For the README: a line a stage and offload, both methods side by side."""
    lines = [
        "| stage | offload | phases | median | P95 | worst | under | under by > 1 % "
        "| closed form: median | P95 | worst |",
        "|---:|---|" + "---:|" * 9,
    ]
    beside = {tuple(row.group.values()): row for row in _phase_rows(closed)}
    for row in _phase_rows(shadow):
        stage, offload = row.group.values() if row.group else ("all", "")
        cells = [
            stage, offload, f"{row.n:,}", *_errors(row),
            f"{row.under_ratio:.0%}".replace("%", " %"),
            f"{row.noticed_under_ratio:.0%}".replace("%", " %"),
            *_errors(beside.get(tuple(row.group.values()))),
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    made = versions()
    note = (
        f"{len({one.run_key for one in shadow})} configurations of {', '.join(SUBJECTS)}, "
        f"{N_RANKS} ranks each; every rank's init, forward, backward and step. {date}, "
        f"{machine()}, torch {made['torch']}, deepspeed {made['deepspeed']}."
    )
    return "\n".join([*lines, "", note])


def _phase_rows(receipts: Sequence[Receipt]) -> list[AccuracyRow]:
    return [row for row in accuracy(receipts, by=("stage", "offload")) if row.observed == "phase"]


def _errors(row: AccuracyRow | None) -> list[str]:
    if row is None:
        return ["-"] * 3
    ratios = (row.median_ratio, row.p95_ratio, row.worst.error_ratio)
    *sizes, worst = (f"{ratio * 100:+.3f} %" for ratio in ratios)
    return [*(size.removeprefix("+") for size in sizes), worst]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All that came out."""

    date: str
    n_asked: int
    shadow: list[Receipt]
    closed: list[Receipt]
    failures: list[Failure]
    spent: Spent

    def markdown(self) -> str:
        missed = misses(self.shadow)
        far, failed = far_off(self.shadow), [f"{one.name}: {one.reason}" for one in self.failures]
        blocks = [
            "# Forecasts against real runs",
            *self._circumstances(),
            "To be reached by shadow runs over all phases: median error at most "
            f"{MEDIAN_RATIO:.1%}, worst at most {WORST_RATIO:.0%}, never under by more than "
            f"{NOTICED_RATIO:.0%}. "
            + (f"**Missed:** {'; '.join(missed)}." if missed else "**Reached.**"),
            "Errors are forecast less measured, as a share of measured; percentiles are by nearest "
            "rank over absolute errors.",
            "## In short", short_table(self.shadow, self.closed, date=self.date),
            "## Shadow runs", accuracy_markdown(accuracy(self.shadow, by=("stage", "offload"))),
            accuracy_markdown(accuracy(self.shadow, by=("model",))), by_phase(self.shadow),
            host_line(self.shadow),
            "## Closed form, with the model's profile",
            accuracy_markdown(accuracy(self.closed, by=("method", "stage", "offload"))),
            accuracy_markdown(accuracy(self.closed, by=("model",))), by_phase(self.closed),
            host_line(self.closed),
            f"## Shadow runs further off than {WORST_RATIO:.0%}, or under by more than "
            f"{NOTICED_RATIO:.0%}", listed(far),
            "## Failed configurations", listed(failed),
            "## Every configuration", "The error of the worst rank in each phase.",
            all_of_them(self.shadow, self.closed),
        ]  # fmt: skip
        return "\n\n".join(blocks) + "\n"

    def _circumstances(self) -> Iterator[str]:
        yield (
            f"{self.date}, {machine()}: "
            f"{', '.join(f'{name} {version}' for name, version in versions().items())}."
        )
        n_observed = sum(len(one.phase_error_ratios()) for one in self.shadow)
        yield (
            f"{self.n_asked} configurations of {N_RANKS} gloo ranks, {len(self.failures)} of them "
            f"failed; {len(self.shadow)} ranks and {n_observed:,} phases compared. This start: "
            f"{self.spent.n_runs} real runs in {as_duration(self.spent.runs_s)}, forecasts in "
            f"{as_duration(self.spent.forecasts_s)}."
        )


def listed(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines) or "None."


def put_into_readme(table: str) -> None:
    """Replace what lies between the two marks."""
    before, start, rest = README.read_text(encoding="utf-8").partition(MARKS[0])
    _, end, after = rest.partition(MARKS[1])
    README.write_text(f"{before}{start}\n\n{table}\n\n{end}{after}", encoding="utf-8")


def readme_has_marks() -> bool:
    _, start, rest = README.read_text(encoding="utf-8").partition(MARKS[0])
    return bool(start) and MARKS[1] in rest


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="six configurations, nothing written")
    parser.add_argument(
        "--resume", type=Path, metavar="FOLDER", help="keep receipts there, and go on from them"
    )
    parser.add_argument("--readme", action="store_true", help="put the short table into README.md")
    options = parser.parse_args()
    if options.readme and options.quick:
        parser.error("--readme needs the whole matrix, without --quick")
    if options.readme and not readme_has_marks():
        parser.error(f"README.md has not the two lines {MARKS[0]} and {MARKS[1]}")
    chosen = [one for one in MATRIX if not options.quick or one.name in QUICK]
    kept, spent = Kept(options.resume), Spent()
    failures = by_configuration(work(chosen, kept=kept, spent=spent))
    names = [one.name for one in chosen]
    date = time.strftime("%Y-%m-%d")
    report = Report(
        date=date,
        n_asked=len(chosen),
        shadow=kept.of("shadow", names),
        closed=kept.of("closed_form", names),
        failures=failures,
        spent=spent,
    )
    print()
    if options.quick:
        print(report.markdown())
    else:
        path = RESULTS / f"forecast_accuracy-{date}.md"
        path.write_text(report.markdown(), encoding="utf-8")
        table = short_table(report.shadow, report.closed, date=date)
        print(f"{table}\n\nwritten to {path.relative_to(ROOT)}")
        if options.readme:
            put_into_readme(table)
    missed = misses(report.shadow)
    if failures:
        missed.append(f"{len(failures)} configurations failed")
    if missed:
        raise SystemExit("missed: " + "; ".join(missed))


if __name__ == "__main__":
    main()
