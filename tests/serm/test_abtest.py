"""Online tests from a log to a verdict: metrics against plain loops, a known effect, none, and logs with faults."""

import json
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from serm.cli import app
from serm.config import OnlineSettings
from serm.online import analyse
from serm.online.experiment import gather, within
from serm.online.log import Log, from_files, from_workspace
from serm.online.metrics import METRICS, PRE
from serm.online.words import judge
from serm.simulate.experiment import experiment
from serm.verbs import abtest, ingest, plan_abtest
from serm.workspace import Workspace
from tests.serm.chromium import chromium

MONDAY = datetime(2026, 3, 2, tzinfo=UTC)
QUICK = OnlineSettings(retention_days=3, minimum_units=20)


@pytest.fixture(scope="module")
def traffic() -> pl.DataFrame:
    """Two weeks of a test after one week without; b is better by a tenth."""
    return experiment(1_500, 14, MONDAY, seed=1, lift=0.1, pre_days=7)


def log_of(frame: pl.DataFrame, folder: Path, settings: OnlineSettings | None = None) -> Log:
    frame.write_parquet(folder / "log.parquet")
    return from_files([str(folder / "log.parquet")], {}, Workspace.create(folder / "w").config.ingest, ["ts"])


def by_hand(frame: pl.DataFrame, settings: OnlineSettings) -> dict[tuple[str, int], Counter[str]]:
    """Every metric's sums per user and day, row by row."""
    searches: dict[tuple[str, str, str], list[dict]] = defaultdict(list)
    for row in frame.iter_rows(named=True):
        searches[row["user"], row["session"], row["query"]].append(row)
    traffic = Counter(query for _, _, query in searches)
    most, below = min(traffic.values()), 0
    for count in sorted(set(traffic.values())):
        below += sum(c for c in traffic.values() if c == count)
        if below <= settings.tail_share * len(searches):
            most = count
    sessions = defaultdict(list)
    for (user, session, query), rows in searches.items():
        sessions[user, session].append((min(r["ts"] for r in rows), query, rows))
    found: dict[tuple[str, int], Counter[str]] = defaultdict(Counter)
    for (user, _), parts in sessions.items():
        parts.sort(key=lambda part: part[:2])
        begun = parts[0][0]
        sums = found[user, PRE if begun < MONDAY else (begun.date() - MONDAY.date()).days]
        for i, (first, query, rows) in enumerate(parts):
            ends = ["", "_tail"] if traffic[query] <= most else [""]
            clicks = [r for r in rows if r["clicked"]]
            soon = i + 1 < len(parts) and (parts[i + 1][0] - first).total_seconds() <= settings.reformulation_seconds
            dwells = [min(r["dwell"], settings.dwell_cap) for r in clicks if r["dwell"] is not None]
            for end in ends:
                for name, n, d in (
                    ("negative_feedback", any(r["negative"] for r in rows), 1), ("reformulation", soon, 1),
                    ("ctr", len(clicks), len(rows)), ("dwell", sum(dwells), len(dwells)),
                ):  # fmt: skip
                    sums[f"{name}{end}:n"] += n
                    sums[f"{name}{end}:d"] += d
        held = any(r["clicked"] and r["dwell"] >= settings.success_dwell for part in parts for r in part[2])
        sums["successful_sessions:n"] += held
        sums["successful_sessions:d"] += 1
    days = defaultdict(set)
    for user, day in found:
        if day >= 0:
            days[user].add(day)
    for user, seen in days.items():
        known = min(seen) + settings.retention_days
        if known <= 13:
            found[user, known]["retention:n"] += any(min(seen) < day <= known for day in seen)
            found[user, known]["retention:d"] += 1
    return found


def test_metrics_are_what_a_loop_over_the_rows_says(traffic: pl.DataFrame, tmp_path: Path) -> None:
    settings = QUICK.model_copy(update={"start": MONDAY})
    log = log_of(traffic.sample(fraction=1.0, shuffle=True, seed=3), tmp_path)
    rows, last, start = within(log, settings)
    found = gather(rows, list(METRICS), start, last, log, settings)
    expected = by_hand(traffic, settings)
    assert set(zip(found["unit"], found["day"], strict=True)) == set(expected)
    names = [f"{name}:{part}" for name in METRICS for part in "nd"]
    for row in found.iter_rows(named=True):
        own = expected[row["unit"], row["day"]]
        assert [row[name] or 0 for name in names] == pytest.approx([own[name] for name in names])


