"""Settings: one class per room. How they are read is in `serm.configure`."""

from datetime import date
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict


class Room(BaseModel):
    """One room's settings: unknown keys are errors, so that a typo never passes for a default."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True)


class LabelSettings(Room):
    """The relevance scale."""

    scale: list[int] = Field([0, 1, 2, 3], description="Grades from bad to excellent, ascending.")
    names: dict[int, str] = Field(
        {0: "bad", 1: "fair", 2: "good", 3: "excellent"}, description="A word for each grade, shown to annotators."
    )

    @field_validator("scale")
    @classmethod
    def _ascending(cls, scale: list[int]) -> list[int]:
        if len(scale) < 2 or scale != sorted(set(scale)):
            raise ValueError("give at least two different grades in ascending order, such as [0, 1]")
        return scale


class WindowSettings(Room):
    """Which part of the stream a round reads."""

    days: float = Field(14, gt=0, description="Length of the current window, ending at the newest impression.")
    reference_days: float = Field(14, gt=0, description="Length of the window before it, that it is compared with.")


class IngestSettings(Room):
    """How foreign files become records."""

    batch_rows: int = Field(200_000, ge=1, description="Rows per atomic commit.")
    max_query_characters: int = Field(1_000, ge=1, description="Longer queries go to quarantine.")
    max_position: int = Field(1_000, ge=1, description="Positions beyond this are impossible.")
    max_dwell: float = Field(86_400.0, gt=0, description="Seconds; longer dwell times are impossible.")
    columns: dict[str, str] = Field({}, description="Our field -> their column, for files with other names.")
    max_future_days: float = Field(366.0, ge=0, description="Timestamps further ahead of the clock are impossible.")
    timestamp_format: str | None = Field(None, description="strptime format for text timestamps; ISO 8601 otherwise.")
    text_fields: list[str] = Field([], description="Document fields joined into its text; empty = every text column.")
    dev_share: float = Field(0.1, ge=0, lt=1, description="Share of judged queries kept for early stopping.")
    anchor_share: float = Field(0.2, ge=0, lt=1, description="Share of judged queries kept as the gate's anchor set.")

    @model_validator(mode="after")
    def _some_train(self) -> "IngestSettings":
        if self.dev_share + self.anchor_share >= 1:
            raise ValueError("dev_share and anchor_share together leave no judged query to train on")
        return self


class RelevanceSettings(Room):
    """The relevance model and its training."""

    base: str = Field("embedded:minilm", description="Starting weights: embedded:minilm, a folder, or a hub name.")
    family: Literal["cross_encoder", "generative"] = "cross_encoder"
    embedder: str = Field("embedded:minilm", description="Sentence embeddings: embedded:minilm, a folder, a hub name.")
    max_tokens: int = Field(96, ge=8, description="Tokens of query and document together.")
    batch_tokens: int = Field(8_192, ge=64, description="Tokens per scoring batch (pairs are sorted by length).")
    batch_pairs: int = Field(32, ge=1, description="Pairs per training step.")
    learning_rate: float = Field(1e-4, gt=0)
    weight_decay: float = Field(0.01, ge=0)
    warmup_share: float = Field(0.1, ge=0, le=1)
    max_epochs: float = Field(3.0, gt=0, description="Most passes over the training pairs.")
    evaluate_every: int = Field(100, ge=1, description="Steps between dev evaluations.")
    patience: int = Field(3, ge=1, description="Stop after this many dev evaluations without a better NDCG@10.")
    checkpoint_every: int = Field(100, ge=1, description="Steps between resumable checkpoints.")
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="auto: bf16 where the processor has it.")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, mps.")
    passes: int = Field(5, ge=2, description="K judgments per pair for the disagreement agent.")


class ShiftSettings(Room):
    """Distribution shift between the reference and the current window."""

    sample: int = Field(2_000, ge=50, description="Fixed subsample per window: verdicts do not depend on its size.")
    minimum: int = Field(50, ge=10, description="Fewer distinct queries than this in a window: no verdict.")
    false_discovery_rate: float = Field(0.01, gt=0, lt=1, description="Benjamini-Hochberg level over the views.")
    mild_effect: float = Field(0.05, ge=0, description="Effect from which a significant view counts.")
    strong_effect: float = Field(0.15, ge=0, description="Effect from which the verdict is strong.")
    clusters: int = Field(20, ge=2, description="Query clusters looked at for growth.")
    growth: float = Field(1.5, ge=1, description="A cluster has grown when its share is so many times what it was.")
    scored: int = Field(400, ge=50, description="Searches per window whose top result the model scores.")


class ClickSettings(Room):
    """The click model that takes bias and sparsity out of raw clicks."""

    model: Literal["pbm", "dbn"] = "dbn"
    iterations: int = Field(30, ge=1)
    prior_clicks: float = Field(1.0, gt=0, description="Beta prior: pseudo-clicks per pair.")
    prior_skips: float = Field(4.0, gt=0, description="Beta prior: pseudo-skips per pair.")


class MiningSettings(Room):
    """What the miner takes, and how much of it."""

    budget: int = Field(1_000, ge=1, description="Pairs per round.")
    quiet_share: float = Field(0.25, gt=0, le=1, description="Share of the budget spent when nothing shifted.")
    thresholds: Literal["quantile", "absolute"] = "quantile"
    dwell: float = Field(30.0, gt=0, description="tau_u: seconds of dwell that count as engagement.")
    low_score: float = Field(0.5, ge=0, le=1, description="tau_c: f below this share of the scale is low.")
    click: float = Field(0.5, ge=0, le=1, description="tau_cm: click-model attractiveness that counts as a click.")
    disagreement: float = Field(0.25, ge=0, description="Absolute threshold on MD, as a share of the scale.")
    uncertainty: float = Field(0.5, ge=0, description="Absolute threshold on MU, as a share of log|Y|.")
    quantile: float = Field(0.9, gt=0, lt=1, description="Quantile mode: each agent takes what lies above this.")
    candidates: int = Field(20_000, ge=1, description="Most pairs of the window that the model scores.")
    per_query: int = Field(5, ge=1, description="Most pairs taken from one query.")
    per_session: int = Field(3, ge=1, description="Most clicks of one session that count.")
    sessions: int = Field(1, ge=1, description="Distinct clicking sessions that a pair needs to count as clicked.")
    duplicate_similarity: float = Field(0.97, gt=0, le=1, description="Cosine above which two pairs are one.")
    scores: Literal["model", "logged"] = Field(
        "model", description="logged: use the log's own scores; no model is loaded and only feedback and click work."
    )
    judged: int = Field(4_000, ge=0, description="Most pairs, the most uncertain first, that get K passes.")
    coverage: float = Field(0.5, ge=0, le=1, description="Share of the budget split over query clusters by traffic.")
    grown_weight: float = Field(2.0, ge=1, description="How much more of it a grown cluster gets.")
    bot_clicks: int = Field(4, ge=1, description="A session with fewer clicks than this is never taken for a bot.")
    bot_dwell: float = Field(2.0, ge=0, description="Seconds; bots' median dwell is below this.")
    bot_share: float = Field(0.5, ge=0, le=1, description="Bots click at least this share of what they are shown.")


class AnnotatorSettings(Room):
    """One LLM."""

    name: str = Field(min_length=1, max_length=64)
    model: str = Field(description="The model's name at its endpoint.")
    base_url: str = Field("http://127.0.0.1:8808/v1", description="OpenAI-compatible endpoint.")
    api_key_env: str = Field("OPENAI_API_KEY", description="Environment variable that holds the key.")
    temperature: float = Field(0.7, ge=0)
    concurrency: int = Field(8, ge=1, description="Calls in flight at once.")
    timeout: float = Field(60.0, gt=0, description="Seconds for one attempt of a call.")
    retries: int = Field(6, ge=0, description="Attempts after the first, on 429, 5xx, timeouts and lost connections.")
    backoff: float = Field(0.5, gt=0, description="Seconds before the first retry; doubled each time, up to 30.")
    give_up_after: int = Field(5, ge=1, description="Pairs failing in a row, with no answer between, that end its run.")
    trace: bool = Field(True, description="Send query, doc_id and annotator as the request's metadata field.")
    extra_body: dict[str, Any] = Field({}, description="More request fields, such as {store: true} at api.openai.com.")

    @field_validator("base_url")
    @classmethod
    def _plain_url(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("give an address such as https://api.example.com/v1")
        if parts.username or parts.password:
            raise ValueError("leave the credentials out of the address; name a variable with api_key_env")
        return url.rstrip("/")


class AnnotationSettings(Room):
    """How LLMs label and when a label is kept."""

    annotators: list[AnnotatorSettings] = Field(
        [
            AnnotatorSettings(name="ada", model="stand-in-a"),
            AnnotatorSettings(name="ben", model="stand-in-b"),
        ],
        min_length=1,
    )
    paths: int = Field(3, ge=1, le=128, description="Independent reasoning paths per annotator and pair.")
    minimum_support: float = Field(0.5, ge=0, lt=1, description="A stable label needs more than this share of paths.")
    adaptive: bool = Field(True, description="Stop asking an annotator once its majority cannot change.")
    knowledge_documents: int = Field(3, ge=0, description="Nearest documents shown as background; 0 = none.")
    knowledge_characters: int = Field(1_200, ge=1, description="Most characters of background in a prompt.")
    knowledge_plugins: list[str] = Field([], description="module:function(query) -> list of texts.")
    max_document_characters: int = Field(2_000, ge=1)
    max_completion_tokens: int = Field(400, ge=16)
    guidelines: str = Field("", description="Label guidelines of the domain, put into the prompt.")
    batch_pairs: int = Field(64, ge=1, description="Finished pairs per commit of the annotations table.")
    ledger: str = Field("", description="SQLAlchemy URL of the ledger of calls; empty = SQLite in the workspace.")

    @field_validator("annotators")
    @classmethod
    def _one_name_each(cls, annotators: list[AnnotatorSettings]) -> list[AnnotatorSettings]:
        names = [annotator.name for annotator in annotators]
        if len(set(names)) < len(names):
            raise ValueError("give every annotator a name of its own")
        return annotators

    @field_validator("ledger")
    @classmethod
    def _no_password(cls, url: str) -> str:
        if urlsplit(url).password:
            raise ValueError("leave the password out (settings are stored with every run); use PGPASSWORD or ~/.pgpass")
        return url


class UpdateSettings(Room):
    """The training mixture of an update."""

    new_share: float = Field(0.5, gt=0, le=1, description="Share of each epoch drawn from this round's labels.")
    earlier_share: float = Field(0.2, ge=0, le=1, description="... from earlier rounds' labels.")
    original_share: float = Field(0.3, ge=0, le=1, description="... from the original human train split.")
    learning_rate: float = Field(5e-5, gt=0)
    epochs: float = Field(2.0, gt=0, description="Passes over this round's labels.")
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


class SimulateSettings(Room):
    """Simulated users and their stream."""

    sessions: int = Field(5_000, ge=1)
    days: float = Field(28.0, gt=0)
    start: str = Field("2026-01-05T00:00:00Z", description="First timestamp, ISO 8601.")
    user: Literal["pbm", "dbn"] = "dbn"
    zipf: float = Field(1.0, ge=0, description="Exponent of query frequencies; 0 = uniform.")
    ranker_noise: float = Field(0.5, ge=0, description="Standard deviation of noise on standardised scores.")
    results: int = Field(10, ge=1)
    examination_decay: float = Field(1.0, ge=0, description="pbm: rank r is examined with chance 1 / r ** this.")
    continuation: float = Field(0.9, ge=0, le=1, description="dbn: chance that an unsatisfied user looks at the next.")
    attraction: tuple[float, float] = Field((0.05, 0.85), description="P(click | examined) at the lowest, top grade.")
    satisfaction: tuple[float, float] = Field((0.1, 0.8), description="dbn: P(satisfied | click) at the lowest, top.")
    dwell: tuple[float, float] = Field((8.0, 80.0), description="Median seconds on a document, lowest and top grade.")
    dwell_spread: float = Field(0.8, ge=0, description="Standard deviation of the logarithm of dwell.")
    bots: float = Field(0.02, ge=0, le=1, description="Share of sessions that are bots.")
    bot_searches: int = Field(5, ge=1, description="Searches in a bot's session; a person makes one.")
    bot_clicks: float = Field(0.6, ge=0, le=1, description="Chance that a bot clicks a result, whatever it is.")
    bot_targets: list[str] = Field([], description="Documents that bots push: they click these, and nothing else.")
    arrival: str | None = Field(None, description="Numeric document attribute, such as year, by which queries arrive.")
    arrival_from: float | None = Field(None, description="Queries whose arrival value is greater enter the stream.")

    @field_validator("attraction", "satisfaction")
    @classmethod
    def _chances(cls, pair: tuple[float, float]) -> tuple[float, float]:
        if not all(0 <= value <= 1 for value in pair):
            raise ValueError("chances lie between 0 and 1")
        return pair

    @field_validator("dwell")
    @classmethod
    def _positive(cls, pair: tuple[float, float]) -> tuple[float, float]:
        if min(pair) <= 0:
            raise ValueError("give two positive numbers of seconds, such as [8, 80]")
        return pair

    @field_validator("start", mode="before")
    @classmethod
    def _written_out(cls, start: Any) -> Any:
        """YAML reads an unquoted timestamp as a date."""
        return start.isoformat() if isinstance(start, date) else start


class SimulateLLMSettings(Room):
    """The stand-in LLM: its errors as a judge, and its faults as a server."""

    confusion: list[list[float]] | None = Field(
        None, description="P(answer | truth), a row per grade of the scale; none = as measured on real judges."
    )
    binary_from: int = Field(1, ge=1, le=3, description="On a scale of two, measured grades from this on are relevant.")
    correlation: float = Field(0.85, ge=0, le=1, description="Between the settled opinions of two annotators.")
    path_share: float = Field(0.1, ge=0, le=1, description="Share of error variance that each path draws anew.")
    models: list[str] = Field(["stand-in-a", "stand-in-b"], description="Listed at /v1/models; any name is answered.")
    rate_limited: float = Field(0.0, ge=0, le=1, description="Share of requests refused with 429.")
    server_error: float = Field(0.0, ge=0, le=1, description="Share of requests that end in 500.")
    hang: float = Field(0.0, ge=0, le=1, description="Share of requests answered (and billed) after hang_seconds.")
    truncated: float = Field(0.0, ge=0, le=1, description="Share of answers cut off, with finish_reason length.")
    malformed: float = Field(0.0, ge=0, le=1, description="Share of answers that are not JSON.")
    retry_after: float = Field(1.0, ge=0, description="Seconds in the Retry-After header of a 429.")
    hang_seconds: float = Field(120.0, ge=0)

    @model_validator(mode="after")
    def _faults_fit(self) -> "SimulateLLMSettings":
        if max(self.rate_limited + self.server_error + self.hang, self.truncated + self.malformed) > 1:
            raise ValueError("rates of faults add up to more than 1; lower some")
        return self


STRATEGIES = (
    "static", "self_training", "random", "feedback", "click", "disagreement", "uncertainty", "serm", "oracle",
)  # fmt: skip


class BacktestSettings(Room):
    """The offline experiment: how a judged collection is cut, and what is compared."""

    strategies: list[str] = Field(list(STRATEGIES), description="Which strategies to run.")
    seeds: list[int] = Field([0, 1, 2], min_length=1)
    rounds: int = Field(3, ge=1)
    arrival: str = Field("year", description="Document attribute (a number) by which queries arrive.")
    arrival_from: float = Field(2012, description="Queries up to this value are old, later ones new.")
    start_queries: int = Field(500, ge=1, description="Old queries whose human grades train the starting model.")
    dev_queries: int = Field(100, ge=1, description="Old queries for early stopping.")
    old_queries: int = Field(400, ge=2, description="Old queries held out for evaluation.")
    fresh_queries: int = Field(400, ge=2, description="New queries held out for evaluation.")
    stream_queries: int = Field(800, ge=1, description="New queries in each round's traffic.")
    sessions: int = Field(4_000, ge=1, description="Sessions in each round's traffic.")
    split_seed: int = Field(0, description="Draws the held-out queries, the same for every seed.")
    every_round: bool = Field(True, description="Measure fresh queries after every round, not only the last.")

    @field_validator("strategies")
    @classmethod
    def _known(cls, strategies: list[str]) -> list[str]:
        unknown = [name for name in strategies if name not in STRATEGIES]
        if unknown:
            raise ValueError(f"no strategy {unknown[0]!r}; known are {', '.join(STRATEGIES)}")
        return strategies


class Config(BaseSettings):
    """Everything that a workspace can be told."""

    model_config = SettingsConfigDict(env_prefix="SERM_", env_nested_delimiter="__", extra="forbid")

    seed: int = 0
    labels: LabelSettings = LabelSettings()
    window: WindowSettings = WindowSettings()
    ingest: IngestSettings = IngestSettings()
    relevance: RelevanceSettings = RelevanceSettings()
    shift: ShiftSettings = ShiftSettings()
    clicks: ClickSettings = ClickSettings()
    mining: MiningSettings = MiningSettings()
    annotation: AnnotationSettings = AnnotationSettings()
    update: UpdateSettings = UpdateSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    simulate: SimulateSettings = SimulateSettings()
    backtest: BacktestSettings = BacktestSettings()
    simulate_llm: SimulateLLMSettings = SimulateLLMSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment wins over the file; --set is applied last, by `serm.configure.load`."""
        return env_settings, init_settings
