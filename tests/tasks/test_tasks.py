"""The eight tasks: pairs of equal length, right answers, combinations that training never saw."""

from __future__ import annotations

import random
import re

import pytest

from workbench.errors import UserError
from workbench.models import load_model
from workbench.tasks import TASKS, make_task, words
from workbench.tasks.base import text_pair, token_id
from workbench.tasks.words import held_out
from workbench.testbeds.embedded_model import grammar


@pytest.fixture(scope="module")
def tokenizer():
    return load_model().tokenizer


@pytest.mark.parametrize("name", TASKS)
def test_pairs(name: str, tokenizer) -> None:
    task = make_task(name, tokenizer, n_pairs=64, seed=1)
    assert len({(p.clean_ids, p.answer_id, p.counterfactual_answer_id) for p in task.pairs}) == 64
    for pair in task.pairs:
        assert len(pair.clean_ids) == len(pair.counterfactual_ids)
        assert pair.clean_ids[0] == pair.counterfactual_ids[0] == tokenizer.bos_token_id
        assert pair.clean_ids != pair.counterfactual_ids
        assert pair.answer_id != pair.counterfactual_answer_id
    assert sum(len(b.clean) for b in task.batches()) == 64
    assert task.description


@pytest.mark.parametrize("name", TASKS)
def test_the_seed_makes_the_pairs(name: str, tokenizer) -> None:
    one, same, other = (make_task(name, tokenizer, n_pairs=8, seed=s).pairs for s in (0, 0, 1))
    assert one == same != other


def test_indirect_object_answers_with_the_other_name(tokenizer) -> None:
    for pair in make_task("ioi", tokenizer, n_pairs=50, seed=0).pairs:
        names = [w for w in re.findall(r"\w+", pair.clean_text) if w in words.NAMES]
        assert len(names) == 3
        once = [n for n in names if names.count(n) == 1]
        assert pair.answer == f" {once[0]}"
        assert held_out("ioi", *sorted(set(names)))


def test_greater_than_answers_are_on_their_sides(tokenizer) -> None:
    for pair in make_task("greater_than", tokenizer, n_pairs=50, seed=0).pairs:
        start, early = (
            int(re.findall(r"\d\d\d\d", t)[0][2:]) for t in (pair.clean_text, pair.counterfactual_text)
        )
        assert early < int(pair.counterfactual_answer) < start < int(pair.answer)


def test_agreement_follows_the_subject_and_not_the_distractor(tokenizer) -> None:
    plurals = {plural: True for _, plural in words.VERBS} | {singular: False for singular, _ in words.VERBS}
    for pair in make_task("agreement", tokenizer, n_pairs=50, seed=0).pairs:
        nouns = [w for w in pair.clean_text.split() if w.rstrip("s") in words.NOUNS]
        assert plurals[pair.answer.strip()] == nouns[0].endswith("s") != nouns[1].endswith("s")


def test_induction_repeats_its_beginning(tokenizer) -> None:
    for pair in make_task("induction", tokenizer, n_pairs=50, seed=0).pairs:
        ids = pair.clean_ids[1:]
        earlier = ids.index(ids[-1])
        assert ids[earlier + 1] == pair.answer_id
        assert pair.counterfactual_ids[1:][earlier + 1] == pair.counterfactual_answer_id


@pytest.mark.parametrize("which", ["clean", "counterfactual"])
def test_brackets_close_the_innermost_open_one(tokenizer, which: str) -> None:
    for pair in make_task("brackets", tokenizer, n_pairs=50, seed=0).pairs:
        text, answer = (
            (pair.clean_text, pair.answer)
            if which == "clean"
            else (pair.counterfactual_text, pair.counterfactual_answer)
        )
        open_ones: list[str] = []
        for character in text:
            if character in "([{":
                open_ones.append(character)
            elif character in ")]}":
                assert grammar.CLOSERS[open_ones.pop()] == character
        assert grammar.CLOSERS[open_ones[-1]] == answer


def test_python_snippets_parse_once_answered(tokenizer) -> None:
    for pair in make_task("quotes", tokenizer, n_pairs=50, seed=0).pairs:
        closing = ")" if "(" in pair.clean_text else ""
        compile(pair.clean_text + pair.answer + closing, "quotes", "exec")
    for pair in make_task("attribute", tokenizer, n_pairs=50, seed=0).pairs:
        compile(pair.clean_text + pair.answer, "attribute", "exec")
        assert pair.clean_text.endswith(f"self.{pair.answer.strip()} =")


def test_docstring_answers_the_first_undescribed_argument(tokenizer) -> None:
    for pair in make_task("docstring", tokenizer, n_pairs=50, seed=0).pairs:
        arguments = re.findall(r"\(self, (.*)\):", pair.clean_text)[0].split(", ")
        described = re.findall(r":param (\w+):", pair.clean_text)
        assert described == arguments[:2]
        assert pair.answer == f" {arguments[2]}"


def test_training_text_never_shows_an_evaluation_combination() -> None:
    rng = random.Random(0)
    seen = [re.match(r".*?(\w+) and (\w+) .*, (?:and )?(\w+) ", grammar._ioi(rng)) for _ in range(500)]
    assert all(match and not held_out("ioi", *sorted(match.groups()[:2])) for match in seen)
    years = [re.search(r"(\d\d)(\d\d)", grammar._years(rng)) for _ in range(500)]
    assert all(match and not held_out("years", *match.groups()) for match in years)


def test_unknown_task_names_the_nearest(tokenizer) -> None:
    with pytest.raises(UserError, match="'inducton' is not known; the nearest: induction"):
        make_task("inducton", tokenizer, n_pairs=1, seed=0)


def test_no_pairs(tokenizer) -> None:
    with pytest.raises(UserError, match="n_pairs 0"):
        make_task("ioi", tokenizer, n_pairs=0, seed=0)


def test_an_answer_of_several_tokens_is_refused_with_its_first(tokenizer) -> None:
    with pytest.raises(
        UserError, match=r"answer ' Oaklander' is \d+ tokens \(ids .*; its first is|its first is"
    ):
        token_id(tokenizer, " Oaklander")


def test_unequal_lengths_are_refused(tokenizer) -> None:
    with pytest.raises(UserError, match="a pair has equal lengths"):
        text_pair(
            tokenizer, clean="a b", counterfactual="a b c", answer=" Mary", counterfactual_answer=" John"
        )
