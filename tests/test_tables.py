"""The tables of the pages are what the committed results give."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from experiments import divide_checkpoints, mixing, summary, tables
from experiments.campaigns import NOTHING
from experiments.reproduction import read_results
from jaxunlearn._check import InputError


@pytest.mark.parametrize("page", tables.PAGES, ids=lambda page: page.name)
def test_the_tables_of_the_pages_are_rendered_from_the_results(page: Path) -> None:
    text = page.read_text()
    assert tables.filled(text) == text


def test_every_campaign_that_was_run_has_a_table_on_a_page() -> None:
    shown = [found[0] for page in tables.PAGES for found in tables.TABLE.findall(page.read_text())]
    assert sorted(shown) == sorted(
        ["checkpoints", "summary", *(path.stem for path in tables.RESULTS.glob("*.jsonl"))]
    )


def test_a_table_without_results_is_refused() -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.jsonl holds no results\.$"):
        tables.filled("<!-- table none -->\n<!-- end -->\n")
    with pytest.raises(FileNotFoundError, match=r"; python -m experiments\.reproduce vit makes them\.$"):
        tables.filled("<!-- table vit -->\n<!-- end -->\n")


def test_a_line_that_was_not_written_to_its_end_is_refused(tmp_path: Path) -> None:
    (tmp_path / "some.jsonl").write_text(json.dumps(line("ibau", 0, 0.1)) + '\n{"a": ')
    with pytest.raises(InputError, match=r"Line 2 of .*some\.jsonl is no JSON"):
        tables.read_lines(tmp_path / "some.jsonl")


@pytest.mark.parametrize("text", ["5", '{"a": 1}', "[]"])
def test_a_line_of_something_else_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "some.jsonl").write_text(json.dumps(line("ibau", 0, 0.1)) + f"\n{text}\n")
    with pytest.raises(InputError, match=r"Line 2 of .*some\.jsonl is no result of a campaign"):
        tables.read_lines(tmp_path / "some.jsonl")


def test_what_holds_no_lines_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bytes.jsonl").write_bytes(b"\xff\xfe")
    for path in (tmp_path, tmp_path / "bytes.jsonl"):
        with pytest.raises(InputError, match="cannot be read as lines of text"):
            tables.read_lines(path)


def test_a_file_of_results_has_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text(json.dumps(line("ibau", 0, 0.1)) + "\n")
    assert tables.main([str(file)]) == 0
    assert "| digits badnets, 10 % | 90.0 / 100.0 / 0.0 | 80.0 / 10.0 / 70.0 |" in capsys.readouterr().out
    with Image.open(tmp_path / "mine.png") as picture:
        assert picture.width > 100


def test_what_stands_between_the_marks_is_replaced() -> None:
    page = "before\n<!-- table checkpoints -->\nold\n<!-- end -->\nafter\n"
    expected = f"before\n<!-- table checkpoints -->\n{tables.render()}<!-- end -->\nafter\n"
    assert tables.filled(page) == tables.filled(expected) == expected


@pytest.mark.parametrize("study", [divide_checkpoints, mixing], ids=lambda study: study.__name__)
def test_other_tables_of_the_page_are_rendered_from_the_results(study: Any) -> None:
    found = study.render(read_results(study.RESULTS))
    assert any(found in page.read_text() for page in tables.PAGES)


def test_what_was_not_run_is_empty() -> None:
    missing = tables.Row("`none`", "ibau", ("no such label",), 5)
    of_two = tables.Row("`few`", "ibau", ("default images=100 rounds=3 distillation=false",), 100)
    lines = tables.render([tables.ROWS[0], of_two, missing]).splitlines()
    assert len(lines) == 5
    assert lines[-1].startswith("| `few` | 100 | 73.2 / 0.8 / 71.2")
    assert lines[-1].count("|  ") == len(tables.NAMES) - 2
    assert "| before | | 84.6 / 98.1 / 1.7 |" in lines[2]


def line(method: str, seed: int, asr: float, **others: Any) -> dict[str, Any]:
    return {
        "data": "digits",
        "attack": "badnets",
        "attack_settings": [],
        "ratio": 0.1,
        "target": 5,
        "arch": "small_vgg",
        "train_images": 900,
        "test_images": 497,
        "training": ["rounds=20"],
        "method": method,
        "preset": "default",
        "settings": [],
        "clean": 300,
        "seed": seed,
        "before": {"acc": 0.9, "asr": 1.0, "ra": 0.0},
        "after": {"acc": 0.8, "asr": asr, "ra": 0.7},
        "evidence": {},
    } | others


def test_a_campaign_is_the_means_over_its_seeds() -> None:
    found = tables.render_campaign([line("ibau", 0, 0.1), line("ibau", 1, 0.3), line("sau", 0, 0.5)])
    assert found.splitlines() == [
        "| attack | before | ibau, 300 | sau, 300 |",
        "| --- | --- | --- | --- |",
        "| digits badnets, 10 % | 90.0 / 100.0 / 0.0 (2 seeds) | 80.0 / 20.0 / 70.0 (2 seeds) | 80.0 / 50.0 / 70.0 |",
    ]


def test_many_methods_are_rows() -> None:
    lines = [
        line("ibau", 0, 0.1, clean=count, attack=attack)
        for attack in ("badnets", "sig")
        for count in range(1, 8)
    ]
    assert tables.render_campaign(lines).splitlines()[:4] == [
        "| attack | digits badnets, 10 % | digits sig, 10 % |",
        "| --- | --- | --- |",
        "| before | 90.0 / 100.0 / 0.0 | 90.0 / 100.0 / 0.0 |",
        "| ibau, 1 | 80.0 / 10.0 / 70.0 | 80.0 / 10.0 / 70.0 |",
    ]


@pytest.mark.parametrize(
    ("changed", "first", "second"),
    [
        ({"target": 0}, "target 5", "target 0"),
        ({"arch": "vit_b_16"}, "arch small_vgg", "arch vit_b_16"),
        ({"train_images": 100}, "train images 900", "train images 100"),
        ({"test_images": 100}, "test images 497", "test images 100"),
        ({"training": ["rounds=4", "flip=true"]}, "training rounds=20", "training rounds=4 flip=true"),
    ],
)
def test_models_that_differ_have_rows_of_their_own(changed: dict[str, Any], first: str, second: str) -> None:
    lines = [line("ibau", 0, 0.1), line("ibau", 0, 0.3, **changed), line("ibau", 0, 0.5, attack="sig")]
    before = "90.0 / 100.0 / 0.0"
    assert tables.render_campaign(lines).splitlines()[2:] == [
        f"| digits badnets, 10 %, {first} | {before} | 80.0 / 10.0 / 70.0 |",
        f"| digits badnets, 10 %, {second} | {before} | 80.0 / 30.0 / 70.0 |",
        f"| digits sig, 10 % | {before} | 80.0 / 50.0 / 70.0 |",
    ]


def test_settings_that_differ_have_columns_of_their_own() -> None:
    lines = [line("ibau", 0, 0.1), line("ibau", 0, 0.3, settings=["rounds=6"]), line("sau", 0, 0.5)]
    head, _, row = tables.render_campaign(lines).splitlines()
    assert head == "| attack | before | ibau, 300 | ibau (rounds=6), 300 | sau, 300 |"
    assert row.endswith("| 80.0 / 10.0 / 70.0 | 80.0 / 30.0 / 70.0 | 80.0 / 50.0 / 70.0 |")


def test_every_model_counts_once_before_cleaning() -> None:
    weak = {"acc": 0.6, "asr": 0.5, "ra": 0.3}
    lines = [line("ibau", 0, 0.1), line("sau", 0, 0.1), line("ibau", 1, 0.1, before=weak)]
    assert "| 75.0 / 75.0 / 15.0 (2 seeds) |" in tables.render_campaign(lines)


def test_what_attacks_reach_stands_beside_what_is_published() -> None:
    lines = [line(NOTHING, 0, 1.0, data="gtsrb", attack=attack) for attack in ("bpp", "adaptive-blend")]
    assert tables.render_campaign(lines).splitlines() == [
        "| attack | before | published ASR |",
        "| --- | --- | --- |",
        "| gtsrb bpp, 10 % | 90.0 / 100.0 / 0.0 | 99.9 (98.7 to 99.9) |",
        "| gtsrb adaptive-blend, 10 % | 90.0 / 100.0 / 0.0 |  |",
    ]


def test_runs_that_stopped_are_marked() -> None:
    lines = [line("ibau", 0, 0.1, stopped="Round 2 gave NaN."), line("sau", 0, 0.1, stopped=None)]
    row = tables.render_campaign(lines).splitlines()[2]
    assert row.endswith("| 90.0 / 100.0 / 0.0 | 80.0 / 10.0 / 70.0 (1 stopped) | 80.0 / 10.0 / 70.0 |")
    lines = [lines[0], line("ibau", 1, 0.3)]
    assert "| 80.0 / 20.0 / 70.0 (2 seeds, 1 stopped) |" in tables.render_campaign(lines)


def test_divisions_have_a_table_of_their_own() -> None:
    evidence = {"precision": 0.5, "recall": 0.25, "leaked": 3}
    nothing = {"precision": None, "recall": 0.0, "leaked": 9}
    lines = [line("dau", 0, 0.0, clean=0, evidence=evidence)]
    assert tables.render_campaign(lines).splitlines()[-1] == "| digits badnets, 10 % | 50.0 | 25.0 | 3 |"
    both = [*lines, line("dau", 1, 0.0, clean=0, evidence=nothing)]
    row = "| digits badnets, 10 % | 50.0 (1 of 2 seeds) | 12.5 | 6 |"
    assert tables.render_campaign(both).splitlines()[-1] == row
    lines[0]["evidence"] = nothing
    assert tables.render_campaign(lines).splitlines()[-1] == "| digits badnets, 10 % | none found | 0.0 | 9 |"
    lines.append(line("dau", 0, 0.0, clean=0, preset="robust", evidence=evidence))
    assert [row.split(" | ")[:2] for row in tables.render_campaign(lines).splitlines()[-2:]] == [
        ["| digits badnets, 10 %: dau", "none found"],
        ["| digits badnets, 10 %: dau robust", "50.0"],
    ]
    with Image.open(io.BytesIO(tables.draw_campaign(lines))) as picture:
        assert picture.width > 500


@pytest.mark.parametrize(
    ("evidence", "settings", "said"),
    [
        ({"class": 5, "sentence": "one perturbation of norm 1.60, ..."}, [], "**5** (1.60)"),
        ({"class": 3, "sentence": "one perturbation of norm 1.60, ..."}, [], "3 (1.60)"),
        (
            {"class": 5, "sentence": "perturbation of norm 0.5", "share_before": 0.9, "rival_share": 0.3},
            [],
            "**5** (0.5, +60)",
        ),
        (
            {"class": 2, "sentence": "perturbation of norm 0.5", "share_before": 0.3, "rival_share": 0.4},
            [],
            "2 (0.5, -10)",
        ),
        ({"class": 5, "sentence": "far", "z_scores": [1.0, 36.6, 0.0]}, [], "**5** (37)"),
        ({"class": 5, "sentence": "perturbation of norm 0.5"}, ["mode=all-to-all"], "5 (0.5)"),
        ({"class": None, "sentence": "none was found"}, [], ""),
        ({"class": 5, "sentence": "divided", "precision": 1.0, "recall": 1.0, "leaked": 0}, [], ""),
        ({"sentence": "fine-tuning looks for no backdoor."}, [], ""),
    ],
)
def test_what_the_evidence_names_is_said(evidence: dict[str, Any], settings: list[str], said: str) -> None:
    found = line("ibau", 0, 0.1, evidence=evidence, attack_settings=settings)
    assert tables._suspicion(found) == said
    table = tables.render_campaign([found])
    assert ("class named" in table) == bool(said)
    assert said in table


def summarised(**lines_of: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    return {name: lines_of.get(name.replace("-", "_"), []) for name in summary.GRIDS.values()}


def test_the_summary_is_of_backdoors_that_had_formed() -> None:
    hardly = {"before": {"acc": 0.9, "asr": 0.3, "ra": 0.6}, "attack": "sig"}
    small = {"train_images": 6000}
    lines = [
        line("ibau", 0, 0.1, **small),
        line("ibau", 0, 0.3, attack="lf", **small, after={"acc": 0.88, "asr": 0.3, "ra": 0.5}),
        line("ibau", 0, 0.9, **small, **hardly),
        line("ibau", 0, 0.2, **small, clean=60),
        line("ibau", 0, 0.05, **small, settings=["distillation=false"]),
        line("dau", 0, 0.0, **small, preset="quick", clean=0),
        line("dau", 0, 0.02, **small, preset="quick", clean=0, attack="lf"),
    ]
    head, formed, *rows = summary.table(summarised(gtsrb_10=lines))
    column = head.index("GTSRB, 10 %")
    assert formed[column] == "2 of 3, ASR 100.0"
    assert formed[head.index("GTSRB, 5 %")] == "0 of 0"
    found = {row[0]: row[column] for row in rows}
    assert found == {
        "ibau, 5 %": "-6.0 / 20.0 (30.0)",
        "ibau (distillation=false), 5 %": "-10.0 / 5.0 (5.0; 1 of 2)",
        "ibau, 1 %": "-10.0 / 20.0 (20.0; 1 of 2)",
        "dau, training set": "-10.0 / 1.0 (2.0)",
        "fine-tuning, as published, 5 %": "+0.7 / 39.3",
        "I-BAU, as published, 5 %": "-1.8 / 13.3",
    }
    assert list(found) == [row[0] for row in rows]
    assert {len(row) for row in rows} == {len(head)}


def test_the_summary_has_a_picture_of_single_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(tables.report, "to_png", lambda figure: seen.append(figure) or b"")
    lines = [
        line("ibau", 0, 0.1, train_images=6000),
        line("ibau", 0, 0.3, train_images=6000, settings=["distillation=false"]),  # beside the default
        line("dau", 0, 0.02, preset="quick", clean=0),
        line("sau", 0, 0.2, train_images=6000, settings=["withhold=false"]),  # in its place
    ]
    summary.draw(summarised(gtsrb_10=lines))
    gtsrb, cifar = seen[0].axes
    points = {dots.get_label(): dots.get_offsets().tolist() for dots in gtsrb.collections}
    assert points["I-BAU, 5 %"] == [[pytest.approx(-10), pytest.approx(10)]]
    assert points["DAU, training set"] == [[pytest.approx(-10), pytest.approx(2)]]
    assert points["SAU, 5 %"] == [[pytest.approx(-10), pytest.approx(20)]]
    assert sum(map(len, points.values())) == 3
    assert not any(len(dots.get_offsets()) for dots in cifar.collections)
