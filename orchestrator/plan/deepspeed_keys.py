"""Keys of DeepSpeed's that a job may not pass on: the job file says the same, or they do nothing.

Source: deepspeed 0.19.8, `runtime/config.py`, `runtime/zero/config.py`, `runtime/engine.py`; a test
compares both tables, together with `deepspeed_settings`, with the installed version.
"""

# DeepSpeed key -> the job file's key that says the same. Writing both would let one of them lie.
OWNED = {
    "train_batch_size": "training.global_batch_size",
    "train_micro_batch_size_per_gpu": "training.micro_batch_size",
    "gradient_accumulation_steps": "training.gradient_accumulation_steps",
    "gradient_clipping": "training.gradient_clipping",
    "optimizer.type": "training.optimizer.name",
    "optimizer.params.lr": "training.optimizer.lr",
    "optimizer.params.betas": "training.optimizer.betas",
    "optimizer.params.eps": "training.optimizer.eps",
    "optimizer.params.adam_w_mode": "training.optimizer.name",
    "optimizer.params.weight_decay": "training.optimizer.weight_decay",
    "optimizer.params.momentum": "training.optimizer.momentum",
    "scheduler": "training.schedule",
    "fp16.enabled": "training.precision",
    "bf16.enabled": "training.precision",
    "zero_optimization.stage": "zero.stage",
    "zero_optimization.offload_optimizer.device": "zero.offload_optimizer",
    "zero_optimization.offload_optimizer.nvme_path": "zero.nvme_path",
    "zero_optimization.offload_param.device": "zero.offload_params",
    "zero_optimization.offload_param.nvme_path": "zero.nvme_path",
}

_DATA_PARALLEL = (
    "every worker takes its own share of each batch here, and no other split; take it out"
)

# Dotted key -> what to do instead. Removed by DeepSpeed, deprecated, or without effect here.
REJECTED = {
    "amp": "DeepSpeed removed it; set training.precision",
    "compression_training": "DeepSpeed removed it; compress the model in a model factory",
    "curriculum_learning": "DeepSpeed removed it; order samples in a data factory",
    "eigenvalue": "DeepSpeed removed it; take it out",
    "elasticity": "DeepSpeed removed it; set the batch sizes under training:",
    "graph_harvesting": "DeepSpeed removed it; take it out",
    "nebula": "DeepSpeed removed it; take it out",
    "progressive_layer_drop": "DeepSpeed removed it; drop layers in a model factory",
    "quantize_training": "DeepSpeed removed it; quantize in a model factory",
    "sparse_attention": "DeepSpeed removed it; choose the attention in a model factory",
    "sparse_gradients": "DeepSpeed removed it; take it out",
    "zero_optimization.mics_shard_size": "DeepSpeed removed it; use zero_hpz_partition_size",
    "zero_optimization.mics_hierarchical_params_gather": "DeepSpeed removed it; take it out",
    "zero_optimization.zeropp_loco_param": "DeepSpeed removed it; take it out",
    "zero_optimization.cpu_offload": "it is deprecated; set zero.offload_optimizer: cpu",
    "zero_optimization.cpu_offload_param": "it is deprecated; set zero.offload_params: cpu",
    "zero_optimization.cpu_offload_use_pin_memory": (
        "it is deprecated; set pin_memory under offload_optimizer or offload_param"
    ),
    "zero_optimization.stage3_gather_fp16_weights_on_model_save": (
        "it is deprecated, and no model is saved by DeepSpeed here; take it out"
    ),
    "activation_checkpointing": (
        "it only configures DeepSpeed's own function and wraps no model; "
        "set training.activation_checkpointing"
    ),
    "autotuning": "it starts DeepSpeed's own launcher, which cannot run inside Ray; take it out",
    "data_efficiency": "the data comes from data:, so it would do nothing; take it out",
    "dataloader_drop_last": "the data comes from data:, so it would do nothing; take it out",
    "bfloat16": "it is the old name of bf16; set training.precision: bf16",
    "pipeline": "no pipeline engine is used, so it would do nothing; take it out",
    "hybrid_engine": "it serves inference inside RLHF, so it would do nothing; take it out",
    "tensor_parallel": _DATA_PARALLEL,
    "sequence_parallel_size": _DATA_PARALLEL,
    "seq_parallel_communication_data_type": _DATA_PARALLEL,
    "expert_parallel": _DATA_PARALLEL,
    "use_data_before_expert_parallelism": _DATA_PARALLEL,
    "managed_gradient_accumulation": (
        "false would step after every micro-batch; set training.gradient_accumulation_steps"
    ),
    "checkpoint": "no checkpoint is written by DeepSpeed here; see checkpoint: of the job file",
    "compile": "it acts only in engine.compile(), which is not called here; take it out",
    "disable_allgather": "nothing in DeepSpeed reads it; take it out",
    "datastates_ckpt": "no checkpoint is written by DeepSpeed here; take it out",
    "weight_quantization": "it serves inference, so it would do nothing; take it out",
    "vocabulary_size": "DeepSpeed only warns about it; take it out",
    "zero_optimization.legacy_stage1": "DeepSpeed refuses it; take it out",
    "zero_optimization.zenflow.steps_per_epoch": "DeepSpeed sets it itself; take it out",
    "optimizer.params.max_grad_norm": "DeepSpeed refuses it; set training.gradient_clipping",
    "max_grad_norm": "DeepSpeed does not know it; set training.gradient_clipping",
}
