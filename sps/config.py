"""Settings of a training run: one class per room; YAML in configs/sps/, overridden by --set room.key=value."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Room(BaseModel):
    """A group of settings; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid")


class TaskSettings(Room):
    """What is learnt."""

    name: str = Field("arithmetic", description="arithmetic, countdown, gsm8k, math, or user.")
    train: str | None = Field(
        None, description="File of training problems (JSONL, JSON or Parquet), where the task reads one."
    )
    test: str | None = Field(None, description="File of held-out problems.")
    reward: str | None = Field(None, description="user: module:function(completion, example) -> float, sync or async.")
    key: str | None = Field(
        None, description="user: module:function(completion, example) -> str, a solution's canonical form."
    )
    correct_at: float = Field(1.0, description="user: a reward of at least this counts as correct.")
    level: int = Field(1, ge=0, description="Generated tasks: difficulty.")
    train_size: int = Field(2_000, ge=1, description="Generated tasks: number of training problems.")
    test_size: int = Field(200, ge=1, description="Generated tasks: number of held-out problems.")
    seed: int = Field(0, description="Generated tasks: draws the problems.")
    style: Literal["words", "terse"] = Field(
        "words", description="Generated tasks: prompts in English, or in a few characters for the tiny policy."
    )
    template: str | None = Field(None, description="Prompt text with {prompt}, instead of the model's chat template.")
    system: str | None = Field(None, description="System message before every prompt of a chat template.")
    unreadable: Literal["error", "skip"] = Field(
        "error", description="math: what to do with problems whose gold answer cannot be read."
    )
    timeout: float = Field(5.0, gt=0, description="Seconds that a verifier may take for one completion.")
    workers: int = Field(4, ge=1, description="Threads that judge completions.")


class LoraSettings(Room):
    """Low-rank adapters instead of full weights."""

    rank: int = Field(16, ge=1, description="Of the adapters' two factors.")
    alpha: int = Field(32, ge=1, description="Adapters are scaled by alpha / rank.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Before the adapters.")
    targets: str | list[str] = Field("all-linear", description="Module names, or all-linear.")


class PolicySettings(Room):
    """The model that is trained."""

    model: str = Field("tiny", description="tiny, a Hugging Face folder or name, or a folder with a GGUF file.")
    gguf: str | None = Field(None, description="Name of the GGUF file inside the model's folder.")
    lora: LoraSettings | None = None
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="auto: bf16 on a GPU, fp32 elsewhere.")
    gradient_checkpointing: bool = False
    attention: str | None = Field(None, description="transformers' attn_implementation; its own choice by default.")
    head_chunk: int = Field(1_024, ge=1, description="Tokens whose logits are in memory at once.")
    tiny_cache: str = Field("~/.cache/sps", description="Where pre-trained tiny models are kept.")
    tiny_layers: int = Field(2, ge=1)
    tiny_width: int = Field(96, ge=8)
    tiny_steps: int = Field(600, ge=0, description="Steps of pre-training on worked solutions.")


class RolloutSettings(Room):
    """How completions are sampled."""

    engine: Literal["transformers", "vllm", "vllm-server"] = "transformers"
    prompts: int = Field(16, ge=1, description="Prompts per step, over all processes.")
    group: int = Field(8, ge=1, description="Completions per prompt.")
    max_tokens: int = Field(128, ge=1, description="Longest completion.")
    max_prompt_tokens: int | None = Field(
        None, description="Longer prompts are set aside and counted; by default what the context leaves."
    )
    temperature: float = Field(1.0, gt=0)
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int = Field(0, ge=0, description="0: all tokens.")
    rows: int = Field(256, ge=1, description="Completions decoded at once by the transformers engine.")
    importance_cap: float | None = Field(
        2.0, gt=0, description="Truncates the trainer/sampler importance ratio; null: no correction."
    )
    server: str | None = Field(None, description="vllm-server: base address.")
    server_weights: str | None = Field(
        None, description="vllm-server: folder that trainer and server share, for new weights."
    )
    vllm: dict[str, Any] = Field(
        default_factory=dict, description="Passed to vllm.LLM, such as gpu_memory_utilization."
    )


