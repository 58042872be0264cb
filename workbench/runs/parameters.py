"""`run.yaml`: the parameters of a run, checked before anything is made.

One section per stage and one called `common`, whose entries go to every stage that has such a parameter (a
stage's own section wins). A name must be in the `parameters` cell of the stage's notebook and in the
signature of the stage's function; papermill by itself only warns about an unknown name, which then has no
effect.

    common:  {name: demo, model: embedded, seed: 0}
    capture: {n_tokens: 510_000}
    train:   {d_sae: 4096, k: 32}
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from workbench.errors import UserError, nearest
from workbench.runs.options import check_names
from workbench.runs.stages import STAGES, Stage

COMMON = "common"
RUN_NAME = "name"
RUN = "run"
OFFLINE = "HF_HUB_OFFLINE"

Sections = dict[str, dict[str, Any]]


def read_parameters(path: Path) -> Sections:
    """The sections of a `run.yaml`, not yet checked against the stages.

    Raises:
        UserError: no such file, not YAML, not sections of names and values, or an unknown section.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"params {str(path)!r} cannot be read ({type(error).__name__}): give a YAML file"
        ) from error
    except yaml.YAMLError as error:
        place = " ".join(str(error).split())
        raise UserError(f"params {str(path)!r} is not YAML: {place}") from error
    return check_sections(content or {}, where=str(path))


def check_sections(content: Any, *, where: str) -> Sections:
    """`content` as sections of named values.

    Raises:
        UserError: another shape, or a section that is neither `common` nor a stage.
    """
    known = [COMMON, *STAGES]
    if not isinstance(content, Mapping):
        raise UserError(
            f"params {where!r} holds {type(content).__name__}: it needs sections, such as {COMMON}: and train:"
        )
    for name, section in content.items():
        if name not in known:
            raise UserError(f"section {name!r} is unknown in {where!r}; {nearest(str(name), known)}")
        if not isinstance(section, Mapping | None):
            raise UserError(
                f"section {name!r} in {where!r} holds {section!r}: it needs lines of 'name: value'"
            )
    return {name: dict(section or {}) for name, section in content.items()}


def notebook_parameters(stage: Stage) -> dict[str, dict[str, Any]]:
    """The parameters cell of the stage's notebook as papermill reads it, `run` left out."""
    import logging

    import papermill

    logging.getLogger("papermill").setLevel(logging.WARNING)
    found = papermill.inspect_notebook(str(stage.notebook_path()))
    return {name: entry for name, entry in found.items() if name != RUN}


def stage_parameters(sections: Sections) -> Sections:
    """Per stage the given parameters, converted to the types of its function; defaults are not filled in.

    Raises:
        UserError: a parameter that the notebook or the function does not have, or a value of another type.
    """
    common = {k: v for k, v in sections.get(COMMON, {}).items() if k != RUN_NAME}
    found, everywhere = {}, set()
    for name, stage in STAGES.items():
        known = stage.options()
        shown = [p for p in notebook_parameters(stage) if p in known]
        own = sections.get(name, {})
        check_names(list(own), shown, where=f"section {name!r}")
        merged = {k: v for k, v in common.items() if k in shown} | own
        found[name] = {k: known[k].convert(v) for k, v in merged.items()}
        everywhere.update(shown)
    check_names(list(common), [RUN_NAME, *sorted(everywhere)], where=f"section {COMMON!r}")
    return found


def offline_value(models: Iterable[Any]) -> str:
    """The value of `HF_HUB_OFFLINE`: "1", unless a model is neither the embedded one nor a path, so from a hub."""
    local = (m is None or m == "embedded" or Path(str(m)).expanduser().exists() for m in models)
    return "1" if all(local) else "0"


def complete(stage: Stage, given: Mapping[str, Any]) -> dict[str, Any]:
    """`given` with the defaults of the stage's function for all that is missing.

    Raises:
        UserError: an option without a default is missing.
    """
    known = stage.options()
    for name, option in known.items():
        if option.required and name not in given:
            raise UserError(
                f"parameter {name!r} of stage {stage.name!r} is missing: give {option.words()}, {option.help}"
            )
    return {name: option.default for name, option in known.items()} | dict(given)
