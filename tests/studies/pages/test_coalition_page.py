"""The page of colluders: its goals from small tables, by hand, and that README quotes it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tffl.studies.pages import coalition
from tffl.studies.pages.builder import make

ROOT = Path(__file__).parents[3]
HEADER = "setting,attack,defense,seed,accuracy,attack_success,recall,fpr,error\n"
FEW, MANY, UNEVEN = "Dirichlet 0.5, 5 of 20", "Dirichlet 0.5, 8 of 20", "Dirichlet 0.1, 5 of 20"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two seeds; LIE costs 10 points and is found, min-max costs 1 and is not."""
    rows, exact, free = [], [], []
    for setting in (FEW, MANY, UNEVEN):
        for seed, base in ((1, 0.7), (2, 0.8)):
            exact.append(f'"{setting}",attackers left out,exact,{seed},{base},,1.0,0.0,')
            exact.append(f'"{setting}",none,none,{seed},0.9,,,0.0,')
            rows += [
                f'"{setting}",LIE z 1.5,none,{seed},{base - 0.1:.3f},,,0.0,',
                f'"{setting}",LIE z 1.5,shield,{seed},{base - 0.01:.3f},,1.0,0.0{seed},',
                f'"{setting}",min-max,none,{seed},{base - 0.01:.3f},,,0.0,',
                f'"{setting}",min-max,shield,{seed},{base - 0.01:.3f},,0.0,0.5,',
            ]
    free.append("IID,none,shield,1,0.8,,,0.01,")
    free.append("IID,none,none,1,0.8,,,0.0,")
    for name, lines in (("fashion_mnist", rows), ("reference", exact), ("alarms", free)):
        (tmp_path / f"{name}.csv").write_text(HEADER + "\n".join(lines) + "\n")
    return tmp_path


def test_goals_count_harmful_attacks_only(folder: Path) -> None:
    goals = {goal.text: goal for goal in coalition.claims(folder)}
    clones = next(goal for text, goal in goals.items() if text.startswith("Clones, up to 25 %"))
    # FPR 1 % and 2 % in the two seeds: 1.5 %, with t(1 df) = 12.7 times 0.5 % as the half width.
    assert clones.verdict == "fails"
    assert clones.numbers == "recall 100.0 % ± 0.0, FPR 1.5 % ± 6.4; 1 cells"
    spread = next(goal for text, goal in goals.items() if text.startswith("Spread, up to 25 %"))
    assert spread.verdict == "undecided" and "not measured" in spread.numbers
    alarms = next(goal for text, goal in goals.items() if text.startswith("False alarms"))
    assert alarms.verdict == "fails" and alarms.numbers == "1.0 %"
    worst = next(goal for text, goal in goals.items() if text.startswith("Whole runs"))
    assert worst.verdict == "holds" and worst.numbers.startswith("1.0 points")


def test_what_escapes_is_harmful_and_rarely_found(folder: Path) -> None:
    assert coalition.escaping(folder).startswith("No harmful attack")
    rows = (folder / "fashion_mnist.csv").read_text().replace(",1.0,0.0", ",0.5,0.0")
    (folder / "fashion_mnist.csv").write_text(rows)
    lines = coalition.escaping(folder).splitlines()
    assert len(lines) == 3
    assert f"- LIE z 1.5, {UNEVEN}: recall 50 %; it costs 10.0 points undefended" in lines[0]


def test_failures_come_first(folder: Path) -> None:
    make(coalition.PAGE, folder, folder / "nowhere")
    text = (folder / "README.md").read_text()
    verdicts = [line.split("|")[2].strip(" *") for line in text.splitlines() if "**" in line[:200]]
    verdicts = [word for word in verdicts if word in ("holds", "fails", "undecided")]
    assert verdicts == sorted(verdicts, key=("fails", "undecided", "holds").index)
    assert {"holds", "fails"} <= {*verdicts}


@pytest.mark.parametrize(
    ("attack", "expected"),
    [
        ("min-max", "clones"),
        ("min-max, own spread", "spread"),
        ("sign-flip", "spread"),
        ("label flip", "trained"),
    ],
)
def test_kinds_of_attackers(attack: str, expected: str) -> None:
    assert coalition.kind(attack) == expected


def test_readme_quotes_the_goals_of_the_page() -> None:
    page = (ROOT / "results/coalition/README.md").read_text().splitlines()
    readme = (ROOT / "README.md").read_text().splitlines()
    begin, end = page.index("## Goal by goal"), page.index("## What escapes")
    goals = [line for line in page[begin:end] if line.startswith("| ")]
    at = readme.index(goals[0])
    assert readme[at : at + len(goals)] == goals
