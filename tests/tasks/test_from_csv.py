"""A user's table of prompt pairs: read as it is, and refused with the row and the reason."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from workbench.errors import UserError
from workbench.models import load_model
from workbench.tasks import make_task

HEADER = "clean,counterfactual,answer,counterfactual_answer"
ROWS = [
    '"When Mary and John went to the store, John gave a drink to",'
    '"When Mary and John went to the store, Mary gave a drink to", Mary, John',
    '"When Tom and Anna went to the park, Tom gave a book to",'
    '"When Tom and Anna went to the park, Anna gave a book to", Anna, Tom',
    '"The keys near","The key near", are, is',
]


@pytest.fixture(scope="module")
def tokenizer():
    return load_model().tokenizer


def write(folder: Path, rows: list[str], *, header: str = HEADER, name: str = "pairs.csv") -> str:
    path = folder / name
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return str(path)


def test_rows_become_pairs_with_their_spaces(tmp_path: Path, tokenizer) -> None:
    task = make_task(write(tmp_path, ROWS[:2]), tokenizer, n_pairs=2, seed=0)
    assert task.name == "pairs"
    by_answer = {pair.answer: pair for pair in task.pairs}
    assert set(by_answer) == {" Mary", " Anna"}
    pair = by_answer[" Mary"]
    assert pair.clean_text == "When Mary and John went to the store, John gave a drink to"
    assert pair.clean_ids[0] == tokenizer.bos_token_id
    assert tokenizer.decode(list(pair.clean_ids[1:])) == pair.clean_text
    assert pair.counterfactual_answer_id == tokenizer.encode(" John", add_special_tokens=False)[0]


def test_the_seed_draws_rows_without_replacement(tmp_path: Path, tokenizer) -> None:
    name = write(tmp_path, ROWS)
    draws = [make_task(name, tokenizer, n_pairs=2, seed=s).pairs for s in range(8)]
    assert draws[0] == make_task(name, tokenizer, n_pairs=2, seed=0).pairs
    assert len({tuple(p.answer for p in pairs) for pairs in draws}) > 2
    assert all(len(set(pairs)) == 2 for pairs in draws)


def test_a_parquet_table_is_the_same_task(tmp_path: Path, tokenizer) -> None:
    name = write(tmp_path, ROWS)
    pd.read_csv(name, dtype=str).to_parquet(tmp_path / "pairs.parquet")
    one, other = (
        make_task(str(tmp_path / f), tokenizer, n_pairs=3, seed=4) for f in ("pairs.csv", "pairs.parquet")
    )
    assert one.pairs == other.pairs


def test_texts_that_look_like_numbers_or_nothing_stay_texts(tmp_path: Path, tokenizer) -> None:
    name = write(tmp_path, ["1732 17,1711 17,45,07", "NA is,NA as, a, b"])
    answers = {p.answer for p in make_task(name, tokenizer, n_pairs=2, seed=0).pairs}
    assert answers == {"45", " a"}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            '"Mary and John","Mary", Mary, John',
            r"pairs.csv, row 3: prompts 'Mary and John' and 'Mary' have \d+ and \d+ tokens; a pair has equal lengths",
        ),
        (
            "a b,a c, Oaklander, b",
            r"row 3: answer ' Oaklander' is \d+ tokens \(ids \d+ '.+', \d+ '.+'\); an answer is",
        ),
        ("a b,a c, Mary, Oaklander", r"row 3: answer ' Oaklander' is \d+ tokens"),
        ("a b,a c, Mary, Mary", "row 3: answer ' Mary' equals the counterfactual answer"),
        ("a b,a c, Mary,", "row 3: counterfactual_answer is empty: fill it in or remove the row"),
        (",a c, Mary, John", "row 3: clean is empty"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, tokenizer, row: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_task(write(tmp_path, [*ROWS[:2], row]), tokenizer, n_pairs=1, seed=0)


def test_a_bad_table_is_refused(tmp_path: Path, tokenizer) -> None:
    def refuse(name: str, message: str, n_pairs: int = 1) -> None:
        with pytest.raises(UserError, match=message):
            make_task(name, tokenizer, n_pairs=n_pairs, seed=0)

    refuse(str(tmp_path / "none.csv"), "none.csv' is not a file: give the path of a .csv or .parquet file")
    swapped = HEADER.replace("counterfactual_answer", "wrong_answer")
    refuse(
        write(tmp_path, ROWS, header=swapped),
        "pairs.csv has no column 'counterfactual_answer': a task needs clean, .*; the nearest: .*wrong_answer",
    )
    refuse(write(tmp_path, []), "pairs.csv has no row")
    repeated = write(tmp_path, [*ROWS, *ROWS])
    refuse(repeated, "n_pairs 4 is more than the 3 different rows of pairs.csv", n_pairs=4)
    (tmp_path / "broken.parquet").write_bytes(b"not parquet")
    refuse(str(tmp_path / "broken.parquet"), "broken.parquet cannot be read as a table")
    (tmp_path / "latin.csv").write_bytes(f"{HEADER}\ncaf\xe9,b, a, b\n".encode("latin-1"))
    refuse(str(tmp_path / "latin.csv"), "latin.csv cannot be read as a table .*: save it as UTF-8 CSV")
    (tmp_path / "empty.csv").write_text("")
    refuse(str(tmp_path / "empty.csv"), "empty.csv has no column 'clean'")
    write(tmp_path, [*ROWS[:1], "a,b, Mary, John, extra"], name="wide.csv")
    refuse(
        str(tmp_path / "wide.csv"), "wide.csv, row 2: 5 cells for 4 columns: put texts with commas in double"
    )
    write(tmp_path, ['a,"b, Mary, John'], name="open.csv")
    refuse(str(tmp_path / "open.csv"), "open.csv cannot be read as a table .*unexpected end of data")


def test_columns_may_stand_in_any_order_beside_others(tmp_path: Path, tokenizer) -> None:
    mixed = write(
        tmp_path, [" John,x,a c, Mary,a b"], header="counterfactual_answer,note,counterfactual,answer,clean"
    )
    (pair,) = make_task(mixed, tokenizer, n_pairs=1, seed=0).pairs
    assert (pair.clean_text, pair.counterfactual_text) == ("a b", "a c")
    assert (pair.answer, pair.counterfactual_answer) == (" Mary", " John")


class Letters:
    """A tokenizer of one token a letter, without a beginning-of-text token."""

    bos_token_id = None

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        return [ord(letter) for letter in text]

    def decode(self, ids: list[int]) -> str:
        return "".join(map(chr, ids))


def test_a_tokenizer_without_beginning_of_text_puts_nothing_before_the_prompt(tmp_path: Path) -> None:
    (pair,) = make_task(write(tmp_path, ["ab,ac,x,y"]), Letters(), n_pairs=1, seed=0).pairs
    assert pair.clean_ids == (97, 98)
