"""The policy: a causal language model that gives the log-probability of every completion token.

Deliberately unlike transformers' own loss: forward takes right-padded prompts with completions and returns packed
values of the completion tokens alone, (N,), so that nothing after it knows of padding; and logits exist a chunk at a
time only.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sps.config import LoraSettings, PolicySettings, TaskSettings
from sps.lm_head import TokenStats, demand_plain_head, token_stats
from sps.records import Prompt, Task

Row = tuple[Sequence[int], Sequence[int]]  # prompt ids, completion ids


class Policy(nn.Module):
    """A causal language model with its tokenizer.

    Attributes:
        model: the transformers (or peft) model.
        eos_ids: tokens that end a completion.
        context: most tokens of prompt and completion together.
        autocast: forward passes multiply in bfloat16 over float32 weights.
    """

    def __init__(self, model: Any, tokenizer: Any, head_chunk: int = 1_024, autocast: bool = False) -> None:
        super().__init__()
        self.model = model
        self.tokenizer = tokenizer
        self.head_chunk = head_chunk
        self.autocast = autocast
        ends = model.generation_config.eos_token_id if model.generation_config else None
        ends = ends if ends is not None else tokenizer.eos_token_id
        self.eos_ids: set[int] = set(ends) if isinstance(ends, list) else {int(ends)}
        self.context = int(model.config.max_position_embeddings)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, targets: Tensor, temperature: float, with_entropy: bool
    ) -> TokenStats:
        """Score the tokens marked in `targets`.

        Args:
            input_ids: (B, L) int64, padded on the right; attention_mask: (B, L), 0 on padding.
            targets: (B, L) bool, True on the tokens to score; never in the first column.
            temperature: divides the logits, as it did in sampling.
        """
        with self.computing():
            hidden = self.body()(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)[0]
            chosen = targets[:, 1:]  # position t predicts token t + 1
            head = self.model.get_output_embeddings()
            return token_stats(
                hidden[:, :-1][chosen], head.weight, head.bias, input_ids[:, 1:][chosen],
                temperature, self.head_chunk, with_entropy,
            )  # fmt: skip

    def computing(self) -> AbstractContextManager[object]:
        """The precision of forward passes, for engines that call `model` themselves."""
        return torch.autocast(self.device.type, torch.bfloat16) if self.autocast else nullcontext()

    def blocks(self) -> list[nn.Module]:
        """The transformer's layers, which FSDP shards one by one."""
        layers = self.body().layers
        return list(layers)

    @contextmanager
    def reference(self) -> Iterator[None]:
        """Inside, forward gives the initial policy: LoRA's adapters are off. Raises ValueError without LoRA."""
        if not hasattr(self.model, "disable_adapter"):
            raise ValueError("only a policy with LoRA holds its initial self; copy this one before training")
        with self.model.disable_adapter():
            yield

    def prompt_ids(self, prompt: Prompt, settings: TaskSettings) -> list[int]:
        """A prompt's tokens: through `task.template`, else the model's chat template, else as plain text.

        Raises:
            ValueError: the template lacks {prompt}, or messages meet a model without chat template.
        """
        if settings.template is not None:
            if "{prompt}" not in settings.template:
                raise ValueError("task.template has no {prompt} in it")
            if not isinstance(prompt, str):
                raise ValueError("task.template takes text prompts; these are chat messages")
            return list(self.tokenizer(settings.template.replace("{prompt}", prompt))["input_ids"])
        if self.tokenizer.chat_template is None:
            if not isinstance(prompt, str):
                raise ValueError("the prompts are chat messages but the model has no chat template; give task.template")
            return list(self.tokenizer(prompt)["input_ids"])
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
        if settings.system is not None:
            messages = [{"role": "system", "content": settings.system}, *messages]
        text = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def decode(self, ids: Sequence[int]) -> str:
        """Text of tokens, without special ones."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))

    def save(self, folder: Path) -> None:
        """Write a folder that plain `from_pretrained` loads; LoRA's adapters are merged into a copy."""
        model = self.model
        if hasattr(model, "merge_and_unload"):
            import copy

            model = copy.deepcopy(model).merge_and_unload()
        model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    def body(self) -> Any:
        """The model without its head."""
        model = self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model
        return model.base_model


def load_policy(settings: PolicySettings, task: Task, seed: int, cache: Path) -> Policy:
    """The policy that the settings name, on the CPU, in float32, ready for training.

    Args:
        task: what "tiny" is pre-trained on. cache: folder where pre-trained tiny models are kept.

    Raises:
        ValueError: there is no such model, or its head is not a plain projection.
    """
    if settings.model == "tiny":
        from sps.tiny import tiny_model

        model, tokenizer = tiny_model(settings, task, seed, cache)
    else:
        model, tokenizer = _pretrained(settings)
    if settings.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    bf16 = settings.precision == "bf16" or (settings.precision == "auto" and torch.cuda.is_available())
    if settings.lora is not None:
        model = _adapted(model, settings.lora)
    policy = Policy(model, tokenizer, settings.head_chunk, autocast=bf16)
    demand_plain_head(model, policy.body(), model.get_output_embeddings())
    return policy


def collate(rows: Sequence[Row], pad_id: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Rows as (input_ids, attention_mask, targets), each (B, L), padded on the right; masks come from lengths alone."""
    lengths = torch.tensor([[len(prompt), len(prompt) + len(completion)] for prompt, completion in rows])
    position = torch.arange(int(lengths[:, 1].max()))
    mask = position < lengths[:, 1:]
    targets = mask & (position >= lengths[:, :1])
    ids = torch.full(mask.shape, pad_id, dtype=torch.long)
    ids[mask] = torch.tensor([token for prompt, completion in rows for token in (*prompt, *completion)])
    return ids.to(device), mask.long().to(device), targets.to(device)


def micro_batches(lengths: Sequence[int], tokens: int) -> list[list[int]]:
    """Indices of rows of like length together, longest first; rows times longest is at most `tokens`, or one row."""
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if batches and lengths[batches[-1][0]] * (len(batches[-1]) + 1) <= tokens:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches


def _pretrained(settings: PolicySettings) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    options: dict[str, Any] = {"dtype": torch.float32}
    if settings.attention is not None:
        options["attn_implementation"] = settings.attention
    if settings.gguf is not None:
        options["gguf_file"] = settings.gguf
    try:
        model = AutoModelForCausalLM.from_pretrained(settings.model, **options)
        tokenizer = AutoTokenizer.from_pretrained(
            settings.model, **({"gguf_file": settings.gguf} if settings.gguf else {})
        )
    except OSError as error:
        raise ValueError(
            f"policy.model {settings.model!r} could not be loaded: it is no folder with a model here, and "
            f"could not be fetched ({str(error).splitlines()[0]})"
        ) from error
    if settings.gguf is not None:
        _forget_quantisation(model)
    return model, tokenizer


def _forget_quantisation(model: Any) -> None:
    """The weights are float32 now; without this `save_pretrained` refuses them as quantised."""
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.hf_quantizer = None
    model.is_quantized = False


def _adapted(model: Any, settings: LoraSettings) -> Any:
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise ValueError("policy.lora needs peft: pip install 'serm[sps]'") from error
    config = LoraConfig(
        r=settings.rank, lora_alpha=settings.alpha, lora_dropout=settings.dropout, target_modules=settings.targets,
        task_type="CAUSAL_LM",
    )  # fmt: skip
    return get_peft_model(model, config)
