"""What DeepSpeed's own configuration knows, who owns which key, and what it removed.

DeepSpeed ignores unknown keys at the top level without a word and accepts some that do nothing,
so this table is the net that catches them.

Source: deepspeed 0.19.8, `runtime/config.py`, `runtime/zero/config.py`, `monitor/config.py`,
`runtime/constants.py`; a test compares every table with the installed version.
"""

TOP_LEVEL_KEYS = frozenset(
    """
    activation_checkpointing aio autotuning bf16 bfloat16 checkpoint comet comms_logger
    communication_data_type compile csv_monitor data_efficiency data_types dataloader_drop_last
    datastates_ckpt disable_allgather disable_python_gc dump_state expert_parallel
    flops_profiler fp16 gradient_accumulation_steps gradient_allreduce_op gradient_clipping
    gradient_predivide_factor hybrid_engine log_level managed_gradient_accumulation
    memory_breakdown optimizer pipeline prescale_gradients scheduler
    seq_parallel_communication_data_type sequence_parallel_size steps_per_print tensor_parallel
    tensorboard timers torch_autocast train_batch_size train_micro_batch_size_per_gpu
    use_data_before_expert_parallelism vocabulary_size wall_clock_breakdown wandb
    weight_quantization zero_allow_untested_optimizer zero_force_ds_cpu_optimizer
    zero_optimization
    """.split()
)

ZERO_KEYS = frozenset(
    """
    allgather_bucket_size allgather_partitions compute_grad_norm contiguous_gradients
    elastic_checkpoint enable_sanity_checks ignore_unused_parameters leaf_module legacy_stage1
    load_from_fp32_weights log_trace_cache_warnings memory_efficient_linear offload_optimizer
    offload_param overlap_comm override_module_apply parameter_alignment
    pipeline_loading_checkpoint reduce_bucket_size reduce_scatter round_robin_gradients
    save_muon_momentum_buffer_in_memory stage stage3_allgather_sequential
    stage3_gather_16bit_weights_on_model_save stage3_max_live_parameters
    stage3_max_reuse_distance stage3_model_persistence_threshold
    stage3_module_granularity_threshold stage3_param_persistence_threshold
    stage3_prefetch_bucket_size stage3_use_all_reduce_for_fetch_params sub_group_size
    use_multi_rank_bucket_allreduce zenflow zero_hpz_partition_size zero_quantized_gradients
    zero_quantized_nontrainable_weights zero_quantized_weights
    """.split()
)

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
        "it is deprecated; set stage3_gather_16bit_weights_on_model_save"
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
    "datastates_ckpt": "no checkpoint is written by DeepSpeed here; take it out",
    "weight_quantization": "it serves inference, so it would do nothing; take it out",
    "vocabulary_size": "DeepSpeed only warns about it; take it out",
    "optimizer.params.max_grad_norm": "DeepSpeed refuses it; set training.gradient_clipping",
    "max_grad_norm": "DeepSpeed does not know it; set training.gradient_clipping",
}

# Blocks whose keys matter only when the job file switches the block on.
OFFLOAD_BLOCKS = {
    "offload_optimizer": "zero.offload_optimizer",
    "offload_param": "zero.offload_params",
}
OFFLOAD_KEYS = {
    "offload_optimizer": frozenset(
        """buffer_count device fast_init nvme_path pin_memory pipeline_read pipeline_write ratio
        super_offload cpuadam_cores_perc""".split()
    ),
    "offload_param": frozenset(
        "buffer_count buffer_size device max_in_cpu nvme_path pin_memory".split()
    ),
}
