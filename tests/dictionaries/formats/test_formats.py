"""Which layout a folder has, and what no layout can hold."""

from __future__ import annotations

import pytest

from tests.dictionaries.formats.test_round_trips import make
from workbench.dictionaries import load_dictionary, save_dictionary
from workbench.dictionaries.formats import FORMATS, format_of
from workbench.errors import UserError


@pytest.mark.parametrize("format", FORMATS)
def test_a_folder_is_recognised_by_its_files(tmp_path, format):
    assert format_of(tmp_path) is None
    save_dictionary(make("topk", metadata={"n": 1}), tmp_path, format=format)
    assert format_of(tmp_path) == format
    assert load_dictionary(tmp_path).metadata == {"n": 1}
    assert not list(tmp_path.glob("*.tmp"))


def test_a_dictionary_travels_through_all_layouts(tmp_path):
    made = make("topk", unit=True, metadata={"model": "m"})
    for format in (*FORMATS, *FORMATS):
        made_again = load_dictionary(save_dictionary(made, tmp_path / format, format=format))
        assert (made_again.hash, made_again.metadata) == (made.hash, made.metadata)
        made = made_again


def test_a_folder_of_folders_names_them(tmp_path):
    for name in ("layers.0", "layers.1"):
        save_dictionary(make("topk"), tmp_path / name, format="sparsify")
    with pytest.raises(
        UserError, match=r"holds several dictionaries: give one of layers\.0, layers\.1 in it"
    ):
        load_dictionary(tmp_path)


def test_an_empty_folder_and_a_missing_one(tmp_path):
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(UserError, match=r"has no cfg\.json: train one or give a SAELens directory"):
            load_dictionary(folder)


def test_one_folder_holds_one_layout(tmp_path):
    save_dictionary(make("topk"), tmp_path)
    with pytest.raises(UserError, match="holds a dictionary of saelens: give another one for sparsify"):
        save_dictionary(make("topk"), tmp_path, format="sparsify")
    save_dictionary(make("jumprelu"), tmp_path)
    assert load_dictionary(tmp_path).architecture == "jumprelu"


@pytest.mark.parametrize(
    ("name", "options", "format", "message"),
    [
        (
            "jumprelu",
            {},
            "sparsify",
            "of architecture 'jumprelu' cannot be written for sparsify, which holds topk and",
        ),
        ("topk", {"d_out": 9}, "sparsify", "of d_in 6 and d_out 9 cannot be written for sparsify"),
        (
            "group_max",
            {},
            "dictionary_learning",
            "of architecture 'group_max' cannot be written for dictionary_learning",
        ),
        ("topk", {"skip": True}, "dictionary_learning", "with a skip or of two widths cannot be written"),
        ("standard", {"d_out": 9}, "dictionary_learning", "with a skip or of two widths cannot be written"),
        ("topk", {}, "safetensor", "format 'safetensor' is not known; the nearest: saelens"),
    ],
)
def test_what_a_layout_cannot_hold_is_refused_before_anything_is_written(
    tmp_path, name, options, format, message
):
    with pytest.raises(UserError, match=message):
        save_dictionary(make(name, **options), tmp_path / "new", format=format)
    assert not (tmp_path / "new").exists()
