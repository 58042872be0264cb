"""run.yaml is checked whole before anything is made."""

from __future__ import annotations

from pathlib import Path

import pytest

from workbench.errors import UserError
from workbench.runs.chain import run_folder
from workbench.runs.parameters import (
    check_sections,
    complete,
    offline_value,
    read_parameters,
    stage_parameters,
)
from workbench.runs.plan import make_plan
from workbench.runs.stages import STAGES, after


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("trian: {k: 3}", r"section 'trian' is unknown in .*; the nearest: train"),
        ("- a list", "holds list: it needs sections"),
        ("train: 3", "section 'train' in .* holds 3: it needs lines of 'name: value'"),
        ("train: {k: [", "is not YAML"),
        ("train: !!python/object/apply:os.system [true]", "is not YAML"),
    ],
)
def test_other_shapes_are_refused(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        read_parameters(path)


def test_a_missing_or_binary_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        read_parameters(tmp_path / "none.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="cannot be read"):
        read_parameters(tmp_path / "binary.yaml")


def test_an_empty_section_is_no_parameters() -> None:
    assert check_sections({"train": None}, where="x") == {"train": {}}


def test_common_goes_to_every_stage_that_has_it_and_a_stage_wins() -> None:
    found = stage_parameters(
        {"common": {"name": "x", "seed": 3, "task": "ioi"}, "train": {"seed": 4, "lr": "3e-4"}}
    )
    assert found["capture"] == {"seed": 3}
    assert found["train"] == {"seed": 4, "lr": 3e-4}
    assert found["trace"] == {"seed": 3, "task": "ioi"}
    assert found["report"] == {}


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"train": {"dsae": 3}}, "parameter 'dsae' is unknown in section 'train'; the nearest: d_sae"),
        ({"common": {"sed": 3}}, "parameter 'sed' is unknown in section 'common'; the nearest: seed"),
        ({"train": {"run": "x"}}, "parameter 'run' is unknown in section 'train'"),
        ({"train": {"k": "many"}}, "k 'many' is not a whole number"),
        ({"capture": {"n_tokens": True}}, "n_tokens True is not a whole number"),
    ],
)
def test_bad_parameters_are_refused(sections: dict[str, dict[str, object]], message: str) -> None:
    with pytest.raises(UserError, match=message):
        stage_parameters(sections)


def test_a_required_parameter_must_be_given() -> None:
    with pytest.raises(UserError, match="parameter 'task' of stage 'trace' is missing"):
        complete(STAGES["trace"], {})


def test_keys_move_with_what_they_depend_on(tmp_path: Path) -> None:
    def keys(**sections: dict[str, object]) -> dict[str, str]:
        plan = make_plan({"common": {"task": "ioi"}} | sections, base=tmp_path, command="")
        return {name: planned.key for name, planned in plan.stages.items()}

    first = keys()
    assert keys() == first
    assert keys(train={"k": 32}) == first  # the default, written out
    changed = keys(train={"k": 31})
    assert {name for name in first if first[name] != changed[name]} == {"train"}


def test_a_hub_model_is_the_only_thing_that_opens_the_network(tmp_path: Path) -> None:
    assert offline_value([None, "embedded", str(tmp_path)]) == "1"
    assert offline_value(["embedded", "someone/model"]) == "0"


def test_where_a_run_goes(tmp_path: Path) -> None:
    params = tmp_path / "run.yaml"
    params.write_text("common: {name: mine}")
    assert run_folder(params, None) == Path("runs/mine")
    assert run_folder(params, Path("there")) == Path("there")
    (tmp_path / ".stages").mkdir()
    assert run_folder(params, None) == tmp_path
    (tmp_path / "up.yaml").write_text("common: {name: ../up}")
    with pytest.raises(UserError, match=r"'\.\./up' in section 'common' is not a folder name"):
        run_folder(tmp_path / "up.yaml", None)


def test_stages_know_what_follows_them() -> None:
    assert after("capture") == ["train", "features", "trace", "ablate", "report"]
    assert after("features") == ["report"]
    assert after("report") == []


def test_a_stage_owns_what_its_parameters_name(tmp_path: Path) -> None:
    assert STAGES["capture"].owned(tmp_path, {"hooks": ("a", "b")}) == [tmp_path / "activations"]
    assert STAGES["ablate"].owned(tmp_path, {"task": "ioi"}) == [tmp_path / "ablations/ioi.parquet"]
