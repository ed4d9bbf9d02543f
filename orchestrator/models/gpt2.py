"""The GPT-2 of transformers, built from its configuration. Downloads nothing."""

from torch import nn
from transformers.models.gpt2.configuration_gpt2 import GPT2Config
from transformers.models.gpt2.modeling_gpt2 import GPT2LMHeadModel

from orchestrator.spec.model import Gpt2Config


def build_gpt2(config: Gpt2Config) -> nn.Module:
    """Build the language model of a `model: {family: gpt2}` section.

    It is called with `input_ids` and `labels` (the same tokens: it shifts them itself). Its loss is
    the mean over samples x (sequence length - 1) tokens, so the mean over equal micro-batches is
    that of the batch.

    Raises:
        ValueError: A size that comes from the data is still open, or the heads do not divide the
            width.
    """
    if config.vocab_size is None or config.n_positions is None:
        raise ValueError("gpt2: vocab_size and n_positions must be filled in from the data")
    model = GPT2LMHeadModel(
        GPT2Config(
            **config.model_dump(),
            # A cache of keys and values is for generating; in training it only costs memory.
            use_cache=False,
            # The default ids lie outside a small vocabulary.
            bos_token_id=None,
            eos_token_id=None,
            attn_implementation="sdpa",
        )
    )
    # Left open, transformers uses the same loss, but says so on stderr.
    model.loss_type = "ForCausalLM"
    return model
