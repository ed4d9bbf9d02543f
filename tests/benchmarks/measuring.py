"""What measuring costs an ordinary step: measured and unmeasured steps in turn, in one run.

    make bench-measuring                                    two or three minutes
    make bench-measuring ARGS="--pairs 300 --write"         also keep the result under results/

Two real ranks train the ResNet of jobs/resnet_zero2.yaml under DeepSpeed. Every other step goes
through the meter and becomes a record as in a launch: clocks, counters, resident memory, the
sample and its JSON. The steps between do the same work without. Two figures come out: the median
ratio of neighbouring steps, since a machine's speed drifts; and, because a percent is less than
such a machine's noise, the processor time that measuring itself took, as a share of a step.
"""

import argparse
import json
import os
import platform
import statistics
import time
from functools import partial
from pathlib import Path

from tests.worker.ranks import run_ranks

ROOT = Path(__file__).resolve().parents[2]
JOB = ROOT / "jobs" / "resnet_zero2.yaml"
RESULTS = Path(__file__).parent / "results"
N_WARMUP = 8


def write_record(meter, *, rank, step, loss):
    """What a launch makes of a step: its cost, the record, and the record's JSON."""
    from orchestrator.measure.sample import RankSample
    from orchestrator.measure.sample_json import to_json

    cost = meter.leave()
    parts = {f"{part}_s": seconds for part, seconds in cost.part_s.items()}
    sample = RankSample(
        rank=rank, step=step, time_unix_s=time.time(), loss=loss, lr=1e-3, grad_norm=1.0,
        n_samples=32, n_tokens=None, step_s=cost.step_s, **parts, communication_s=None,
        checkpoint_s=None, skipped_steps=0, rss_peak_bytes=cost.rss_peak_bytes, probe=False,
        phase_peak_bytes=None, probed=None, resident=None, host_bytes=None, nvme_bytes=None,
        container_peak_bytes=cost.container_peak_bytes, cuda=None, gpu=None, model_flops=1e9,
        peak_flops_per_s=1e11,
    )  # fmt: skip
    json.dumps(to_json(sample))


def train_in_pairs(plan, place, *, put, n_pairs):
    """Train; tell the seconds of each measured step, of the one after it, and of measuring."""
    import torch

    from orchestrator.data.build import build_data
    from orchestrator.measure.sample import RankSpeed
    from orchestrator.models.build import build_model
    from orchestrator.worker.engines import build_engine
    from orchestrator.worker.loop import _cut, _on_device
    from orchestrator.worker.meter import Meter
    from orchestrator.worker.place import join_process_group

    device = torch.device("cpu")
    torch.set_num_threads(1)
    join_process_group(place, device=device, timeout_s=120)
    samples = build_data(plan.spec.data, folder=plan.folder).train
    engine = build_engine(plan, build_model(plan.spec.model, folder=plan.folder), device=device)
    n_steps = N_WARMUP + 2 * n_pairs
    # Its probes are the first steps, which are left out here.
    unknown = RankSpeed(
        rank=0,
        time_unix_s=0.0,
        model_flops=None,
        peak_flops_per_s=None,
        peak_source=None,
        batch_norm=None,
        draws_random=None,
    )
    meter = Meter(engine, total_steps=10**9, ignored=set(), find_speed=lambda *_: unknown)
    spent_s = 0.0

    def timed(function, *arguments):
        nonlocal spent_s
        before_s = time.process_time()
        function(*arguments)
        spent_s += time.process_time() - before_s

    def step(number, *, measured):
        mark = partial(timed, meter.enter) if measured else lambda _part: None
        if measured:
            timed(meter.begin, number)
        losses = []
        cut = _cut(plan, samples, step=number, rank=place.rank)
        for index, indices in enumerate(cut):
            mark("data")
            batch = _on_device(samples.batch(indices), engine)
            mark("forward")
            loss = engine.forward(batch)
            mark("backward")
            engine.backward(loss, last=index == len(cut) - 1)
            losses.append(loss.detach())
        mean_loss = sum(float(loss) for loss in losses) / len(losses)
        mark("optimizer")
        engine.step(lr=1e-3)
        if measured:
            timed(meter.end)
            timed(partial(write_record, meter, rank=place.rank, step=number, loss=mean_loss))

    for number in range(1, N_WARMUP + 1):
        step(number, measured=False)
    seconds: dict[bool, list[float]] = {True: [], False: []}
    for number in range(N_WARMUP + 1, n_steps + 1):
        measured = number % 2 == 0
        began_s = time.perf_counter()
        step(number, measured=measured)
        seconds[measured].append(time.perf_counter() - began_s)
    put((place.rank, seconds[True], seconds[False], spent_s / n_pairs))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--write", action="store_true", help="keep the result under results/")
    options = parser.parse_args()
    from orchestrator.launch.home import versions
    from orchestrator.plan.launch_plan import make_plan
    from orchestrator.plan.resources import Machine
    from orchestrator.spec.load import load_job

    machine = Machine(n_cpus=os.cpu_count() or 1, n_gpus=0, name="this machine")
    plan = make_plan(load_job(JOB), machine=machine)
    outcome = run_ranks(plan, work=partial(train_in_pairs, n_pairs=options.pairs), timeout_s=1200)
    assert not outcome.errors, outcome.errors
    ranks = []
    for rank, measured, unmeasured, spent_s in sorted(outcome.records):
        ratios = [one / other for one, other in zip(measured, unmeasured, strict=True)]
        step_s = statistics.median(unmeasured)
        ranks.append(
            {
                "rank": rank,
                "step_s": step_s,
                "measured_step_s": statistics.median(measured),
                "median_pair_ratio": statistics.median(ratios),
                "measuring_cpu_s": spent_s,
                "measuring_share": spent_s / step_s,
            }
        )
        print(
            f"rank {rank}: step {step_s * 1e3:.1f} ms unmeasured, "
            f"{statistics.median(measured) * 1e3:.1f} ms measured, median of the pairs' ratios "
            f"{ranks[-1]['median_pair_ratio']:.4f}; measuring takes {spent_s * 1e6:.0f} us of CPU, "
            f"{spent_s / step_s:.3%} of a step (to reach: 1 %)"
        )
    if options.write:
        date = time.strftime("%Y-%m-%d")
        result = {
            "date": date,
            "machine": f"{os.cpu_count()} cores, {platform.machine()}, CPU only",
            "versions": versions(),
            "job": JOB.name,
            "pairs": options.pairs,
            "ranks": ranks,
        }
        path = RESULTS / f"measuring-{date}.json"
        path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
        print(f"written to {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