PRESETS: dict[str, dict[str, Any]] = {
    "grpo": {},
    "dr_grpo": {"advantage": "centred", "normalise": "constant"},
    "dapo": {"normalise": "token", "clip_high": 0.28, "dynamic_sampling": True, "truncated": "soft"},
    "gspo": {"ratio": "sequence", "clip_low": 3e-4, "clip_high": 4e-4},
    "passk": {"advantage": "passk", "normalise": "token"},
    "weighted_reinforce": {"advantage": "signed", "normalise": "token"},
    "kl_cov": {"normalise": "token", "kl_cov_fraction": 0.002, "kl_cov_coefficient": 1.0},
    "dph": {"normalise": "token", "forward_kl": 0.1},
}


class ObjectiveSettings(Room):
    """The policy gradient. A preset fills what is not given."""

    preset: str = Field("grpo", description=", ".join(PRESETS))
    advantage: Literal["standardised", "centred", "passk", "signed"] = "standardised"
    passk: int = Field(4, ge=1, description="advantage passk: k.")
    positive_weight: float = Field(0.1, ge=0, description="advantage signed: weight of right completions (wrong: 1).")
    normalise: Literal["sequence", "token", "constant"] = "sequence"
    ratio: Literal["token", "sequence"] = "token"
    clip_low: float = Field(0.2, ge=0)
    clip_high: float = Field(0.2, ge=0)
    dynamic_sampling: bool = Field(False, description="Replace prompts whose rewards are all equal by new ones.")
    dynamic_rounds: int = Field(4, ge=1, description="Most rounds of sampling per step.")
    truncated: Literal["zero", "mask", "soft"] = Field(
        "zero",
        description="Completions cut at the limit: judged as they are; left out of the loss; or DAPO's soft penalty.",
    )
    soft_tokens: int = Field(32, ge=1, description="truncated soft: length of the penalty's ramp before the limit.")
    kl: Literal["k1", "k2", "k3"] = "k3"
    kl_coefficient: float = Field(0.0, ge=0, description="Weight of the KL to the initial policy.")
    entropy_bonus: float = 0.0
    kl_cov_fraction: float = Field(0.0, ge=0, le=1)
    kl_cov_coefficient: float = Field(1.0, ge=0)
    forward_kl: float = Field(
        0.0, ge=0, description="Weight of the forward KL to the initial policy on prompts it solves (DPH)."
    )
    forward_kl_prompts: int = Field(256, ge=1, description="Prompts tried for that set before training.")
    forward_kl_solved: float = Field(
        0.5, ge=0, le=1, description="Share right from which on a prompt counts as solved."
    )

    @model_validator(mode="before")
    @classmethod
    def _preset(cls, values: Any) -> Any:
        name = values.get("preset", "grpo") if isinstance(values, dict) else "grpo"
        if name not in PRESETS:
            raise ValueError(f"no preset {name!r}; known are {', '.join(PRESETS)}")
        return PRESETS[name] | values if isinstance(values, dict) else values


class SteeringSettings(Room):
    """Inverse reinforcement on the policy's own rollouts (SPS)."""

    coefficient: float = Field(
        0.0, ge=0, description="Weight of the IRL loss beside the policy gradient's; 0: never steer."
    )
    support: Literal["correct", "all"] = "correct"
    alpha: float = Field(0.0, description="Power of the old policy in the target; 0: uniform.")
    beta: float = Field(1.0, gt=0, description="Temperature of the reward in the target.")
    length_exponent: float = Field(
        0.0, ge=0, description="Scores are log-probabilities over length to this power; 1 all but evens them out."
    )
    distinct_by: Literal["text", "key", "embedding"] = "text"
    embedding_model: str | None = Field(None, description="distinct_by embedding: a sentence-transformers model.")
    embedding_similarity: float = Field(
        0.9, gt=0, le=1, description="distinct_by embedding: cosine from which two are one."
    )
    replay: int = Field(
        0, ge=0, description="Earlier steps whose rewarded rollouts of the same prompt join the support."
    )
    trigger: Literal["periodic", "squeezing"] = "periodic"
    period: int = Field(2, ge=1, description="trigger periodic: steer every so many steps.")
    bound: float = Field(0.5, gt=0, le=1, description="trigger squeezing: steer while the top-1 share is above this.")
    warmup: int = Field(0, ge=0, description="Steps of reinforcement before the first steering.")
    inner_steps: int = Field(
        1, ge=1, description="Optimiser steps per steering; those after the first carry the IRL loss alone."
    )
    alone: bool = Field(
        False, description="The first inner step too carries the IRL loss alone, without the policy gradient."
    )
    direction: Literal["match", "literal"] = Field("match", description="literal: Eq. 4 as printed, a control.")


