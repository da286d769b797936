"""A BERT-like classifier's last layer for the first token alone, which is all that its head reads.

Keys and values of the last layer are still those of every token; queries, the layer's output and its feed-forward part,
five sixths of its products, are computed for one token a row. Scores are the same but for rounding (ours).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import (
    BertForSequenceClassification,
    ElectraForSequenceClassification,
    RobertaForSequenceClassification,
    XLMRobertaForSequenceClassification,
)

# Their encoders' layers are built alike, and their heads read the first token.
READ_THE_FIRST = (
    BertForSequenceClassification,
    ElectraForSequenceClassification,
    RobertaForSequenceClassification,
    XLMRobertaForSequenceClassification,
)


@contextmanager
def last_layer_for_first_token(network: Any) -> Iterator[None]:
    """Inside, a network of the classes above computes its last layer for the first token; others are as they were.

    Dropout is left out there: not for training.
    """
    layer = network.base_model.encoder.layer[-1] if type(network) in READ_THE_FIRST else None
    if layer is None or layer.attention.self.is_decoder:
        yield
        return

    def forward(hidden: Tensor, attention_mask: Tensor | None = None, *_: Any, **__: Any) -> Tensor:
        attention = layer.attention.self
        rows, tokens = hidden.shape[:2]
        first = hidden[:, :1]  # (B, 1, H)
        query, key, value = (
            projected.view(rows, -1, attention.num_attention_heads, attention.attention_head_size).transpose(1, 2)
            for projected in (attention.query(first), attention.key(hidden), attention.value(hidden))
        )
        mask = attention_mask if attention_mask is None else attention_mask[..., :1, :tokens]
        context = scaled_dot_product_attention(query, key, value, mask, scale=attention.scaling)
        attended = layer.attention.output(context.transpose(1, 2).reshape(rows, 1, -1), first)
        output: Tensor = layer.feed_forward_chunk(attended)
        return output

    layer.forward = forward
    try:
        yield
    finally:
        del layer.forward  # the class's own shows again
