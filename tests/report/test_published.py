"""Numbers of others beside one's own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from report_pages import Page, table_after

from noiserobust.cli import main
from noiserobust.errors import InvalidValueError, MissingFileError
from noiserobust.report import write_report
from noiserobust.report.published import COLUMNS, PUBLISHED, read_published

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
HEAD = ",".join(COLUMNS)
LINES = [
    "1,cifar100,resnet18,sgd,gaussian,sigma,0.07,47.09,2.54,3.64",
    "1,cifar100,resnet18,sgd,gaussian,sigma,0,79.31,,0.04",
    "1,cifar100,resnet18,rwp <b>,gaussian,sigma,0.07,61.36,2.85,",
    "4,cifar100,resnet18,sgd,laplace,b,0.01,78.49,0.18,0.07",
    ",cifar10,vgg,sgd,,,0,94.96,,0.15",
    "9,cifar10,,sgd,pcm,t,86400,90,,",
]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "published.csv"
    path.write_text("\n".join([HEAD, *LINES]) + "\n")
    return path


def test_tables_are_those_of_the_noises_and_those_without(file: Path) -> None:
    first, plain = read_published([file], ["gaussian", "other"])
    assert (first.title, first.noise) == ("Table 1: resnet18 on cifar100", "gaussian")
    assert first.rows == (
        ("method", "clean", "sigma = 0.07"),
        ("sgd", "79.31 ± 0.04", "47.09 ± 2.54 ± 3.64"),
        ("rwp <b>", "—", "61.36 ± 2.85 ± —"),
    )
    assert (plain.title, plain.noise) == ("vgg on cifar10", "")
    assert plain.rows == (("method", "clean"), ("sgd", "94.96 ± 0.15"))
    assert [found.title for found in read_published([file, file], ["laplace"])] == [
        "Table 4: resnet18 on cifar100",
        "vgg on cifar10",
    ] * 2
    drift = read_published([file], ["pcm"])[-1]
    assert drift.rows == (("method", "t = 1 d"), ("sgd", "90.00"))
    assert drift.title == "Table 9: cifar10"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a,b\n1,2\n", "to hold published numbers, but got: the columns a, b"),
        (f"{HEAD}\n1,c,r,sgd,gaussian,sigma,0,much,,\n", "but got: could not convert string to float: 'much'"),
        (f"{HEAD}\n1,c,r,sgd,gaussian,sigma,0,,,\n", "but got: no number in mean"),
        (
            f"{HEAD}\n{LINES[0]}\n{LINES[0]}\n",
            "one number a cell, but got two of sgd at level 0.07 in Table 1: resnet18",
        ),
        (
            f"{HEAD}\n1,c,r,sgd,gaussian,sigma,0,inf,,\n",
            "to be finite numbers and `level` finite ones >= 0, but got others",
        ),
        (f"{HEAD}\n1,c,r,sgd,gaussian,sigma,-1,90,,\n", "to be finite numbers and `level` finite ones >= 0"),
        (f"{HEAD}\n1,c,r,sgd,gaussian,sigma,inf,90,,\n", "to be finite numbers and `level` finite ones >= 0"),
        (f"{HEAD}\n{LINES[3]}\n", "to hold numbers under gaussian, but got laplace"),
        (f"{HEAD}\n", "to hold numbers under gaussian, but got nothing"),
    ],
)
def test_what_is_not_such_a_file_is_refused(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "published.csv"
    path.write_text(content)
    with pytest.raises(InvalidValueError) as error:
        read_published([path], ["gaussian"])
    assert said in str(error.value)
    assert str(path) in str(error.value)


def test_all_published_numbers_of_the_experiments_can_be_shown() -> None:
    files = sorted(EXPERIMENTS.glob("*/published.csv"))
    assert len(files) >= 2
    found = read_published(files, ["gaussian", "laplace"])
    cells = [cell for table in found for row in table.rows[1:] for cell in row[1:] if cell != "—"]
    assert len(cells) == sum(len(path.read_text().splitlines()) - 1 for path in files)


@pytest.mark.slow
def test_a_report_has_them_on_its_page_and_in_its_tables(gaussian: Path, file: Path, tmp_path: Path) -> None:
    report = write_report([gaussian], tmp_path / "out", published=[file])
    text = report.html.read_text()
    page = Page(text)
    assert PUBLISHED in page.text
    table = table_after(text, "Table 1: resnet18 on cifar100, gaussian")
    assert '<th scope="row">rwp &lt;b&gt;</th><td>—</td><td>61.36 ± 2.85 ± —</td>' in table
    assert "laplace" not in page.text
    assert "| rwp \\<b\\> | — | 61.36 ± 2.85 ± — |" in (tmp_path / "out/summary.md").read_text()
    assert (
        r"rwp \textless{}b\textgreater{} & -- & 61.36 $\pm$ 2.85 $\pm$ -- \\"
        in (tmp_path / "out/summary.tex").read_text()
    )
    published = json.loads((tmp_path / "out/summary.json").read_text())["published"]
    assert [found["title"] for found in published] == ["Table 1: resnet18 on cifar100", "vgg on cifar10"]
    assert "published" not in json.loads((write_report([gaussian], tmp_path / "out").tables[-1]).read_text())


def test_the_command_says_what_is_wrong_and_writes_nothing(gaussian: Path, tmp_path: Path, capsys) -> None:
    words = ["report", str(gaussian), "--out", str(tmp_path / "out"), "--published", str(tmp_path / "none.csv")]
    assert main(words) == 2
    assert "noiserobust: error: Expected" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    with pytest.raises(MissingFileError):
        read_published([tmp_path / "none.csv"], ["gaussian"])
