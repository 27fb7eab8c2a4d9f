"""The shapes of the Hugging Face text towers that open_clip uses, so that they can be built without the hub.

They are what each model's published `config.json` says: RoBERTa (Liu et al. 2019), XLM-R (Conneau et al.
2020), mT5 (Xue et al. 2021), and NLLB-200 (Costa-jussà et al. 2022).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

ROBERTA_BASE = {
    "type": "roberta",
    "vocab_size": 50265,
    "max_position_embeddings": 514,
    "type_vocab_size": 1,
    "layer_norm_eps": 1e-5,
    "pad_token_id": 1,
}
XLM_ROBERTA_BASE = ROBERTA_BASE | {"type": "xlm-roberta", "vocab_size": 250002}
LARGE = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
}
MT5_BASE = {
    "type": "mt5",
    "vocab_size": 250112,
    "d_model": 768,
    "d_ff": 2048,
    "num_layers": 12,
    "num_heads": 12,
    "feed_forward_proj": "gated-gelu",
}
NLLB = {
    "type": "m2m_100",
    "vocab_size": 256206,
    "d_model": 1024,
    "encoder_layers": 12,
    "decoder_layers": 12,
    "encoder_attention_heads": 16,
    "encoder_ffn_dim": 4096,
    "max_position_embeddings": 1024,
    "scale_embedding": True,
    "activation_function": "relu",
}
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "roberta-base": ROBERTA_BASE,
    "xlm-roberta-base": XLM_ROBERTA_BASE,
    "xlm-roberta-large": XLM_ROBERTA_BASE | LARGE,
    "google/mt5-base": MT5_BASE,
    "google/mt5-xl": MT5_BASE | {"d_model": 2048, "d_ff": 5120, "num_layers": 24, "num_heads": 32},
    "facebook/nllb-200-distilled-600M": NLLB,
    "facebook/nllb-200-distilled-1.3B": NLLB
    | {"encoder_layers": 24, "decoder_layers": 24, "encoder_ffn_dim": 8192},
}


@contextmanager
def without_the_hub() -> Iterator[None]:
    """Within this context, open_clip takes these configurations for those of the hub.

    Without `transformers`, open_clip says itself that it needs it.
    """
    from open_clip import hf_model

    if getattr(hf_model, "transformers", None) is None:
        yield
        return
    original = hf_model.AutoConfig

    class Configurations:
        """Stands for `transformers.AutoConfig`."""

        @staticmethod
        def from_pretrained(name: str) -> Any:
            from transformers import AutoConfig

            settings = dict(CONFIGURATIONS[name])
            # No decoder: open_clip throws it away, and NLLB's is as large as the encoder.
            decoder = {"decoder_layers": 1} if "decoder_layers" in settings else {"num_decoder_layers": 1}
            if settings["type"] in ("mt5", "m2m_100"):
                settings |= decoder
            return AutoConfig.for_model(settings.pop("type"), **settings)

    hf_model.AutoConfig = Configurations
    try:
        yield
    finally:
        hf_model.AutoConfig = original
