"""The same training without us: what a person writes for torchrun and DeepSpeed.

Run by `against_torchrun.py` as `torchrun --nproc-per-node 2 bare.py PLAN.json RESULT.json`. The
data, their order and the DeepSpeed dict are those of the plan; everything else is plain.
"""

import itertools
import json
import os
import statistics
import sys
import time
from pathlib import Path

import deepspeed
import torch
from transformers import ResNetConfig, ResNetForImageClassification

from orchestrator.data.digits import build_digits
from orchestrator.data.order import micro_batches, step_indices
from orchestrator.spec.data import DigitsData


def main() -> None:
    plan = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    batch, config = plan["batch"], plan["deepspeed"]
    torch.set_num_threads(1)
    deepspeed.init_distributed("gloo")
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    train = build_digits(DigitsData.model_validate(plan["job"]["data"])).train
    torch.manual_seed(0)
    model = ResNetForImageClassification(ResNetConfig(**plan["job"]["model"]["config"]))
    engine, *_ = deepspeed.initialize(
        model=model, model_parameters=model.parameters(), config=config
    )
    ends = []
    for step in range(plan["job"]["training"]["steps"]):
        indices = step_indices(
            len(train), seed=0, step=step, global_batch_size=batch["global_batch_size"]
        )
        for micro in micro_batches(
            indices,
            rank=rank,
            world_size=world_size,
            micro_batch_size=batch["micro_batch_size"],
        ):
            loss = engine(**train.batch(micro)).loss
            engine.backward(loss)
            engine.step()
        loss.item()
        ends.append((time.time(), time.perf_counter()))
    seconds = [b[1] - a[1] for a, b in itertools.pairwise(ends)][3:]
    if rank == 0:
        result = {"first_step_unix_s": ends[0][0], "step_s": statistics.median(seconds)}
        Path(sys.argv[2]).write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main()
