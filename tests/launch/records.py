"""What ranks tell, made up."""

from typing import Any

from orchestrator.measure.sample import EvalResult, RankDone, RankFacts, RankSample

MIB = 2**20


def facts(rank: int = 0, *, world_size: int = 2, **changes: Any) -> RankFacts:
    values: dict[str, Any] = {
        "rank": rank,
        "world_size": world_size,
        "node": "node-a",
        "device": "cpu",
        "pid": 100 + rank,
        "time_unix_s": 1000.0,
        "n_params": 50,
        "total_steps": 4,
        "n_train_samples": 1442,
        "n_eval_samples": 355,
        "startup_s": {"imports": 3.0},
        "init_peak_bytes": MIB,
        "init_peak_ledger": None,
        "init_edge_ledger": None,
        "init_rss_peak_bytes": None,
        "init_pss_bytes": None,
        "exact_rss": False,
    }
    return RankFacts(**{**values, **changes})


def sample(rank: int = 0, *, step: int = 1, **changes: Any) -> RankSample:
    values: dict[str, Any] = {
        "rank": rank,
        "step": step,
        "time_unix_s": 1000.0 + step,
        "loss": 2.0,
        "lr": 0.1,
        "grad_norm": 0.5,
        "n_samples": 8,
        "n_tokens": None,
        "step_s": 0.5,
        "data_s": 0.05,
        "forward_s": 0.1,
        "backward_s": 0.2,
        "optimizer_s": 0.1,
        "communication_s": None,
        "logging_s": 0.03,
        "checkpoint_s": None,
        "skipped_steps": 0,
        "rss_peak_bytes": 300 * MIB,
        "probe": False,
        "phase_peak_bytes": {"forward": 2 * MIB, "backward": 4 * MIB, "step": 3 * MIB},
        "probed": None,
        "resident": None,
        "host_bytes": None,
        "nvme_bytes": None,
        "container_peak_bytes": None,
        "cuda": None,
        "gpu": None,
        "model_flops": None,
        "peak_flops_per_s": None,
    }
    return RankSample(**{**values, **changes})


def evaluation(step: int, **changes: Any) -> EvalResult:
    values: dict[str, Any] = {
        "step": step,
        "time_unix_s": 2000.0,
        "loss": 0.25,
        "accuracy": 0.9775,
        "n_samples": 355,
        "seconds": 0.1,
    }
    return EvalResult(**{**values, **changes})


def done(rank: int = 0) -> RankDone:
    return RankDone(rank=rank, time_unix_s=3000.0)
