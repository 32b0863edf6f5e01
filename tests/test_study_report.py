"""The command `topognn study`, its files, and its page in a real browser."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from tests.browser import open_browser
from tests.study_tables import make_table
from topognn.cli.main import app
from topognn.study.analysis import Analysis, analyse
from topognn.study.figures import draw_figures
from topognn.study.output import write_study
from topognn.study.page import make_page
from topognn.study.page import make_table as make_html_table
from topognn.study.summary import describe, summarise


@pytest.fixture(scope="module")
def found() -> Analysis:
    return analyse(make_table(), permutations=19)


@pytest.fixture(scope="module")
def report(found: Analysis, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study") / "made" / "here"
    write_study(found, folder, "Made-up <networks>")
    return folder


def test_files(found: Analysis, report: Path) -> None:
    names = {path.name for path in report.iterdir()}
    assert names == {
        *(
            f"{name}.csv"
            for name in ("summary", "regression", "prediction", "ranking", "importance", "unique", "networks")
        ),
        *("study.json", "report.html"),
    }
    pd.testing.assert_frame_equal(pd.read_csv(report / "ranking.csv"), found.ranking)
    content = json.loads((report / "study.json").read_text())
    assert content["says"] == describe(found)
    tau = {row["features"]: row["tau"] for row in content["summary"]}
    assert tau["MGE16"] == found.ranking.query("features == 'MGE16' and model == 'all'")["tau"].iloc[0]
    assert tau["SPARSITY"] is None  # not NaN, which is no JSON
    networks = pd.read_csv(report / "networks.csv")
    assert len(networks) == len(found.rows) and "MGE16 / algorithm" in networks


def test_page_needs_no_network(report: Path) -> None:
    page = (report / "report.html").read_text()
    assert "Made-up &lt;networks&gt;" in page and "<networks>" not in page
    assert not re.findall(r'(?:src|href)="(?!data:)', page)
    assert not re.findall(r"@import|url\(|fetch\(|XMLHttpRequest", page)


def test_same_input_same_page(found: Analysis) -> None:
    assert make_page(found, "a") == make_page(found, "a")


def test_figures(found: Analysis) -> None:
    figures = draw_figures(found)
    assert len(figures) == 6
    for name in found.sets:
        assert f">{name}<" in figures["Adjusted R2 by set of features"][0]  # text stays text
    one = analyse(make_table(models=("a",), datasets=("b",)), permutations=3)
    assert set(figures) - set(draw_figures(one)) == {"Rank agreement"}


def test_sentences_follow_the_numbers(found: Analysis) -> None:
    said = describe(found)
    assert said[0].startswith("At equal sparsity, MGE1")
    assert "ranks algorithms best" in said[1] and "predicts an algorithm that was not seen better" in said[2]
    noise = analyse(make_table(signal=0), permutations=3)
    assert "better than sparsity does" not in describe(noise)[2]
    summary = summarise(found).set_index("features")
    assert math.isnan(summary.loc["SPARSITY", "tau"]) and summary.loc["MGE16", "within"] > 0.8


def test_table_of_awkward_values() -> None:
    table = pd.DataFrame({"name": ["<b>&", None], "value": [float("nan"), -1e5]})
    text = make_html_table(table, "t")
    assert "&lt;b&gt;&amp;" in text and "<b>" not in text and 'data-value=""' in text and "\N{MINUS SIGN}1e+05" in text


@pytest.mark.parametrize("width", [390, 1280])
def test_page_in_a_browser(report: Path, tmp_path: Path, width: int) -> None:
    with open_browser(tmp_path / "profile", width, 900) as browser:
        browser.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600},
        )
        browser.get((report / "report.html").as_uri())
        assert browser.title == "Made-up <networks>"
        images = browser.execute_script(
            "return [...document.images].map(i => [i.complete, i.naturalWidth, i.getBoundingClientRect().width, i.alt])"
        )
        assert len(images) == 6
        assert all(done and natural > 200 and 200 < shown <= width and alt for done, natural, shown, alt in images)
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width  # no sideways scrolling
        column = "return [...document.querySelectorAll('#summary tbody tr')].map(r => r.cells[1].dataset.value)"
        click = "document.querySelectorAll('#summary th button')[1].click()"
        before = browser.execute_script(column)
        browser.execute_script(click)
        up = browser.execute_script(column)
        browser.execute_script(click)
        down = browser.execute_script(column)
        numbers = sorted(float(value) for value in before if value)
        assert [float(value) for value in up if value] == numbers
        assert [float(value) for value in down if value] == numbers[::-1]
        assert up[-1] == down[-1] == ""  # what is missing stays last
        browser.execute_script("document.querySelectorAll('#summary th button')[0].click()")
        names = browser.execute_script(
            "return [...document.querySelectorAll('#summary tbody tr')].map(r => r.cells[0].textContent)"
        )
        assert names == sorted(names)
        heads = browser.execute_script("return [...document.querySelectorAll('#summary th')].map(h => h.ariaSort)")
        assert heads[0] == "ascending" and not any(heads[1:])
        assert browser.get_log("browser") == []


def test_command(tmp_path: Path) -> None:
    make_table().to_parquet(tmp_path / "networks.parquet")
    arguments = ["study", str(tmp_path / "networks.parquet"), "--permutations", "9", "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "630 rows in 6 groups take part" in result.output and "MGE16" in result.output
    assert (tmp_path / "out" / "report.html").is_file()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns="seed"), "lacks the columns seed"),
        (lambda t: t.assign(accuracy=t["accuracy"] * 100), "looks like percent"),
        (lambda t: pd.concat([t, t]), "1260 rows share their key"),
        (lambda t: t[["model", "dataset", "pruning", "sparsity", "seed", "accuracy"]], "lacks the columns edges"),
    ],
)
def test_bad_tables_are_one_line(tmp_path: Path, change, message: str) -> None:
    change(make_table()).to_csv(tmp_path / "networks.csv", index=False)
    result = CliRunner().invoke(app, ["study", str(tmp_path / "networks.csv")])
    assert result.exit_code == 2 and result.stdout == ""
    assert result.stderr.startswith("error: ") and message in result.stderr and result.stderr.count("\n") == 1


def test_folder_that_is_a_file(tmp_path: Path) -> None:
    make_table().to_csv(tmp_path / "networks.csv", index=False)
    result = CliRunner().invoke(app, ["study", str(tmp_path / "networks.csv"), "--out", str(tmp_path / "networks.csv")])
    assert result.exit_code == 2
