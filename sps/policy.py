"""The policy: a causal language model that scores completions, turns prompts into tokens, and is saved for anyone.

Batches are padded on the right and what is scored leaves packed: one row after the other, completion tokens alone.
"""

from collections.abc import Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from jinja2 import TemplateError
from torch import Tensor, nn
from transformers import PreTrainedModel

from sps.config import PolicySettings, TaskSettings
from sps.lm_head import TokenStats, demand_plain_head, token_stats
from sps.lora import adapt, merged
from sps.prefix import hidden_before
from sps.pretrained import load_pretrained
from sps.records import Message, Prompt, Task, Tokens
from sps.tiny import pretrained_tiny

_PREFIX = "model."  # of the network's weights among the policy's


class Policy(nn.Module):
    """A network and its tokenizer; the module that processes share, so everything that needs weights is in `forward`.

    Attributes:
        model: the transformers network, inside peft's wrapper where there are adapters.
        tokenizer: its tokenizer.
        eos_ids: tokens that end a completion.
        context: longest prompt and completion together, in tokens.
        autocast: products are taken in bf16 over weights kept in fp32 (with LoRA, frozen weights are kept in bf16).
    """

    def __init__(self, model: Any, tokenizer: Any, head_chunk: int, autocast: bool = False) -> None:
        """Raises ValueError where the chunked head would not give the model's own logits, or it cannot end."""
        super().__init__()
        self.model = model
        self.tokenizer = tokenizer
        self.head_chunk = head_chunk
        self.autocast = autocast
        network = self.network
        self.eos_ids = _ends(network, tokenizer)
        self.context = int(network.config.get_text_config().max_position_embeddings)
        demand_plain_head(network, network.base_model, network.get_output_embeddings())

    @property
    def lora(self) -> bool:
        """Whether `model` is peft's wrapper around a network with adapters."""
        return not isinstance(self.model, PreTrainedModel)

    @property
    def network(self) -> Any:
        """The transformers network without peft's wrapper (its layers still hold the adapters)."""
        return self.model.get_base_model() if self.lora else self.model

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        device: torch.device = next(self.parameters()).device
        return device

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, targets: Tensor, temperature: float, with_entropy: bool
    ) -> TokenStats:
        """Log-probabilities of the target tokens, packed in row-major order, and entropies where asked for.

        input_ids (B, L) int64 padded on the right, attention_mask (B, L), targets (B, L) bool: True where a token is to
        be scored. Only the hidden states before targets meet the head.

        Raises:
            ValueError: a row's first token is a target; nothing is before it.
        """
        if targets[:, 0].any():
            raise ValueError("a completion needs a prompt before it: a row's first token cannot be scored")
        with self.precision():
            share = not self.network.is_gradient_checkpointing  # which would throw the prompts' keys away
            hidden = hidden_before(self.network.base_model, input_ids, attention_mask, targets, share)  # (N, H)
            head = self.network.get_output_embeddings()
            chosen = input_ids[targets]  # (N,)
            return token_stats(hidden, head.weight, head.bias, chosen, temperature, self.head_chunk, with_entropy)

    def precision(self) -> AbstractContextManager[Any]:
        """The arithmetic of `forward`, for those who call `model` themselves."""
        return torch.autocast(self.device.type, torch.bfloat16) if self.autocast else nullcontext()

    @contextmanager
    def reference(self) -> Iterator[None]:
        """Within it the adapters are off: `forward` gives the initial policy, without gradients.

        Raises:
            ValueError: all weights are trained, so that the initial ones are gone; keep a frozen copy instead.
        """
        if not self.lora:
            raise ValueError("only a LoRA policy holds its initial weights; keep a frozen copy of this one")
        with torch.no_grad(), self.model.disable_adapter():
            yield

    def blocks(self) -> list[nn.Module]:
        """The transformer blocks, in order: the units of sharding.

        Raises:
            ValueError: transformers does not name this model's blocks.
        """
        names = set(self.network._no_split_modules or ())
        blocks = [module for module in self.network.modules() if type(module).__name__ in names]
        if not blocks:
            raise ValueError(f"{type(self.network).__name__} names no blocks to shard; give trainer.sharding: ddp")
        return blocks

    def save(self, folder: Path, state: dict[str, Tensor] | None = None) -> None:
        """Write weights (adapters merged) and tokenizer as a folder that plain `from_pretrained` loads.

        state: this module's whole `state_dict`, where it is sharded over processes; by default its own.
        """
        whole = self.state_dict() if state is None else state
        if missing := [name for name in whole if not name.startswith(_PREFIX)]:
            raise ValueError(f"{missing[0]!r} is no weight of a policy; give the state_dict of the Policy itself")
        weights = {name.removeprefix(_PREFIX): tensor for name, tensor in whole.items()}
        if self.lora:
            weights = merged(self.model, weights)
        self.network.save_pretrained(folder, state_dict=weights)
        self.tokenizer.save_pretrained(folder)

    def prompt_ids(self, prompt: Prompt, settings: TaskSettings) -> list[int]:
        """Tokens of a prompt: through the template of the settings, else the model's chat template, else as it is.

        Raises:
            ValueError: chat messages, or a system message, that there is no chat template for; a template without
                {prompt}; a prompt that is empty or has characters that the tokenizer does not know.
        """
        chat = settings.template is None and self.tokenizer.chat_template is not None
        if settings.system is not None and not chat:
            raise ValueError("task.system goes into a chat template; put it into task.template, or leave it out")
        if isinstance(prompt, Tokens):
            ids = list(prompt.ids)
        elif chat:
            ids = self._chat_ids(prompt, settings.system)
        elif not isinstance(prompt, str):
            raise ValueError("the prompts are chat messages, which need the model's chat template; give text prompts")
        else:
            template = "{prompt}" if settings.template is None else settings.template
            if "{prompt}" not in template:
                raise ValueError(f"task.template {template!r} has no place for the problem; write {{prompt}} there")
            ids = self._text_ids(template.replace("{prompt}", prompt))
        if not ids:
            raise ValueError("a prompt without a single token: the first token of a completion needs one before it")
        return ids

    def _chat_ids(self, prompt: str | list[Message], system: str | None) -> list[int]:
        messages: list[Message] = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
        if system is not None:
            messages = [{"role": "system", "content": system}, *(m for m in messages if m["role"] != "system")]
        try:
            ids = self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        except TemplateError as error:
            raise ValueError(f"the model's chat template refuses the prompt: {error}; see task.system") from error
        return list(ids)

    def _text_ids(self, text: str) -> list[int]:
        tokenizer = self.tokenizer
        written = tokenizer.bos_token is not None and text.startswith(tokenizer.bos_token)
        ids = list(tokenizer(text, add_special_tokens=not written).input_ids)
        if ids and ids[-1] == tokenizer.eos_token_id and not text.endswith(tokenizer.eos_token):
            ids.pop()  # some tokenizers end every text; here the completion follows
        unknown = tokenizer.unk_token_id
        if unknown in ids and unknown not in (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id):
            known = (character for character in text if unknown in tokenizer(character).input_ids)
            raise ValueError(f"the tokenizer does not know {next(known, '?')!r} of the prompt {text[:60]!r}")
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of tokens, special ones left out."""
        text: str = self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text


def load_policy(settings: PolicySettings, task: Task | None = None, seed: int = 0, cache: Path | None = None) -> Policy:
    """The policy of the settings, on the CPU; "tiny" is built and pre-trained on the task's worked solutions once.

    cache: where pre-trained tiny models are kept, by default where the settings say; seed draws the tiny model, its
    training, and LoRA's adapters.

    Raises:
        ValueError: there is no such model or it is none that can be trained here; tiny without a task that offers
            worked solutions; peft is not installed.
    """
    bf16 = settings.precision == "bf16" or (
        settings.precision == "auto" and torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    )
    if settings.model == "tiny":
        folder = pretrained_tiny(settings, task, seed, cache or Path(settings.tiny_cache).expanduser())
        settings = settings.model_copy(update={"model": str(folder), "gguf": None})
    # Weights that are trained stay in fp32: an update of 1e-6 vanishes in bf16's rounding.
    model, tokenizer = load_pretrained(settings, torch.bfloat16 if bf16 and settings.lora else torch.float32)
    if settings.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if settings.lora is not None:
        model = adapt(model, settings.lora, seed)
    return Policy(model, tokenizer, settings.head_chunk, autocast=bf16)


def collate(
    rows: Sequence[tuple[Sequence[int], Sequence[int]]], pad_id: int, device: torch.device | str
) -> tuple[Tensor, Tensor, Tensor]:
    """Prompts and completions as `Policy.forward` takes them: input_ids and attention_mask int64, targets bool, (B, L).

    Masks are made from lengths: a pad id that is also a real token does no harm, and a completion's last token is
    scored whatever it is.

    Raises:
        ValueError: a prompt is empty.
    """
    length = max(len(prompt) + len(completion) for prompt, completion in rows)
    input_ids = torch.full((len(rows), length), pad_id, dtype=torch.long)
    attention_mask = torch.zeros(len(rows), length, dtype=torch.long)
    targets = torch.zeros(len(rows), length, dtype=torch.bool)
    for row, (prompt, completion) in enumerate(rows):
        begin, end = len(prompt), len(prompt) + len(completion)
        if begin == 0:
            raise ValueError(f"row {row}: an empty prompt; the first token of a completion needs one before it")
        input_ids[row, :end] = torch.tensor([*prompt, *completion])
        attention_mask[row, :end] = 1
        targets[row, begin:end] = True
    return input_ids.to(device), attention_mask.to(device), targets.to(device)


def micro_batches(lengths: Sequence[int], tokens: int, prompts: Sequence[Hashable] | None = None) -> list[list[int]]:
    """Rows in micro-batches: rows times longest row is at most `tokens`, but for a longer row, which is alone.

    Longest first, so that little is padded; rows of an equal prompt, where `prompts` are given, stay together as far as
    the limit lets them, so that it is read once.
    """
    named: Sequence[Hashable] = range(len(lengths)) if prompts is None else prompts
    longest: dict[Hashable, int] = {}
    first: dict[Hashable, int] = {}
    for row, (prompt, length) in enumerate(zip(named, lengths, strict=True)):
        longest[prompt] = max(length, longest.get(prompt, 0))
        first.setdefault(prompt, row)
    batches: list[list[int]] = []
    width = 0
    for row in sorted(range(len(lengths)), key=lambda i: (-longest[named[i]], first[named[i]], -lengths[i])):
        wider = max(width, lengths[row])
        if batches and wider * (len(batches[-1]) + 1) <= tokens:
            batches[-1].append(row)
            width = wider
        else:
            batches.append([row])
            width = lengths[row]
    return batches


def _ends(network: Any, tokenizer: Any) -> set[int]:
    """Every token that ends a completion, by the model or by the tokenizer: chat models may name two."""
    given = network.generation_config.eos_token_id if network.generation_config is not None else None
    named = [*(given if isinstance(given, list) else [given]), tokenizer.eos_token_id]
    ends = {int(token) for token in named if token is not None}
    if not ends:
        raise ValueError(
            f"{type(network).__name__}: neither the model nor its tokenizer names an end-of-sequence token"
        )
    return ends