def test_a_real_effect_is_found_and_none_is_not_invented(traffic: pl.DataFrame, tmp_path: Path) -> None:
    settings = QUICK.model_copy(update={"start": MONDAY, "primary": "ctr"})
    found = analyse(log_of(experiment(3_000, 14, MONDAY, 2, lift=0.25, pre_days=7), tmp_path), settings)
    verdict = judge(found, settings)
    assert verdict.verdict == "better"
    assert verdict.headline.startswith("Variant b is better on click-through rate: +")
    ctr = next(each for each in found.effects if each.metric == "ctr")
    assert ctr.safe_relative_low is not None
    assert ctr.relative_low is not None
    assert 0 < ctr.safe_relative_low < ctr.relative_low < 0.25
    assert ctr.adjusted_for_past
    without = analyse(log_of(experiment(3_000, 14, MONDAY, 2, lift=0.25, pre_days=7), tmp_path),
                      settings.model_copy(update={"cuped": False}))  # fmt: skip
    plain = next(each for each in without.effects if each.metric == "ctr")
    assert ctr.information > 1.02 * plain.information
    none = judge(analyse(log_of(experiment(3_000, 14, MONDAY, 5, pre_days=7), tmp_path), settings), settings)
    assert none.verdict == "open"
    assert none.headline.startswith("No evidence yet on click-through rate")
    assert "more days to see a change of 1% with 80% power" in none.headline


def test_order_files_and_formats_do_not_matter(traffic: pl.DataFrame, tmp_path: Path) -> None:
    base = analyse(log_of(traffic, tmp_path), QUICK)
    shuffled = traffic.sample(fraction=1.0, shuffle=True, seed=9)
    theirs = shuffled.rename({"user": "Visitor", "variant": "cell", "clicked": "was_clicked"}).drop_nulls("cell")
    theirs = theirs.with_columns(pl.col("ts").dt.to_string("%Y-%m-%d %H:%M:%S"), pl.col("was_clicked").cast(pl.Int8))
    theirs[:5_000].write_csv(tmp_path / "1.csv", separator=";")
    theirs[5_000:].write_csv(tmp_path / "2.csv")
    ingest_settings = Workspace.create(tmp_path / "w").config.ingest
    given = {"user": "Visitor", "variant": "cell", "clicked": "was_clicked"}
    log = from_files([str(tmp_path / "?.csv")], given, ingest_settings, ["ts", "variant"])
    again = analyse(log, QUICK.model_copy(update={"start": MONDAY}))
    assert [each.metric for each in again.effects] == [each.metric for each in base.effects]
    theirs.write_ndjson(tmp_path / "log.jsonl")
    lines = analyse(from_files([str(tmp_path / "log.jsonl")], given, ingest_settings, ["ts"]), QUICK)
    assert [each.difference for each in lines.effects] == pytest.approx([each.difference for each in again.effects])


def test_the_workspaces_own_impressions_can_carry_a_test(traffic: pl.DataFrame, tmp_path: Path) -> None:
    workspace = Workspace.create(tmp_path / "space", "online: {retention_days: 3, start: 2026-03-02}\n")
    with pytest.raises(ValueError, match="no impressions"):
        abtest(workspace)
    traffic.write_parquet(tmp_path / "log.parquet")
    ingest(workspace, [str(tmp_path / "log.parquet")])
    found = abtest(workspace)
    direct = abtest(workspace, [str(tmp_path / "log.parquet")])
    assert [each.safe_p for each in found.experiment.effects] == pytest.approx(
        [each.safe_p for each in direct.experiment.effects], rel=0.2
    )
    assert found.experiment.users.split == direct.experiment.users.split
    assert workspace.read("runs").filter(verb="abtest", status="finished").height == 2
    plain = traffic.drop("variant", "user", "negative")
    other = Workspace.create(tmp_path / "other")
    plain.write_parquet(tmp_path / "plain.parquet")
    ingest(other, [str(tmp_path / "plain.parquet")])
    with pytest.raises(ValueError, match="variant"):
        abtest(other)
    assert plan_abtest(other).needs[0].metric == "successful_sessions"


