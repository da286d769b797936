"""Settings of the relevance model, its updates and its evaluation."""

from typing import Any, Literal

from pydantic import Field, field_validator

from serm.config.room import Room
from sps.config import LoraSettings


class RelevanceSettings(Room):
    """The relevance model and its training."""

    base: str = Field("embedded:minilm", description="Starting weights: embedded:minilm, a folder, or a hub name.")
    family: Literal["cross_encoder", "generative"] = Field(
        "cross_encoder",
        description="Small and fast, or a language model that writes the label. Models trained from now on; a version "
        "in the registry keeps its own.",
    )
    embedder: str = Field("embedded:minilm", description="Sentence embeddings: embedded:minilm, a folder, a hub name.")
    max_tokens: int = Field(96, ge=8, description="Tokens of query and document together.")
    batch_tokens: int = Field(8_192, ge=64, description="Tokens per scoring batch (pairs are sorted by length).")
    batch_pairs: int = Field(32, ge=1, description="Pairs per training step.")
    learning_rate: float = Field(1e-4, gt=0, description="Peak, of the first model's training.")
    weight_decay: float = Field(0.01, ge=0, description="Of AdamW.")
    warmup_share: float = Field(0.1, ge=0, le=1, description="Share of the steps in which the rate rises.")
    max_epochs: float = Field(3.0, gt=0, description="Most passes over the training pairs.")
    evaluate_every: int = Field(100, ge=1, description="Steps between dev evaluations.")
    patience: int = Field(3, ge=1, description="Stop after this many dev evaluations without a better NDCG@10.")
    checkpoint_every: int = Field(100, ge=1, description="Steps between resumable checkpoints.")
    micro_batch_tokens: int = Field(
        16_384, ge=1, description="Training: tokens, padding included, in one forward pass; changes no gradient."
    )
    ordinal_weight: float = Field(
        0.0, ge=0, description="Weight of the squared earth mover's distance beside the label loss."
    )
    class_balance: float = Field(
        0.0, ge=0, le=1, description="Power of a label's inverse frequency in its pairs' weights; 1: all labels alike."
    )
    label_mass_weight: float = Field(
        1.0,
        ge=0,
        description="generative: weight of -log Pr(any label); 1: plain next-token loss, 0: what scores read.",
    )
    rationale_weight: float = Field(0.2, ge=0, description="generative: weight of the rationale's mean token loss.")
    rationale_tokens: int = Field(128, ge=1, description="generative: longest rationale, learnt or written.")
    lora: LoraSettings | None = Field(None, description="generative: train adapters of this rank, not all weights.")
    gradient_checkpointing: bool = Field(False, description="generative: a third more time for much less memory.")
    pretrain_epochs: float = Field(
        0.0, ge=0, description="generative: passes over the workspace's texts before the first model learns labels."
    )
    pretrain_texts: int = Field(200_000, ge=1, description="Most documents, and most queries, drawn for that.")
    pretrain_tokens: int = Field(512, ge=16, description="Tokens of a block into which texts are packed.")
    pretrain_blocks: int = Field(16, ge=1, description="Blocks per step.")
    pretrain_learning_rate: float = Field(5e-5, gt=0, description="Peak, of that.")
    instructions: str = Field(
        "Judge how well a document answers a search query.",
        description="generative: how to judge; stands before the query and is read once for all pairs.",
    )
    chat_template: bool = Field(False, description="generative: prompts go through the model's chat template.")
    sampled_judgments: Literal["label", "reason"] = Field(
        "label",
        description="generative: judgments are drawn from the label's probabilities, or follow a reason each.",
    )
    engine: Literal["transformers", "vllm", "vllm-server"] = Field(
        "transformers", description="generative: what runs the language model when it scores and writes."
    )
    server: str | None = Field(None, description="engine vllm-server: its address, such as http://localhost:8000.")
    vllm: dict[str, Any] = Field(
        default_factory=dict, description="engine vllm: passed to vllm.LLM, such as gpu_memory_utilization."
    )
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="auto: bf16 where the processor has it.")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, mps.")
    passes: int = Field(5, ge=2, description="K judgments per pair for the disagreement agent.")


Method = Literal["sft", "sps", "sft+sps"]