class OptimiserSettings(Room):
    """AdamW and its schedule."""

    learning_rate: float = Field(1e-6, gt=0)
    schedule: Literal["constant", "cosine"] = "constant"
    warmup: int = Field(0, ge=0, description="Steps of linear warm-up.")
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = Field(0.0, ge=0)
    clip: float = Field(1.0, gt=0, description="Largest gradient norm.")
    minibatches: int = Field(1, ge=1, description="Optimiser steps into which one step's rollouts are cut.")
    epochs: int = Field(1, ge=1, description="Passes over one step's rollouts.")


class TrainerSettings(Room):
    """The loop."""

    steps: int = Field(100, ge=1)
    problems: int | None = Field(
        None, ge=1, description="Train on the first so many problems alone; none: all. A tiny policy's worked "
        "solutions are drawn from all of them."
    )  # fmt: skip
    micro_batch_tokens: int = Field(16_384, ge=1, description="Tokens, padding included, in one forward pass.")
    checkpoint_every: int = Field(50, ge=1)
    keep_checkpoints: int = Field(2, ge=1, description="The last so many are kept.")
    evaluate_every: int = Field(50, ge=1)
    sharding: Literal["ddp", "fsdp"] = Field("ddp", description="How several processes share the model.")


class EvaluationSettings(Room):
    """Pass@k on held-out problems."""

    problems: int = Field(100, ge=1)
    samples: int = Field(16, ge=1, description="Completions per problem (n of Pass@k).")
    ks: list[int] = Field([1, 4, 16], min_length=1, description="Each at most `samples`.")
    temperature: float = Field(1.0, gt=0)
    top_p: float = Field(1.0, gt=0, le=1)
    resamples: int = Field(2_000, ge=1, description="Bootstrap resamples of problems.")
    probes: int = Field(
        16, ge=0, description="Problems whose initial completions are followed through training; 0: none."
    )
    probe_samples: int = Field(8, ge=1)

    @model_validator(mode="after")
    def _enough(self) -> "EvaluationSettings":
        if max(self.ks) > self.samples or min(self.ks) < 1:
            raise ValueError(f"Pass@{max(self.ks)} needs as many samples; evaluation.samples is {self.samples}")
        return self


class LogSettings(Room):
    """Where figures go besides log.jsonl."""

    to: list[Literal["tensorboard", "wandb", "trackio"]] = []
    project: str = "sps"
    samples: int = Field(2, ge=0, description="Completions kept per step in samples.jsonl.")


class Config(Room):
    """Everything that a training run can be told."""

    seed: int = 0
    output: str = Field("runs/sps", description="The run's folder.")
    task: TaskSettings = TaskSettings()
    policy: PolicySettings = PolicySettings()
    rollout: RolloutSettings = RolloutSettings()
    objective: ObjectiveSettings = ObjectiveSettings()
    steering: SteeringSettings = SteeringSettings()
    optimiser: OptimiserSettings = OptimiserSettings()
    trainer: TrainerSettings = TrainerSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    log: LogSettings = LogSettings()

    @model_validator(mode="after")
    def _fits_together(self) -> "Config":
        if self.rollout.group < 2 and self.objective.advantage != "signed":
            raise ValueError(
                "rollout.group is 1: a completion has nothing to be compared with; give at least 2, or "
                "objective.advantage: signed"
            )
        if self.objective.advantage == "passk" and self.rollout.group <= self.objective.passk:
            raise ValueError(f"objective.passk is {self.objective.passk}; rollout.group must be larger")
        if self.objective.kl_cov_fraction and self.optimiser.epochs * self.optimiser.minibatches < 2:
            raise ValueError(
                "objective.kl_cov_fraction acts from a step's second update on: give optimiser.minibatches 2"
            )
        if self.rollout.max_prompt_tokens is not None and self.rollout.max_prompt_tokens < 1:
            raise ValueError("rollout.max_prompt_tokens must be at least 1")
        return self