def test_sessions_are_the_unit_where_no_user_is_logged(traffic: pl.DataFrame, tmp_path: Path) -> None:
    found = analyse(log_of(traffic.drop("user", "negative").drop_nulls("variant"), tmp_path), QUICK)
    assert found.users.unit == "session"
    assert set(found.left_out) == {"retention", "negative_feedback", "negative_feedback_tail"}
    assert "come back" in found.left_out["retention"]
    assert "no column for negative" in found.left_out["negative_feedback"]
    short = analyse(log_of(traffic.drop_nulls("variant"), tmp_path), OnlineSettings())
    assert short.left_out == {"retention": "nobody was seen for 14 days yet: the test has 14"}
    users = analyse(log_of(traffic.drop("session").drop_nulls("variant"), tmp_path), QUICK)
    assert users.users.unit == "user"
    assert "retention" not in users.left_out


def test_a_wrong_split_stops_everything(traffic: pl.DataFrame, tmp_path: Path) -> None:
    lost = traffic.drop_nulls("variant").filter((pl.col("variant") == "a") | (pl.col("user").hash(1) % 4 != 0))
    found = analyse(log_of(lost, tmp_path), QUICK)
    verdict = judge(found, QUICK)
    assert (verdict.verdict, found.effects) == ("mismatch", [])
    assert verdict.headline.startswith("Stop: the variants did not get the users")
    counts = lost.group_by("variant").agg(pl.col("user").n_unique()).sort("variant")["user"].to_list()
    assert list(found.users.split.units.values()) == counts
    meant = QUICK.model_copy(update={"shares": {"a": 4.0, "b": 3.0}})
    assert not analyse(log_of(lost, tmp_path), meant).mismatch


def test_users_in_both_variants_are_set_aside(traffic: pl.DataFrame, tmp_path: Path) -> None:
    test = traffic.drop_nulls("variant")
    some = test["user"].unique().sort()[:40]
    mixed = test.with_columns(
        pl.when(pl.col("user").is_in(some.implode()) & (pl.int_range(pl.len()).over("user") == 0))
        .then(pl.lit("a")).when(pl.col("user").is_in(some.implode())).then(pl.lit("b")).otherwise("variant")
        .alias("variant")
    )  # fmt: skip
    mixed = pl.concat([mixed, mixed[:3].with_columns(variant=pl.lit(None, pl.String), user=pl.lit("nobody"))])
    found = analyse(log_of(mixed, tmp_path), QUICK)
    crossed = mixed.group_by("user").agg(pl.col("variant").n_unique()).filter(pl.col("variant") > 1).height
    assert found.users.crossed == crossed >= 39
    assert found.users.unusable == 3
    kept = analyse(log_of(mixed.filter(~pl.col("user").is_in([*some, "nobody"])), tmp_path), QUICK)
    ctr = [next(e for e in each.effects if e.metric == "ctr") for each in (found, kept)]
    if crossed == 40:
        assert ctr[0].difference == pytest.approx(ctr[1].difference)
    assert any("more than one variant" in note for note in judge(found, QUICK).notes)


def test_more_than_two_variants_are_each_compared_with_control(tmp_path: Path) -> None:
    two = experiment(1_200, 7, MONDAY, 3)
    copy = two.filter(variant="b").with_columns(
        variant=pl.lit("c"), user="x" + pl.col("user"), session="x" + pl.col("session")
    )
    control = two.filter(variant="a").with_columns(variant=pl.lit("Control"))
    three = pl.concat([two.filter(variant="b"), copy, control])
    found = analyse(log_of(three, tmp_path), QUICK)
    assert found.control == "Control"
    primary = [each for each in found.effects if each.primary]
    assert [each.variant for each in primary] == ["b", "c"]
    assert primary[0].safe_p == pytest.approx(primary[1].safe_p)  # c is a copy of b
    assert primary[0].adjusted_p == pytest.approx(min(1.0, 2 * (primary[0].safe_p or 0)))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: f.filter(variant="a"), ["only one variant", "a"]),
        (lambda f: f.drop("variant"), ["variant", "--column variant=NAME"]),
        (lambda f: f.drop("user", "session"), ["user", "--column user=NAME"]),
        (lambda f: f.with_columns(user=pl.lit(None, pl.String), session=pl.lit(None, pl.String)), ["no row", "user"]),
        (lambda f: f.drop("ts"), ["ts", "--column ts=NAME"]),
    ],
)  # fmt: skip
def test_logs_that_cannot_be_read_are_named(traffic: pl.DataFrame, tmp_path: Path, change, words: list[str]) -> None:  # type: ignore[no-untyped-def]
    workspace = Workspace.create(tmp_path / "w")
    change(traffic).write_parquet(tmp_path / "log.parquet")
    with pytest.raises(ValueError) as caught:
        abtest(workspace, [str(tmp_path / "log.parquet")])
    assert [word for word in words if word not in str(caught.value)] == []


