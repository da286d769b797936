"""What a report says, as data: gathered from the tables and the models' manifests, drawn by the page."""

from dataclasses import dataclass, field
from typing import Any

from serm.evaluation.changes import Changes
from serm.evaluation.comparison import SliceComparison
from serm.evaluation.verdict import Comparison


@dataclass(frozen=True)
class Level:
    """The gate's measure of one model on one split, 0..1; no interval where only the gate's own mean is known."""

    value: float
    low: float | None
    high: float | None
    queries: int
    judgments_version: int | None


@dataclass(frozen=True)
class Model:
    """A version of the registry, and what became of it."""

    version: str
    round: int
    created: str
    parent: str | None
    pairs: int  # labelled pairs it learned from
    steps: int
    dev: float | None
    role: str  # champion, former champion, or not promoted
    levels: dict[str, Level] = field(default_factory=dict)  # split -> level


@dataclass(frozen=True)
class Change:
    """One row of the champion's history."""

    version: str
    previous: str | None
    action: str  # promote or rollback
    reason: str
    ts: str


@dataclass(frozen=True)
class Gate:
    """A verdict of the gate; intervals at the gate's own level."""

    candidate: str
    champion: str
    accepted: bool
    measure: str
    reasons: list[str]
    fresh: Comparison | None
    anchor: Comparison | None
    ts: str


@dataclass(frozen=True)
class Overlap:
    """Pairs of a round that exactly these agents took together."""

    agents: tuple[str, ...]
    pairs: int
    annotated: int
    kept: int


@dataclass(frozen=True)
class Agent:
    """What one agent brought in a round; `precision` is the share of its labelled pairs that the champion had wrong."""

    agent: str
    pairs: int
    alone: int  # that no other agent took
    annotated: int
    kept: int
    labelled: int = 0
    precision: float | None = None
    low: float | None = None
    high: float | None = None
    lift: float | None = None  # precision over the random share's
    lift_low: float | None = None
    lift_high: float | None = None


@dataclass(frozen=True)
class Labels:
    """What the annotators made of a round's pairs, and what it took."""

    annotated: int
    kept: int
    review: int
    by_label: dict[int, int]  # kept pairs by label
    both: int  # pairs on which at least two annotators have a stable label
    same: int  # ... and all of them the same one
    alpha: float | None  # Krippendorff's, ordinal
    calls: int
    tokens: int  # prompt and completion
    cost: float | None  # as the runs recorded it; none where no price is set


@dataclass(frozen=True)
class Annotator:
    """One LLM over all rounds; accuracy and bias against people's grades, where a pair has one."""

    name: str
    pairs: int
    labelled: int  # with a stable label
    judged: int  # ... and a person's grade
    accuracy: float | None
    bias: float | None  # mean of label minus grade, in steps of the scale
    by_label: dict[int, int]


@dataclass(frozen=True)
class Example:
    """A mined pair to read; texts are cut to the page's measure."""

    round: int
    query: str
    doc_id: str
    title: str
    text: str
    agents: tuple[str, ...]
    reason: str
    score: float | None
    status: str  # kept, review, or waiting
    label: int | None
    rationale: str
    votes: dict[str, int | None]  # annotator -> stable label


@dataclass(frozen=True)
class Round:
    """One round from its searches to its verdict."""

    number: int
    state: str  # promoted, refused, not judged, no candidate, unfinished, rolled back
    shift: dict[str, Any]  # ShiftReport.to_dict(), or {} where the run is not recorded
    mined: int
    candidates: int | None
    agents: list[Agent]
    overlaps: list[Overlap]
    labels: Labels
    waiting: int  # mined and not annotated
    gate: Gate | None
    model: str | None
    examples: list[Example] = field(default_factory=list)


@dataclass(frozen=True)
class Reading:
    """Two models on the same graded searches: by slice, and the searches on which they differ most."""

    before: str
    now: str
    promoted: bool
    round: int  # of `now`
    slices: list[SliceComparison]  # the gate's measure alone
    changes: dict[str, Changes]  # split -> wins and losses


@dataclass(frozen=True)
class Decision:
    """Something a person has to decide or do."""

    what: str
    why: str
    do: str  # a command, or nothing


@dataclass(frozen=True)
class Facts:
    """Everything that the report says."""

    workspace: str
    measure: str
    scale: dict[int, str]
    first: str | None  # impression
    last: str | None
    rows: dict[str, int]
    judged: dict[str, int]  # split -> queries with a result that people found relevant
    champion: str | None
    models: list[Model]
    changes: list[Change]
    overall: Gate | None  # the champion against the first model, where the two can be compared
    rounds: list[Round]
    annotators: list[Annotator]
    agreed: dict[str, Any]  # the kept labels against people's grades: judged, accuracy, bias
    review: int  # pairs that wait for a person
    runs: list[dict[str, Any]]  # newest last
    decisions: list[Decision]
    reading: Reading | None  # none where the models' answers are not on this machine
