"""Settings: one class per room, a file for each part of the house. How they are read is in `serm.configure`."""

from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from serm.config.annotation import AnnotationSettings, AnnotatorSettings
from serm.config.data import IngestSettings, LabelSettings, WindowSettings
from serm.config.mining import ClickSettings, MiningSettings, ShiftSettings
from serm.config.model import EvaluationSettings, RelevanceSettings, SpsSettings, UpdateSettings
from serm.config.room import Room
from serm.config.serving import DistillationSettings, ScoringSettings, ServingSettings
from serm.config.simulation import ATTACKS, STRATEGIES, BacktestSettings, SimulateLLMSettings, SimulateSettings

__all__ = [
    "ATTACKS",
    "STRATEGIES",
    "AnnotationSettings",
    "AnnotatorSettings",
    "BacktestSettings",
    "ClickSettings",
    "Config",
    "DistillationSettings",
    "EvaluationSettings",
    "IngestSettings",
    "LabelSettings",
    "MiningSettings",
    "RelevanceSettings",
    "Room",
    "ScoringSettings",
    "ServingSettings",
    "ShiftSettings",
    "SimulateLLMSettings",
    "SimulateSettings",
    "SpsSettings",
    "UpdateSettings",
    "WindowSettings",
]


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
    serving: ServingSettings = ServingSettings()
    scoring: ScoringSettings = ScoringSettings()
    distillation: DistillationSettings = DistillationSettings()
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
