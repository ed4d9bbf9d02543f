"""Bad job files, one thing wrong in each: one line, with its place, its key and a way out.

One case a line, so that the table can be read down its columns.
"""
# ruff: noqa: E501

import re
import time

import pytest

from orchestrator.errors import ExitCode, SpecError
from orchestrator.spec.load import load_job

GPT = "model: {family: gpt2, config: {%s}}\ndata: {source: text}"
RUN = "training: {steps: 10, global_batch_size: 8, %s}"

# What is changed in the small job (line 1 name, 2 model, 3 data, 4 training; other lines follow),
# where the problem stands, its key, and words of its message.
KEYS = [
    ("zer: {stage: 1}", "5:1", "zer", "unknown key; did you mean 'zero'?"),
    ("Zero: {stage: 1}", "5:1", "Zero", "unknown key; did you mean 'zero'?"),
    ("qwertz: 1", "5:1", "qwertz", "unknown key; known here: name, model, data, training, zero"),
    ("zero.stage: 1", "5:1", "zero.stage", "unknown key; write it nested, such as zero: {stage"),
    ("stage: 1", "5:1", "stage", "unknown key; it belongs under zero:"),
    ("steps: 5", "5:1", "steps", "unknown key; it belongs under training:"),
    ("micro_batchsize: 5", "5:1", "micro_batchsize", "did you mean training.micro_batch_size?"),
    ("on: 5", "5:1", "on", "unknown key; known here:"),
    ("zero: {stge: 1}", "5:8", "zero.stge", "unknown key; did you mean 'stage'?"),
    ("zero: {offload_param: cpu}", "5:8", "zero.offload_param", "did you mean 'offload_params'?"),
    ("zero: {workers: 2}", "5:8", "zero.workers", "unknown key; it belongs under resources:"),
    (RUN % "micro-batch-size: 2", "4:45", "training.micro-batch-size", "mean 'micro_batch_size'?"),
    (RUN % "lr: 0.1", "4:45", "training.lr", "unknown key; it belongs under training.optimizer:"),
    (RUN % "learning_rate: 1", "4:45", "training.learning_rate", "mean training.optimizer.lr?"),
    (RUN % "batch_size: 1", "4:45", "training.batch_size", "did you mean 'global_batch_size'?"),
    (
        "training: {max_steps: 5, steps: 10, global_batch_size: 8}",
        "4:12",
        "training.max_steps",
        "'steps'?",
    ),
    (RUN % "num_workers: 2", "4:45", "training.num_workers", "did you mean resources.workers?"),
    (RUN % "optimizer: {lrr: 1}", "4:57", "training.optimizer.lrr", "did you mean 'lr'?"),
    (RUN % "schedule: {warmup: 1}", "4:56", "training.schedule.warmup", "mean 'warmup_steps'?"),
    ("model: {family: resnet, config: {depth: [1]}}", "2:34", "model.config.depth", "'depths'?"),
    ("model: {family: resnet, depths: [1]}", "2:25", "model.depths", "belongs under model.config:"),
    ("model: {family: resnet, config: {n_embd: 4}}", "2:34", "model.config.n_embd", "unknown key"),
    ("data: {source: digits, imagesize: 8}", "3:24", "data.imagesize", "mean 'image_size'?"),
    ("data: {source: digits, sequence_length: 8}", "3:24", "data.sequence_length", "known here:"),
    ("checkpoint: {every_step: 5}", "5:14", "checkpoint.every_step", "did you mean 'every_steps'?"),
    ("failures: {retries: 1}", "5:12", "failures.retries", "unknown key; known here: max_restarts"),
    ("tracking: {url: null}", "5:12", "tracking.url", "did you mean 'uri'?"),
    ("compare: {axis: {zero.stage: [1]}}", "5:11", "compare.axis", "did you mean 'axes'?"),
    ("'a\\nb': 1", "5:1", "a\\nb", "unknown key; known here:"),
    ('"a\\nb": 1', "5:1", "'a\\nb'", "unknown key; known here:"),
    ("? " + "x" * 100 + "\n: 1", "5:3", "x" * 57 + "...", "unknown key; known here:"),
]
TYPES = [
    ("name: 3", "1:1", "name", "expected text, got 3; put it in quotes"),
    ("name: true", "1:1", "name", "expected text, got true; put it in quotes"),
    ("name:", "1:1", "name", "expected text, got nothing (null); write text"),
    ("name: [a]", "1:1", "name", "expected text, got a list; write text"),
    ("name: My Run", "1:1", "name", "got 'My Run'; lower-case letters, digits"),
    ("name: ../evil", "1:1", "name", "got '../evil'; lower-case letters, digits"),
    ("name: ''", "1:1", "name", "got ''; lower-case letters, digits"),
    ("name: " + "a" * 64, "1:1", "name", "...'; lower-case letters, digits"),
    (RUN % "seed: abc", "4:45", "training.seed", "expected a whole number, got 'abc' (text); write"),
    (RUN % "seed: 1.5", "4:45", "training.seed", "expected a whole number, got 1.5; write digits"),
    (RUN % "seed: 1e3", "4:45", "training.seed", "expected a whole number, got 1000.0; write 1000"),
    (RUN % "seed: '5'", "4:45", "training.seed", "expected a whole number, got '5' (text); write 5"),
    (RUN % "seed: 1_000", "4:45", "training.seed", "got '1_000' (text); write 1000"),
    (RUN % "seed: true", "4:45", "training.seed", "expected a whole number, got true; write digits"),
    (RUN % "seed: null", "4:45", "training.seed", "expected a whole number, got nothing (null); wr"),
    (RUN % "seed: []", "4:45", "training.seed", "expected a whole number, got a list; write digits"),
    (RUN % "seed: 1:30", "4:45", "training.seed", "expected a whole number, got '1:30' (text); wr"),
    (RUN % "micro_batch_size: {}", "4:45", "training.micro_batch_size", "got a mapping; write"),
    (RUN % "optimizer: {lr: fast}", "4:57", "training.optimizer.lr", "a number, got 'fast' (text)"),
    (RUN % "optimizer: {lr: true}", "4:57", "training.optimizer.lr", "expected a number, got true;"),
    (RUN % "optimizer: {lr: 1e-3x}", "4:57", "training.optimizer.lr", "a number, got '1e-3x' (text)"),
    (RUN % "optimizer: adamw", "4:45", "training.optimizer", "a mapping, got 'adamw' (text); write"),
    (RUN % "optimizer: null", "4:45", "training.optimizer", "(null); leave the key out for its def"),
    (RUN % "optimizer: {betas: 0.9}", "4:57", "training.optimizer.betas", "a list, got 0.9; write"),
    (RUN % "optimizer: {betas: [0.9]}", "4:57", "training.optimizer.betas", "more than 1 value; dec"),
    (RUN % "optimizer: {betas: [0, 0, 0]}", "4:57", "training.optimizer.betas", "expected 2 values, g"),
    (RUN % "optimizer: {betas: [0, x]}", "4:68", "training.optimizer.betas[1]", "a number, got 'x'"),
    (RUN % "activation_checkpointing: on", "4:45", "training.activation_checkpointing", "got 'on' (text); write true or false"),
    (RUN % "activation_checkpointing: yes", "4:45", "training.activation_checkpointing", "got 'yes' (text); write true or false"),
    (RUN % "activation_checkpointing: 1", "4:45", "training.activation_checkpointing", "got 1; write true or false"),
    ("zero: {stage: true}", "5:8", "zero.stage", "expected a whole number, got true; write digits"),
    ("zero: {stage: 2.0}", "5:8", "zero.stage", "expected a whole number, got 2.0; write 2"),
    ("zero: {stage: '2'}", "5:8", "zero.stage", "got '2' (text); choose one of 0, 1, 2, 3"),
    ("zero: {nvme_path: 3}", "5:8", "zero.nvme_path", "expected text, got 3; put it in quotes"),
    ("zero:", "5:1", "zero", "expected a mapping, got nothing (null); leave the key out for its def"),
    ("zero: 3", "5:1", "zero", "expected a mapping, got 3; write key: value below it"),
    ("zero: [3]", "5:1", "zero", "expected a mapping, got a list; write key: value below it"),
    ("deepspeed: 3", "5:1", "deepspeed", "a mapping or the path of a JSON file, got 3; leave it"),
    ("deepspeed:", "5:1", "deepspeed", "or the path of a JSON file, got nothing (null); leave it"),
    ("deepspeed: [a]", "5:1", "deepspeed", "or the path of a JSON file, got a list; leave it out"),
    ("resources: {memory_budget_gib: 16XX}", "5:13", "resources.memory_budget_gib", "'16XX' is not a size; write an amount and a unit"),
    ("resources: {memory_budget_gib: " + "9" * 400 + "GiB}", "5:13", "resources.memory_budget_gib", "9...' is not a size; it is larger than any number"),
    ("resources: {memory_budget_gib: true}", "5:13", "resources.memory_budget_gib", "a number or a size such as 16GiB, got true"),
    ("tracking: {experiment: 3}", "5:12", "tracking.experiment", "expected text, got 3; put it"),
    ("tracking: {experiment: ''}", "5:12", "tracking.experiment", "got ''; MLflow experiment"),
    ("compare: {axes: [zero.stage]}", "5:11", "compare.axes", "expected a mapping, got a list; w"),
    ("compare: {variants: {a: 1}}", "5:11", "compare.variants", "expected a list, got a mapping;"),
    ("compare: {variants: [3]}", "5:22", "compare.variants[0]", "expected a mapping, got 3; write"),
    ("compare: {axes: {zero.stage: 3}}", "5:18", "compare.axes.zero.stage", "expected a list, got 3"),
    ("model: {family: resnet, config: {depths: 1}}", "2:34", "model.config.depths", "a list, got 1;"),
    ("model: {family: resnet, config: {depths: []}}", "2:34", "model.config.depths", "an empty list; give"),
    ("model: {family: resnet, config: {depths: [1, 1, a]}}", "2:49", "model.config.depths[2]", "a whole number, got 'a' (text)"),
    ("data: {source: digits, channels: true}", "3:24", "data.channels", "a whole number, got true"),
]  # fmt: skip
CHOICES_AND_BOUNDS = [
    ("zero: {stage: 4}", "5:8", "zero.stage", "got 4; choose one of 0, 1, 2, 3"),
    ("zero: {stage: -1}", "5:8", "zero.stage", "got -1; choose one of 0, 1, 2, 3"),
    ("zero: {offload_params: disk}", "5:8", "zero.offload_params", "got 'disk'; choose one of none"),
    ("zero: {offload_params: nvm}", "5:8", "zero.offload_params", "did you mean 'nvme'? choose one"),
    ("zero: {offload_optimizer: null}", "5:8", "zero.offload_optimizer", "got nothing (null); choose"),
    ("zero: {offload_optimizer: no}", "5:8", "zero.offload_optimizer", "got 'no'; did you mean"),
    ("resources: {device: gpu}", "5:13", "resources.device", "got 'gpu'; did you mean 'cpu'? choose"),
    ("checkpoint: {resume: yes}", "5:14", "checkpoint.resume", "got 'yes'; choose one of auto, ne"),
    (RUN % "precision: fp8", "4:45", "training.precision", "choose one of fp32, bf16, fp16"),
    (RUN % "precision: FP32", "4:45", "training.precision", "did you mean 'fp32'? choose one of"),
    (RUN % "optimizer: {name: lamb}", "4:57", "training.optimizer.name", "one of adamw, adam, sgd"),
    ("data: {source: digits, channels: 2}", "3:24", "data.channels", "got 2; choose one of 1, 3"),
    ("resources: {workers: 0}", "5:13", "resources.workers", "got 0; must be at least 1"),
    ("resources: {workers: -2}", "5:13", "resources.workers", "got -2; must be at least 1"),
    ("resources: {cpus_per_worker: 0}", "5:13", "resources.cpus_per_worker", "must be above 0"),
    ("resources: {memory_budget_gib: 0}", "5:13", "resources.memory_budget_gib", "must be above 0"),
    ("failures: {max_restarts: 1001}", "5:12", "failures.max_restarts", "must be at most 1000"),
    (RUN % "seed: -1", "4:45", "training.seed", "got -1; must be at least 0"),
    (RUN % "seed: 4294967296", "4:45", "training.seed", "must be below 4294967296"),
    (RUN % "micro_batch_size: 0", "4:45", "training.micro_batch_size", "must be at least 1"),
    (RUN % "optimizer: {lr: 0}", "4:57", "training.optimizer.lr", "got 0; must be above 0"),
    (RUN % "optimizer: {lr: -1e-3}", "4:57", "training.optimizer.lr", "-0.001; must be above 0"),
    (RUN % "optimizer: {betas: [0.9, 1]}", "4:70", "training.optimizer.betas[1]", "must be below 1"),
    (RUN % "gradient_clipping: 0.0", "4:45", "training.gradient_clipping", "must be above 0"),
    ("data: {source: digits, image_size: 7}", "3:24", "data.image_size", "got 7; must be at least 8"),
    ("data: {source: digits, eval_fraction: 1}", "3:24", "data.eval_fraction", "must be below 1"),
    ("model: {family: resnet, config: {depths: [1, 0, 1]}}", "2:46", "model.config.depths[1]", "got 0; must be at least 1"),
    (GPT % "attn_pdrop: 1.0", "2:32", "model.config.attn_pdrop", "got 1.0; must be below 1"),
]  # fmt: skip
NUMBERS_AND_YAML = [
    (RUN % "optimizer: {lr: .nan}", "4:61", "training.optimizer.lr", "not a finite number; write"),
    (RUN % "optimizer: {lr: -.inf}", "4:61", "training.optimizer.lr", "not a finite number; write"),
    (RUN % "optimizer: {lr: 1e999}", "4:61", "training.optimizer.lr", "the number is too large; w"),
    (RUN % "optimizer: {lr: inf}", "4:57", "training.optimizer.lr", "a number, got 'inf' (text)"),
    (RUN % "seed: 010", "4:51", "training.seed", "a number with a leading zero is octal to some"),
    (RUN % "seed: 9007199254740993", "4:51", "training.seed", "the whole number is too large"),
    (RUN % ("seed: " + "9" * 5000), "4:51", "training.seed", "the whole number is too large; wri"),
    ("deepspeed: {a: {b: [.nan]}}", "5:21", "deepspeed.a.b[0]", "not a finite number; write"),
    ("zero: {stage: 1, stage: 2}", "5:18", "zero.stage", "duplicate key, first given on line 5"),
    ("deepspeed: {<<: {a: 1}}", "5:13", "deepspeed.<<", "merging (<<) is not supported; write"),
    ("deepspeed: &x {a: 1}", "5:12", "deepspeed", "anchors and aliases (&, *) are not supported"),
    ("deepspeed: {a: *x}", "5:16", "deepspeed.a", "anchors and aliases (&, *) are not supported"),
    ("deepspeed: !!python/name:os.system ''", "5:12", "deepspeed", "tags such as '!!python/name:os"),
    ("deepspeed: {1: a}", "5:13", "deepspeed", "the key '1' is not text; quote it"),
    ("deepspeed: {true: a}", "5:13", "deepspeed", "the key 'true' is not text; quote it"),
    ("deepspeed: {? [a] : b}", "5:15", "deepspeed", "a key is a list or a mapping; quote it"),
    ("deepspeed: {a: '\x07'}", "5:17", "", "the character U+0007 is not allowed; save the file"),
    ("zero:\n\tstage: 1", "6:1", "", "a tab; indent with spaces, and quote text"),
    ("zero: {stage: 1", "6:1", "", "not valid YAML: expected ',' or '}', but got '<stream end>'"),
    ("zero: stage: 1", "5:12", "", "not valid YAML: mapping values are not allowed here; indent"),
    ("zero: 'a", "6:1", "", "not valid YAML: found unexpected end of stream; close the quote"),
    ("zero", "6:1", "", "not valid YAML: could not find expected ':'; write key: value"),
    ("- zero", "5:1", "", "not valid YAML: expected <block end>, but found '-'"),
    ("---\nname: second", "5:1", "", "a second document; keep one, without --- between keys"),
    ("deepspeed: " + "[" * 40 + "]" * 40, "5:43", "", "more than 32 levels deep; write it flatter"),
    ("deepspeed: {a: [" + "1, " * 21_000 + "]}", None, "", "more than 20,000 values; keep"),
]  # fmt: skip
MODELS_AND_DATA = [
    ("model: resnet", "2:1", "model", "expected a mapping, got 'resnet' (text); write model: {fam"),
    ("model:", "2:1", "model", "expected a mapping, got nothing (null); write model: {family: resn"),
    ("model: {}", "2:1", "model", "missing family; write family: one of resnet, gpt2, cnn, mlp"),
    ("model: {config: {}}", "2:1", "model", "missing family; write family: one of resnet, gpt2"),
    ("model: {famly: resnet}", "2:9", "model.famly", "unknown key; did you mean 'family'?"),
    ("model: {family: resnt}", "2:9", "model.family", "unknown family 'resnt'; did you mean 'resn"),
    ("model: {family: bert}", "2:9", "model.family", "choose one of resnet, gpt2, cnn, mlp, or giv"),
    ("model: {family: [resnet]}", "2:9", "model.family", "unknown family a list; choose one of"),
    ("model: {family: null}", "2:9", "model.family", "unknown family nothing (null); choose one"),
    ("model: {family: factory}", "2:9", "model.family", "unknown family 'factory'"),
    ("model: {family: cnn, factory: a:b}", "2:22", "model.factory", "family is given too; keep one"),
    ("model: {factory: abc}", "2:9", "model.factory", "got 'abc' (text); write module:callable"),
    ("model: {factory: a.b}", "2:9", "model.factory", "got 'a.b' (text); write module:callable"),
    ("model: {factory: '../a:b'}", "2:9", "model.factory", "write module:callable, such as my_m"),
    ("model: {factory: 3}", "2:9", "model.factory", "expected text, got 3; put it in quotes"),
    ("model: {factory: 'a:b', config: [1]}", "2:25", "model.config", "expected a mapping, got a list"),
    ("data: {}", "3:1", "data", "missing source; write source: one of digits, text, synthetic, or"),
    ("data: digits", "3:1", "data", "expected a mapping, got 'digits' (text); write data: {source"),
    ("data: {source: digit}", "3:8", "data.source", "unknown source 'digit'; did you mean 'digits'"),
    ("data: {sorce: digits}", "3:8", "data.sorce", "unknown key; did you mean 'source'?"),
    ("data: {source: text, factory: 'a:b'}", "3:22", "data.factory", "source is given too; keep"),
]  # fmt: skip
ACROSS_KEYS = [
    ("training: {global_batch_size: 8}", "4:1", "training", "missing steps; write steps: 100, or epochs"),
    (RUN % "epochs: 2", "4:45", "training.epochs", "steps is given too; keep one of the two (--set"),
    ("training: {steps: 10}", "4:1", "training", "missing global_batch_size; write global_batch_si"),
    ("training: {steps: 1, gradient_accumulation_steps: 2}", "4:1", "training", "missing global_ba"),
    (RUN % "schedule: {warmup_steps: 11}", "4:56", "training.schedule.warmup_steps", "11 steps of warm-up in a run of 10; write at most 10"),
    (RUN % "schedule: {min_lr_ratio: 0.1}", "4:56", "training.schedule.min_lr_ratio", "a constant schedule does not fall; leave it out"),
    (RUN % "optimizer: {momentum: 0.9}", "4:57", "training.optimizer.momentum", "adamw has no momentum; leave it out"),
    (RUN % "optimizer: {name: sgd, betas: [0.9, 0.99]}", "4:68", "training.optimizer.betas", "sgd has no betas; leave it out"),
    (RUN % "optimizer: {name: sgd, eps: 1e-8}", "4:68", "training.optimizer.eps", "sgd has no eps;"),
    (RUN % "optimizer: {name: rmsprop, betas: [0.9, 0.99]}", "4:72", "training.optimizer.betas", "rmsprop has no betas;"),
    (RUN % "optimizer: {name: adafactor, betas: [0.9, 0.99]}", "4:74", "training.optimizer.betas", "adafactor has no betas; leave it out"),
    (RUN % "optimizer: {name: adafactor, eps: 1e-8}", "4:74", "training.optimizer.eps", "adafactor has no eps;"),
    (RUN % "optimizer: {name: adafactor, momentum: 0.9}", "4:74", "training.optimizer.momentum", "adafactor has no momentum;"),
    (RUN % "optimizer: {name: lion, eps: 1e-8}", "4:69", "training.optimizer.eps", "lion has no eps; leave it out"),
    (RUN % "optimizer: {name: lion, momentum: 0.9}", "4:69", "training.optimizer.momentum", "lion has no momentum;"),
    (RUN % "engine: torch, optimizer: {name: lion}", "4:72", "training.optimizer.name", "engine torch has no lion; choose another optimizer, or write training.engine: deepspeed"),
    (RUN % "engine: torch, precision: bf16", "4:60", "training.precision", "engine torch needs fp32; write fp32, or write training.engine: deepspeed"),
    (RUN % "engine: torch" + "\nzero: {stage: 1}", "5:8", "zero.stage", "engine torch needs stage 0, not 1; write"),
    (RUN % "engine: torch" + "\ndeepspeed: {a: 1}", "5:1", "deepspeed", "engine torch does not use it; leave it out"),
    ("zero: {stage: 2, offload_params: cpu}", "5:18", "zero.offload_params", "parameter offload needs stage 3, not 2; write stage: 3, or none here"),
    ("zero: {offload_params: cpu}", "5:8", "zero.offload_params", "needs stage 3, not 0; write"),
    ("zero: {offload_optimizer: cpu}", "5:8", "zero.offload_optimizer", "needs stage 1, 2 or 3, not 0; write"),
    ("zero: {stage: 2, offload_optimizer: nvme, nvme_path: /x}", "5:18", "zero.offload_optimizer", "offload to nvme needs stage 3, not 2; write"),
    ("zero: {stage: 3, offload_optimizer: nvme}", "5:1", "zero.nvme_path", "missing; offload to nvme needs a folder"),
    ("zero: {stage: 3, offload_params: nvme}", "5:1", "zero.nvme_path", "missing; offload to nvme"),
    ("zero: {stage: 3, offload_params: nvme, nvme_path: ''}", "5:40", "zero.nvme_path", "missing;"),
    ("zero: {stage: 3, nvme_path: /x}", "5:18", "zero.nvme_path", "nothing is offloaded to nvme; lea"),
    ("model: {family: resnet, config: {depths: [1, 1]}}", "2:34", "model.config.depths", "2 depths for 3 hidden_sizes; give as many"),
    (GPT % "n_embd: 130", "2:32", "model.config.n_embd", "130 is no multiple of n_head: 4; write 128 or 132"),
    (GPT % "n_embd: 3", "2:32", "model.config.n_embd", "3 is no multiple of n_head: 4; write 4"),
    ("tracking: {uri: 'file:/tmp/x'}", "5:12", "tracking.uri", "MLflow 3 has no file store; leave uri"),
    ("tracking: {uri: ./mlruns}", "5:12", "tracking.uri", "MLflow 3 has no file store; leave uri out"),
    ("tracking: {uri: 'htp://host'}", "5:12", "tracking.uri", "unknown scheme 'htp'; did you mean 'http'?"),
    ("tracking: {uri: 'http://'}", "5:12", "tracking.uri", "no host in it; write one such as http:"),
    ("tracking: {uri: 'http://h:99999'}", "5:12", "tracking.uri", "not a URI; write one such as http:"),
    ("tracking: {uri: 'http://[h'}", "5:12", "tracking.uri", "not a URI; write one such as http://"),
    ("tracking: {uri: 'https://me:hunter2@h'}", "5:12", "tracking.uri", "MLFLOW_TRACKING_USERNAME and"),
    ("tracking: {uri: 'https://hunter2@h'}", "5:12", "tracking.uri", "use MLFLOW_TRACKING_USERNAME"),
    ("tracking: {uri: 'postgresql+psycopg2://me:hunter2@h/db'}", "5:12", "tracking.uri", "use MLFLOW_TR"),
    ("tracking: {uri: 'mysql://h/db?password=hunter2'}", "5:12", "tracking.uri", "use MLFLOW_TRACKING"),
]  # fmt: skip
COMPARISONS = [
    ("compare: {}", "5:1", "compare", "nothing to compare; write axes: {zero.stage: [0, 1, 2, 3]}"),
    ("compare: {axes: {zero.stge: [1]}}", "5:18", "compare.axes.zero.stge", "unknown key; did you mean 'stage'?"),
    ("compare: {axes: {stage: [1]}}", "5:18", "compare.axes.stage", "it belongs under zero:"),
    ("compare: {axes: {zero.stage: [1, 4]}}", "5:18", "compare.axes.zero.stage", "got 4; choose one"),
    ("compare: {axes: {zero.stage: []}}", "5:18", "compare.axes.zero.stage", "no values; give at le"),
    ("compare: {axes: {zero.stage: [1, 1]}}", "5:18", "compare.axes.zero.stage", "1 stands there twice"),
    ("compare: {axes: {" + "a." * 40 + "a: [1]}}", "5:18", "compare.axes." + "a." * 28 + "a...", "the key has more than 32 parts; write one of"),
    ("compare: {axes: {zero: [1]}}", "5:18", "compare.axes.zero", "expected a mapping, got 1; write"),
    ("compare: {axes: {name: [a, b]}}", "5:18", "compare.axes.name", "cannot vary; choose another key"),
    ("compare: {axes: {compare.axes: [1]}}", "5:18", "compare.axes.compare.axes", "cannot vary;"),
    ("compare: {axes: {training.steps.x: [1]}}", "5:18", "compare.axes.training.steps.x", "training.steps is not a mapping; vary training.steps itself"),
    ("compare: {axes: {zero.stage: [1]}, variants: [{zero.stage: 1}]}", "5:36", "compare.variants", "axes are given too; keep one of the two"),
    ("compare: {axes: {zero.stage: [1, 2], zero.offload_params: [cpu]}, exclude: [{zero.stage: 1}]}", "5:11", "compare.axes", "{zero.stage: 2, zero.offload_params: cpu} cannot run (zero.offload_params: parameter offload needs stage 3"),
    ("compare: {axes: {zero.stage: [1]}, exclude: [{zero.stage: 1}]}", "5:36", "compare.exclude", "leaves nothing to compare; exclude less"),
    ("compare: {axes: {zero.stage: [1]}, exclude: [{zero.stge: 1}]}", "5:47", "compare.exclude[0].zero.stge", "not an axis; did you mean 'zero.stage'?"),
    ("compare: {axes: {zero.stage: [1]}, exclude: [{zero.stage: 3}]}", "5:47", "compare.exclude[0].zero.stage", "3 is no value of this axis; leave it out"),
    ("compare: {axes: {zero.stage: [1]}, exclude: [{}]}", "5:46", "compare.exclude[0]", "excludes everything; name a key"),
    ("compare: {variants: [{zero.stage: 9}]}", "5:23", "compare.variants[0].zero.stage", "got 9; choose"),
    ("compare: {variants: [{name: a, zero.stge: 1}]}", "5:32", "compare.variants[0].zero.stge", "did you mean 'stage'?"),
    ("compare: {variants: [{name: a}, {name: a, zero.stage: 1}]}", "5:34", "compare.variants[1].name", "'a' stands there twice; choose another name"),
    ("compare: {variants: [{name: 3, zero.stage: 1}]}", "5:23", "compare.variants[0].name", "expected text, got 3; write a name"),
    ("compare: {variants: [{}]}", "5:22", "compare.variants[0]", "changes nothing; write a key"),
    ("compare: {variants: [{zero.stage: 2, zero.offload_params: cpu}]}", "5:22", "compare.variants[0]", "zero.offload_params: parameter offload needs stage 3, not 2; write"),
    ("compare: {variants: [{model.family: gpt2, model.config.n_embd: 6}]}", "5:22", "compare.variants[0]", "6 is no multiple of n_head: 4; write 4 or 8"),
    ("compare: {variants: [{compare.axes: {}}]}", "5:23", "compare.variants[0].compare.axes", "cannot vary"),
    (f"compare: {{axes: {{training.seed: {list(range(50))}, resources.workers: {list(range(1, 51))}}}}}", "5:11", "compare.axes", "2,500 runs; write fewer values, at most 2,000"),
]  # fmt: skip

