"""Settings of the annotators and of agreement."""

from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from serm.config.room import Room


class AnnotatorSettings(Room):
    """One LLM."""

    name: str = Field(min_length=1, max_length=64, description="Yours to choose; votes and the ledger carry it.")
    provider: Literal["openai", "transformers", "vllm"] = Field(
        "openai", description="openai: any OpenAI-compatible endpoint; transformers, vllm: a model in this process."
    )
    model: str = Field(description="The model's name at its endpoint, or in process its folder or hub name.")
    gguf: str | None = Field(None, description="transformers: a GGUF file in the model's folder, read de-quantised.")
    engine: dict[str, Any] = Field({}, description="vllm: arguments of vllm.LLM, such as {max_model_len: 4096}.")
    base_url: str = Field("http://127.0.0.1:8808/v1", description="OpenAI-compatible endpoint.")
    more_urls: list[str] = Field(
        [], description="More servers of the same model: calls go round them, and past one that fails."
    )
    api_key_env: str = Field("OPENAI_API_KEY", description="Environment variable that holds the key.")
    guidelines: str = Field("", description="This annotator's own guidelines, added to those of all.")
    temperature: float = Field(0.7, ge=0, description="Of sampling, so that paths differ.")
    paths: int | None = Field(None, ge=1, le=128, description="Reasoning paths a pair; none = annotation.paths.")
    concurrency: int = Field(8, ge=1, description="Calls in flight at once.")
    requests_per_minute: float | None = Field(None, gt=0, description="Attempts sent, retries included; none = all.")
    tokens_per_minute: float | None = Field(None, gt=0, description="Prompt and completion tokens; none = no limit.")
    prompt_price: float = Field(0.0, ge=0, description="Of a million prompt tokens, in a currency of your choice.")
    completion_price: float = Field(0.0, ge=0, description="Of a million completion tokens, in the same currency.")
    json_schema: bool = Field(True, description="Constrain answers by schema; off by itself where a server refuses.")
    reasoning_characters: int | None = Field(None, ge=1, description="Longest reasoning in the schema; none = any.")
    timeout: float = Field(60.0, gt=0, description="Seconds for one attempt of a call.")
    retries: int = Field(6, ge=0, description="Attempts after the first, on 429, 5xx, timeouts and lost connections.")
    backoff: float = Field(0.5, gt=0, description="Seconds before the first retry; doubled each time, up to 30.")
    give_up_after: int = Field(5, ge=1, description="Failures in a row, no answer between, that open its breaker.")
    breaker_pause: float = Field(15.0, ge=0, description="Seconds that an open breaker waits before it tries one call.")
    breaker_trials: int = Field(2, ge=0, description="Such tries; after the last in vain the annotator is given up.")
    trace: bool = Field(True, description="Send query, doc_id and annotator as the request's metadata field.")
    extra_body: dict[str, Any] = Field({}, description="More request fields, such as {store: true} at api.openai.com.")

    @field_validator("more_urls")
    @classmethod
    def _plain_urls(cls, urls: list[str]) -> list[str]:
        return [cls._plain_url(url) for url in urls]

    @field_validator("base_url")
    @classmethod
    def _plain_url(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("give an address such as https://api.example.com/v1")
        if parts.username or parts.password:
            raise ValueError("leave the credentials out of the address; name a variable with api_key_env")
        return url.rstrip("/")

    @model_validator(mode="after")
    def _gguf_by_transformers(self) -> "AnnotatorSettings":
        if self.gguf is not None and self.provider != "transformers":
            raise ValueError(f"gguf is read by provider transformers alone; {self.provider} needs a saved folder")
        return self

    def addresses(self) -> list[str]:
        """Every server that may be asked, each once."""
        return list(dict.fromkeys([self.base_url, *self.more_urls]))

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float:
        """What so many tokens cost, in the currency of the prices."""
        return (prompt_tokens * self.prompt_price + completion_tokens * self.completion_price) / 1e6


class AnnotationSettings(Room):
    """How LLMs label and when a label is kept."""

    annotators: list[AnnotatorSettings] = Field(
        [
            AnnotatorSettings(name="ada", model="stand-in-a"),
            AnnotatorSettings(name="ben", model="stand-in-b"),
        ],
        min_length=1,
        description="The LLMs that must agree; a list, an entry each.",
    )
    paths: int = Field(3, ge=1, le=128, description="Independent reasoning paths per annotator and pair.")
    minimum_support: float = Field(0.5, ge=0, lt=1, description="A stable label needs more than this share of paths.")
    vote: Literal["exact", "median"] = Field(
        "exact",
        description="An annotator's label: what most paths say, or their median if enough are within a grade of it.",
    )
    ties: Literal["none", "lower"] = Field(
        "none", description="Two labels with equally many paths: no label, or the lower (exact votes only)."
    )
    agreement: Literal["unanimous", "majority", "weighted"] = Field(
        "unanimous",
        description="Across annotators. Weighted goes by their measured reliability, unanimous until it is measured.",
    )
    agreement_scale: Literal["exact", "ordinal"] = Field(
        "exact", description="Ordinal: within one grade agrees, on the median; accuracy then means within one grade."
    )
    target_accuracy: float | None = Field(
        None, ge=0, le=1, description="Keep a pair only if its label is right with this probability; null = off."
    )
    adaptive: bool = Field(True, description="Stop asking an annotator once its majority cannot change.")
    knowledge: bool = Field(True, description="Show background about the query; off: pair and guidelines alone.")
    knowledge_documents: int = Field(3, ge=0, description="Nearest documents shown as background; 0 = none.")
    knowledge_judged: int = Field(1, ge=0, description="Judged queries like this one whose grades are shown.")
    knowledge_clicked: int = Field(2, ge=0, description="Documents shown that searchers of the query clicked.")
    knowledge_tokens: int = Field(400, ge=1, description="Most tokens of background in a prompt, as estimated.")
    knowledge_plugins: list[str] = Field([], description="module:function(query) -> list of texts.")
    max_document_characters: int = Field(2_000, ge=1, description="Longer documents are cut for the prompt.")
    max_completion_tokens: int = Field(400, ge=16, description="Of one reasoning path.")
    guidelines: str = Field("", description="Label guidelines of the domain, put into the prompt.")
    prompt: str = Field("relevance", description="A prompt of serm's, or a YAML file or a folder of them by locale.")
    guard: bool = Field(
        True, description="Clean and mark texts and say that they are data; off to measure what it does."
    )
    counterfactual: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Share of kept pairs with a high label asked again with an unrelated query; above 0, suspicious "
        "documents always are. A high label there sends the pair to review.",
    )
    batch_pairs: int = Field(512, ge=1, description="Finished pairs per commit of the annotations table.")
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
