import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tffl.core.errors import TfflError
from tffl.record.tables import CLIENT_COLUMNS, ROUND_COLUMNS, Table, read_rows, to_csv


def test_columns_are_the_published_ones() -> None:
    assert ",".join(ROUND_COLUMNS) == (
        "round,accuracy,loss,attack_success,attack_loss,participants,accepted,rejected,"
        "true_positives,false_positives,true_negatives,false_negatives,recall,precision,fpr,"
        "detection_accuracy,f1,mcc,balanced_accuracy,auc,threshold,train_seconds,attack_seconds,"
        "defense_seconds,evaluate_seconds"
    )
    assert ",".join(CLIENT_COLUMNS) == (
        "round,client,samples,malicious,score,flagged,accepted,weight,update_norm,reason"
    )


def test_undefined_is_empty_and_types_are_plain() -> None:
    row = {
        "none": None,
        "nan": math.nan,
        "numpy_nan": np.float32("nan"),
        "zero": 0.0,
        "float": np.float64(1 / 3),
        "inf": math.inf,
        "bool": np.bool_(True),
        "int": np.int64(7),
        "text": 'score 2 > 1, "far"',
    }
    text = to_csv(list(row), [row]).splitlines()[1]
    assert text == ',,,0.0,0.333333333,inf,1,7,"score 2 > 1, ""far"""'


def test_a_key_that_is_no_column_is_refused() -> None:
    with pytest.raises(ValueError, match="accuracies"):
        to_csv(ROUND_COLUMNS, [{"round": 1, "accuracies": 0.5}])


def test_frame_tells_undefined_from_zero() -> None:
    table = Table(CLIENT_COLUMNS)
    table.append(1, [{"round": 1, "client": 3, "malicious": True, "score": None, "weight": 0.0}])
    row = table.frame().iloc[0]
    assert math.isnan(row["score"]) and row["weight"] == 0 and row["malicious"] == 1
    assert row["reason"] == ""


numbers = st.one_of(st.none(), st.booleans(), st.integers(), st.floats())
cells = st.one_of(
    numbers,
    st.text(st.characters(exclude_categories=("Cs", "Cc")) | st.sampled_from('",\n')),
)


@given(st.lists(st.fixed_dictionaries({"score": numbers, "reason": cells}), max_size=8))
def test_reading_and_writing_again_gives_the_same_bytes(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]
) -> None:
    table = Table(CLIENT_COLUMNS)
    for index, row in enumerate(rows):
        round = 1 + index // 3
        table.append(round, [{"round": round, **row} for _ in range(2)])
    file = tmp_path_factory.mktemp("table") / "clients.csv"
    file.write_bytes(table.text().encode())
    again = Table.read(file, CLIENT_COLUMNS)
    assert again.text() == table.text()
    assert again.rounds == table.rounds
    assert to_csv(CLIENT_COLUMNS, read_rows(file)) == table.text()


@pytest.mark.parametrize(
    ("line", "damage"),
    [
        ("1,2,300,0,a lot,0,1,0.5,2.5,", "in round 1, score is a lot, which is no number"),
        ("1,2,300,0,1.5,0", "in round 1, accepted is missing, which is no number"),
    ],
)
def test_damaged_cells_are_named_with_their_file(tmp_path: Path, line: str, damage: str) -> None:
    file = tmp_path / "clients.csv"
    file.write_text(f"{','.join(CLIENT_COLUMNS)}\n{line}\n")
    with pytest.raises(TfflError) as error:
        Table.read(file, CLIENT_COLUMNS)
    assert str(error.value) == f"{file} is damaged: {damage}"


def test_a_damaged_heading_is_no_empty_table(tmp_path: Path) -> None:
    file = tmp_path / "clients.csv"
    file.write_text(",".join(CLIENT_COLUMNS)[:20])
    with pytest.raises(TfflError, match="is not a table with columns"):
        Table.read(file, CLIENT_COLUMNS)
    file.write_text(f"{','.join(CLIENT_COLUMNS)}\n")
    assert Table.read(file, CLIENT_COLUMNS).rounds == []


def test_keep_drops_later_rounds() -> None:
    table = Table(("round",))
    for round in (1, 2, 3):
        table.append(round, [{"round": round}])
    table.keep(2)
    assert table.text() == "round\n1\n2\n"


@pytest.mark.parametrize(
    "content", ["loss,round\n1,2\n", "round,a,a\n1,2,3\n", "a\nb\n", "\xff\xfe", 'round\n"1\n']
)
def test_another_table_is_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "rounds.csv"
    file.write_text(content, encoding="latin-1")
    with pytest.raises(TfflError, match=r"rounds\.csv is not a table"):
        Table.read(file, ("round",))


def test_columns_may_be_added_behind_the_others(tmp_path: Path) -> None:
    table = Table(("round", "reason"))
    odd = '=1, "a"\nb'
    table.append(1, [{"round": 1, "reason": odd}])
    table.widen(["reason", "mine"])
    table.append(2, [{"round": 2, "reason": "", "mine": 0.5}])
    table.append(3, [{"round": 3}])
    assert table.text().splitlines()[-2:] == ["2,,0.5", "3,,"]
    (tmp_path / "a.csv").write_text(table.text())
    again = Table.read(tmp_path / "a.csv", ("round", "reason"))
    assert again.text() == table.text() and again.columns == ("round", "reason", "mine")
    assert again.frame()["mine"].tolist()[1] == 0.5 and again.frame()["mine"].isna().sum() == 2
    assert read_rows(tmp_path / "a.csv")[0] == {"round": "1", "reason": odd, "mine": ""}