CASES = [
    *KEYS, *TYPES, *CHOICES_AND_BOUNDS, *NUMBERS_AND_YAML,
    *MODELS_AND_DATA, *ACROSS_KEYS, *COMPARISONS,
]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "place", "key", "words"), CASES, ids=[case[0][:60] for case in CASES]
)
def test_one_thing_wrong_is_one_line_with_place_key_and_way_out(
    write_job, changes, place, key, words
):
    path = write_job(changes)
    start = time.process_time()
    with pytest.raises(SpecError, match=re.escape(words)) as caught:
        load_job(path)
    assert time.process_time() - start < 2
    line = str(caught.value)
    assert "\n" not in line
    assert line.isprintable()
    (problem,) = caught.value.problems
    assert problem.key == key
    if place is not None:
        assert problem.where == f"{path}:{place}"
    assert "; " in problem.message or "?" in problem.message
    assert caught.value.exit_code == ExitCode.WRONG_INPUT


def test_the_table_is_as_long_as_it_claims():
    assert len({case[0] for case in CASES}) >= 180


@pytest.mark.parametrize("key", ["name", "model", "data", "training"])
def test_a_missing_key_is_reported_with_an_example(write_job, key):
    path = write_job()
    kept = [line for line in path.read_text().splitlines() if not line.startswith(f"{key}:")]
    path.write_text("\n".join(kept))
    with pytest.raises(SpecError, match=f"job.yaml:1:1: {key}: missing; write {key}: "):
        load_job(path)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "1:1: the file is empty; a job needs name, model, data and training"),
        ("# nothing\n", "1:1: the file is empty; a job needs name, model, data and training"),
        ("- a\n", "1:1: expected keys such as name: and model:, got a list"),
        ("hello\n", "1:1: expected keys such as name: and model:, got 'hello' (text)"),
        ("3\n", "1:1: expected keys such as name: and model:, got 3"),
    ],
)
def test_a_file_without_keys_is_no_job(tmp_path, text, line):
    path = tmp_path / "job.yaml"
    path.write_text(text)
    with pytest.raises(SpecError, match=re.escape(line)) as caught:
        load_job(path)
    assert str(caught.value) == f"{path}:{line}"


@pytest.mark.parametrize("uri", ["https://me:hunter2@h", "http://h?token=hunter2"])
@pytest.mark.parametrize("overridden", [True, False])
def test_a_password_is_not_repeated(write_job, uri, overridden):
    overrides = [f"tracking.uri={uri}"] if overridden and "@" in uri else []
    path = write_job() if overrides else write_job(f"tracking: {{uri: '{uri}'}}")
    with pytest.raises(SpecError, match="MLFLOW_TRACKING_PASSWORD") as caught:
        load_job(path, overrides=overrides)
    assert "hunter2" not in str(caught.value)