class SpsSettings(Room):
    """Reinforcement with agreed labels as the reward: `serm update --method sps` (generative models)."""

    steps: int = Field(100, ge=1, description="Of reinforcement.")
    prompts: int = Field(16, ge=1, description="Pairs per step.")
    group: int = Field(8, ge=2, description="Answers sampled for each pair.")
    learning_rate: float = Field(2e-6, gt=0, description="Peak, of reinforcement.")
    reward: Literal["exact", "ordinal"] = Field(
        "exact", description="exact: 1 for the agreed label; ordinal: less by the distance from it."
    )
    format_weight: float = Field(0.1, ge=0, lt=1, description="Reward of any label of the scale in the right place.")
    rationale_tokens: int = Field(0, ge=0, description="Tokens sampled after the label; 0: the label is the answer.")
    held_out: int = Field(64, ge=1, description="Human dev pairs that sps measures on before and after.")
    settings: dict[str, dict[str, Any]] = Field(
        {}, description="More settings of sps by room, such as {objective: {kl_coefficient: 0.05}}; see sps train."
    )


class UpdateSettings(Room):
    """The training mixture of an update."""

    method: Method = Field("sft", description="sft: supervised; sps: reinforced, labels as reward; or both in turn.")
    new_share: float = Field(0.5, gt=0, le=1, description="Share of each epoch drawn from this round's labels.")
    earlier_share: float = Field(0.2, ge=0, le=1, description="... from earlier rounds' labels.")
    original_share: float = Field(0.3, ge=0, le=1, description="... from the original human train split.")
    new_weight: float = Field(1.0, ge=0, description="Weight in the loss of a pair of this round,")
    earlier_weight: float = Field(1.0, ge=0, description="... of an earlier round,")
    original_weight: float = Field(1.0, ge=0, description="... and of the original human judgments.")
    soft_labels: bool = Field(
        False,
        description="Train on the annotators' posterior where a pair has one, not corrected by confusion.",
    )
    posterior_power: float = Field(
        0.0, ge=0, description="Pairs also weigh their posterior's largest value to this power; 0: all alike."
    )
    learning_rate: float = Field(5e-5, gt=0, description="Peak, of an update.")
    epochs: float = Field(2.0, gt=0, description="Passes over this round's labels.")
    stop_on_dev: bool = Field(
        False, description="Measure on the human dev set as the first model does, and keep the best weights."
    )
    sps: SpsSettings = Field(SpsSettings(), description="For serm update --method sps.")
    calibration_pairs: int = Field(
        300,
        ge=0,
        description="Human-judged pairs that the annotators label once, to learn how they err; 0 = none.",
    )
    minimum_labels: int = Field(20, ge=1, description="Fewer kept labels than this: no update.")


class EvaluationSettings(Room):
    """Measures, intervals and the gate."""

    measures: list[str] = Field(["nDCG@1", "nDCG@5", "nDCG@10", "RR"], description="ir_measures names.")
    gate_measure: str = Field("nDCG@10", description="The measure that the gate compares.")
    resamples: int = Field(2_000, ge=100, description="Bootstrap resamples over queries.")
    minimum_queries: int = Field(30, ge=2, description="Fewer judged queries than this: the gate refuses.")
    alpha: float = Field(0.05, gt=0, lt=1, description="Level of the paired test.")
    anchor_tolerance: float = Field(0.01, ge=0, description="Largest loss on the anchor set that is let pass.")
    slice_minimum: int = Field(10, ge=2, description="Judged queries below which a slice gets no figures, only its n.")
    families: dict[str, list[str]] = Field(
        {
            "Germanic": ["en", "de", "nl", "sv", "da", "no", "nb", "nn", "is", "af", "lb", "fy", "yi"],
            "Romance": ["es", "pt", "fr", "it", "ro", "ca", "gl", "oc"],
        },
        description="Language family -> its language codes (pt covers pt-BR); all other languages are 'other'.",
    )
    era: str = Field("log", description="What dates a query: log, its first search; or a numeric document attribute.")
    eras: int = Field(3, ge=2, description="Eras that the dated queries are cut into, with equally many queries each.")
    calibration_bins: int = Field(15, ge=2, description="Bins of the calibration errors and reliability diagrams.")
    correction: Literal["holm", "bh"] = Field(
        "holm", description="For a comparison's many tests: holm (family-wise error) or bh (false discovery rate)."
    )
    examples: int = Field(10, ge=0, description="Queries, and pairs, in each list of wins and of losses.")

    @field_validator("families")
    @classmethod
    def _one_family_each(cls, families: dict[str, list[str]]) -> dict[str, list[str]]:
        codes = [code.lower() for languages in families.values() for code in languages]
        twice = sorted({code for code in codes if codes.count(code) > 1})
        if twice:
            raise ValueError(f"language {twice[0]!r} is in two families; keep it in one")
        return families