def test_broken_files_and_cells_cost_themselves_alone(traffic: pl.DataFrame, tmp_path: Path) -> None:
    workspace = Workspace.create(tmp_path / "w")
    test = traffic.drop_nulls("variant").with_columns(
        pl.col("dwell").cast(pl.String), pl.col("clicked").cast(pl.String)
    )
    odd = test[:4].with_columns(
        pl.Series("dwell", ["nan", "-3", "inf", "soon"]), pl.Series("clicked", ["maybe", "", "yes", "no"])
    )
    pl.concat([test[4:], odd]).write_csv(tmp_path / "odd.csv")
    dwell = next(e for e in abtest(workspace, [str(tmp_path / "odd.csv")]).experiment.effects if e.metric == "dwell")
    assert dwell.control is not None
    assert 30 < dwell.control < 100
    with (tmp_path / "odd.csv").open("a") as file:
        file.write("2026-03-02,too,few\n" + "1,2,3,4,5,6,7,8,9,10,11,12\n")
    assert abtest(workspace, [str(tmp_path / "odd.csv")]).experiment.users.unusable == 2
    test.head(9).write_ndjson(tmp_path / "odd.jsonl")
    with (tmp_path / "odd.jsonl").open("a") as file:
        file.write('{"ts": "2026-03-02", "user": ')
    with pytest.raises(ValueError, match="serm ingest sets bad rows aside"):
        abtest(workspace, [str(tmp_path / "odd.jsonl")])
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(ValueError, match="no columns"):
        abtest(workspace, [str(tmp_path / "empty.csv")])


def test_the_page_in_a_browser(traffic: pl.DataFrame, tmp_path: Path) -> None:
    workspace = Workspace.create(tmp_path / "w", "online: {retention_days: 3, start: 2026-03-02}\n")
    traffic.write_parquet(tmp_path / "log.parquet")
    found = abtest(workspace, [str(tmp_path / "log.parquet")])
    with chromium(tmp_path / "browser") as browser:
        for width, dark in ((1200, False), (390, True)):
            browser.screen(width, 900, dark)
            browser.open(Path(found.page).as_uri())
            browser.wait("document.querySelectorAll('.plot .main-svg').length >= 2")
            assert browser.evaluate("document.documentElement.scrollWidth <= innerWidth")
            shown = browser.evaluate("document.querySelector('.verdict').textContent")
            assert shown == found.verdict.headline
        assert browser.errors == []
        assert [url for url in browser.requests if not url.startswith(("file:", "data:", "blob:"))] == []


def test_a_primary_metric_that_is_not_there_gives_no_verdict(traffic: pl.DataFrame, tmp_path: Path) -> None:
    settings = QUICK.model_copy(update={"primary": "negative_feedback"})
    verdict = judge(analyse(log_of(traffic.drop("negative"), tmp_path), settings), settings)
    assert verdict.verdict == "unmeasured"
    assert "online.primary" in verdict.headline


