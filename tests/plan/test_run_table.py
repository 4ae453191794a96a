"""Runs from CSV files as people have them, and as nobody should."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from weightgate.errors import DataError, UserError
from weightgate.plan.fit.table import read_runs

GOOD = "params,tokens,loss\n1e7,2e8,3.5\n2e7,8e8,3.1\n"


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "runs.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_columns_are_known_by_many_names(tmp_path: Path) -> None:
    for header in (
        "params,tokens,loss",
        "Parameters,TOKENS,val_loss",
        "n,d,final_loss",
        "model size,tokens_seen,my_loss",
    ):
        runs = read_runs(written(tmp_path, GOOD.replace("params,tokens,loss", header)))
        assert runs.tokens.tolist() == [2e8, 8e8]
        assert runs.unit == "nats/token"
    assert (
        read_runs(written(tmp_path, GOOD.replace("loss", "bits_per_byte")), named={"loss": "bits_per_byte"}).unit
        == "bits/byte"
    )


def test_tables_come_with_marks_separators_and_thousands(tmp_path: Path) -> None:
    expected = ([1e7, 2e7], [2e8, 8e8], [3.5, 3.1])
    for text in (
        "\ufeff" + GOOD,
        GOOD.replace(",", ";"),
        GOOD.replace(",", "\t"),
        GOOD.replace("\n", "\r\n"),
        'params,tokens,loss\n"10,000,000","200,000,000",3.5\n"20,000,000","800,000,000",3.1\n',
        "params,tokens,loss\n10M,200M,3.5\n20M,0.8B,3.1\n",
        "params,tokens,loss\n10_000_000,2e8,3.5\n 2e7 , 8e8 , 3.1 \n\n",
    ):
        runs = read_runs(written(tmp_path, text))
        assert (runs.parameters.tolist(), runs.tokens.tolist(), runs.loss.tolist()) == expected, text


def test_tokens_follow_from_flops(tmp_path: Path) -> None:
    runs = read_runs(written(tmp_path, "Model Size,Training FLOP,loss\n1e7,1.2e16,3.5\n"))
    assert runs.tokens == pytest.approx([2e8])
    assert np.isnan(runs.seconds).all()


def test_rows_are_chosen_and_rows_without_a_loss_left_out(tmp_path: Path) -> None:
    path = written(tmp_path, "corpus,params,tokens,loss\na,1,2,3\nb,1,2,4\na,1,2,\n")
    runs = read_runs(path, where={"corpus": "a"})
    assert runs.loss.tolist() == [3.0]
    assert runs.notes == ("1 rows without a loss were left out",)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "an empty file"),
        ("params,tokens\n1,2\n", "no column holds the loss"),
        ("params,loss\n1,2\n", "tokens (or flops)"),
        ("params,tokens,train_loss,test_loss_2\n1,2,3,4\n", "--column loss=NAME"),
        ("params,tokens,loss\n", "no row is left"),
        ("params,tokens,loss\n1,2,-3\n", "runs.csv:2"),
        ("params,tokens,loss\n1,2,3\n1,nan,3\n", "runs.csv:3"),
        ("params,tokens,loss\n1,1e400,3\n", "tokens is no positive number"),
        ("params,tokens,loss\n0,2,3\n", "params is no positive number"),
        ("params,tokens,loss\n1,,3\n", "nothing"),
        ("params,tokens,loss\n1,two,3\n", "two"),
        ("params;tokens;loss\n1e7;2e8;3,5\n", "decimal point"),
        ("params;tokens;loss\n1,234;2e8;3.5\n", "1,234"),
        ('params,tokens,loss\n1e7,2e8,"3,500"\n', "3,500"),
        ("params,tokens,loss,loss\n1e7,2e8,3.5,3.6\n", "two columns are called 'loss'"),
        (b"params,tokens,loss\n\xff\xfe,2,3\n", "cannot be read as CSV"),
        ('params,tokens,loss\n"1,2,3\n', "cannot be read as CSV"),
    ],
)
def test_hostile_tables_are_refused_with_their_place(tmp_path: Path, text: str | bytes, says: str) -> None:
    with pytest.raises(DataError) as refusal:
        read_runs(written(tmp_path, text))
    assert says in str(refusal.value)
    assert "runs.csv" in str(refusal.value)


def test_a_table_that_is_not_there_and_a_column_that_is_not() -> None:
    with pytest.raises(DataError, match="no such table of runs"):
        read_runs(Path("nowhere.csv"))


def test_a_column_that_was_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'perplexity'"):
        read_runs(written(tmp_path, GOOD), named={"loss": "perplexity"})


@given(text=st.text(max_size=200))
def test_any_text_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.mktemp("runs") / "runs.csv"
    path.write_bytes(("params,tokens,loss\n" + text).encode("utf-8", "replace"))
    try:
        runs = read_runs(path)
    except UserError:
        return
    assert np.isfinite(runs.loss).all()
