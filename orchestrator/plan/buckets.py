"""How large DeepSpeed's buffers may be for a model of a given size.

DeepSpeed's defaults are made for billions of parameters: a reduce bucket of 5e8 elements is 2 GB
in fp32, parameters under 1e5 elements are never sharded, and under about 0.5e9 parameters
ZeRO-3 keeps everything gathered. On a smaller model one then measures the buffers and not the
strategy, so every size is cut to a share of the model and capped by the default.

Source: defaults of `DeepSpeedZeroConfig` (deepspeed/runtime/zero/config.py, 0.19.8); the shares
are ours.
"""

REDUCE_BUCKET_DEFAULT = 500_000_000
ALLGATHER_BUCKET_DEFAULT = 500_000_000
PREFETCH_BUCKET_DEFAULT = 50_000_000
PERSISTENCE_DEFAULT = 100_000
LIVE_DEFAULT = 1_000_000_000
NVME_BUFFER_DEFAULT = 100_000_000


def bucket_sizes(n_params: int, *, stage: int) -> dict[str, int]:
    """Sizes in elements, by DeepSpeed's key, of the buffers that a stage uses.

    Args:
        n_params: trainable parameters of the whole model.
        stage: ZeRO stage, 0 to 3.
    """
    if stage == 0:
        return {}
    sizes = {"reduce_bucket_size": _share(n_params, 8, at_most=REDUCE_BUCKET_DEFAULT)}
    if stage < 3:
        allgather = _share(n_params, 8, at_most=ALLGATHER_BUCKET_DEFAULT)
        # DeepSpeed refuses odd ones (runtime/zero/stage_1_and_2.py, nccl_start_alignment_factor).
        return sizes | {"allgather_bucket_size": max(2, allgather - allgather % 2)}
    return sizes | {
        "stage3_prefetch_bucket_size": _share(n_params, 8, at_most=PREFETCH_BUCKET_DEFAULT),
        "stage3_param_persistence_threshold": min(PERSISTENCE_DEFAULT, n_params // 1000),
        "stage3_max_live_parameters": _share(n_params, 4, at_most=LIVE_DEFAULT),
        "stage3_max_reuse_distance": _share(n_params, 4, at_most=LIVE_DEFAULT),
    }


def nvme_buffer_size(n_params: int) -> int:
    """Elements of one staging buffer for parameters on NVMe; the largest parameter must fit."""
    return min(NVME_BUFFER_DEFAULT, max(n_params, 1))


def _share(n_params: int, parts: int, *, at_most: int) -> int:
    """One part of the model, but enough that a tiny model is not cut into hundreds of calls."""
    floor = min(65_536, n_params)
    return max(1, min(at_most, max(n_params // parts, floor)))