def test_plans_shrink_with_the_square_of_the_effect_and_come_true(traffic: pl.DataFrame, tmp_path: Path) -> None:
    workspace = Workspace.create(tmp_path / "w", "online: {effect: 0.1, primary: ctr, minimum_units: 20}\n")
    experiment(2_000, 10, MONDAY, 7, sessions_a_day=0.0).write_parquet(tmp_path / "log.parquet")
    wide = plan_abtest(workspace, [str(tmp_path / "log.parquet")]).needs[0]
    workspace.config.online.effect = 0.05
    found = plan_abtest(workspace, [str(tmp_path / "log.parquet")])
    narrow = found.needs[0]
    assert wide.users is not None
    assert wide.users_peeking is not None
    assert narrow.users == pytest.approx(4 * wide.users, rel=0.01)
    assert wide.users < wide.users_peeking < 2.5 * wide.users
    assert wide.days == pytest.approx(10 * wide.users / 2_000, rel=0.1)  # users come once and evenly
    assert found.tightest_units == narrow.users_peeking
    alone = (
        pl.read_parquet(tmp_path / "log.parquet")
        .group_by("user")
        .agg(pl.col("clicked").sum().cast(pl.Float64), pl.len())
    )
    rate = alone["clicked"].sum() / alone["len"].sum()
    spread = (alone["clicked"] - rate * alone["len"]).std() / alone["len"].mean()  # type: ignore[operator]
    assert wide.users == pytest.approx(4 * (2.8016 * spread / (0.1 * rate)) ** 2, rel=0.01)  # type: ignore[operator]


def test_commands(traffic: pl.DataFrame, tmp_path: Path) -> None:
    runner = CliRunner()
    workspace = Workspace.create(tmp_path / "w", "online: {retention_days: 3}\n")
    traffic.rename({"user": "who"}).write_csv(tmp_path / "log.csv")
    here = [str(tmp_path / "log.csv"), "-w", workspace.root, "--column", "user=who", "--set", "online.start=2026-03-02"]
    told = runner.invoke(app, ["abtest", *here])
    assert told.exit_code == 0, told.output
    assert "successful sessions *" in told.stdout
    data = json.loads(runner.invoke(app, ["abtest", "--json", *here]).stdout)
    assert data["days"] == 14
    assert data["first"] == "2026-03-02T00:00:00+00:00"
    assert len(data["effects"]) == len(METRICS)
    assert len(data["looks"]) == 14
    assert json.loads(runner.invoke(app, ["abtest", "plan", "--json", *here]).stdout)["users"] > 1_000
    assert "looking daily" not in runner.invoke(app, ["abtest", "plan", *here]).stderr
    off = runner.invoke(app, ["abtest", *here, "--set", "online.shares={a: 3, b: 1}"])
    assert off.exit_code == 3
    assert "Stop" in off.stdout
    assert runner.invoke(app, ["abtest", *here, "--set", "online.primary=joy"]).exit_code == 1
    assert runner.invoke(app, ["abtest", "--help"]).exit_code == 0


def test_the_page_is_whole_safe_and_the_same_again(traffic: pl.DataFrame, tmp_path: Path) -> None:
    workspace = Workspace.create(tmp_path / "w", "online: {retention_days: 3, start: 2026-03-02}\n")
    named = traffic.with_columns(variant=pl.when(variant="b").then(pl.lit("<b>new</b>")).otherwise("variant"))
    named.write_parquet(tmp_path / "log.parquet")
    abtest(workspace, [str(tmp_path / "log.parquet")])
    page = workspace.read_text("reports", "abtest.html")
    abtest(workspace, [str(tmp_path / "log.parquet")])
    assert workspace.read_text("reports", "abtest.html") == page
    own = page.replace(page[page.index("<script>") : page.rindex("</script>")], "")  # without Plotly itself
    assert "http://" not in own
    assert "https://" not in own
    assert "<b>new</b>" not in page
    assert "prefers-color-scheme: dark" in page


def test_hours_and_zones_count_days_in_utc(tmp_path: Path) -> None:
    late = datetime(2026, 3, 2, 22, tzinfo=UTC)
    frame = experiment(400, 3, late, 1)
    settings = QUICK.model_copy(update={"start": late})
    log = log_of(frame, tmp_path)
    rows, last, start = within(log, settings)
    found = gather(rows, ["ctr"], start, last, log, settings)
    expected = {(moment.date() - late.date()) / timedelta(days=1) for moment in frame["ts"]}
    assert set(found["day"]) <= expected
    assert max(found["day"]) == 3  # type: ignore[type-var]
    assert from_workspace(pl.LazyFrame(frame)).by_user
