"""What is not there is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from tests.circuits.sweeps.conftest import random_features, random_pairs
from tests.models_on_disk import native_model
from workbench.anatomy import Anatomy, open_anatomy
from workbench.errors import UserError
from workbench.interventions import (
    ablate,
    add,
    features,
    head,
    intervene,
    neurons,
    patch,
    scale,
    set_to,
    steer_by,
    stream,
    target,
)

Opened = Callable[[str], Anatomy]
CASES = {
    "layer 7 of node 'a7.h0' is out of range: there are 3, from 0 to 2": ablate("a7.h0"),
    "head 4 of node 'a1.h4' is out of range: there are 4, from 0 to 3": ablate(head(1, 4)),
    "neuron 99 of node 'm1.n99' is out of range: there are 48": ablate(neurons(1, 99)),
    "position 6 of 'ablate a1.h3 at 6' is beyond the prompt of 6 tokens: give 0 to 5": ablate(
        "a1.h3", positions=[6]
    ),
    r"value of 'set a1.h3 to a tensor' has shape \(5,\): give a number, 8 entries": set_to(
        "a1.h3", torch.zeros(5)
    ),
    "has 16 entries, and the stream 32": ablate(stream(1, direction=torch.ones(16))),
    r"source of 'patch m1' has shape \(2, 4\) and the prompts \(2, 6\)": patch(
        "m1", source=torch.zeros(2, 4, dtype=torch.long)
    ),
}


@pytest.mark.parametrize("message", CASES)
def test_interventions_that_do_not_fit_the_model(opened: Opened, message: str) -> None:
    with pytest.raises(UserError, match=message):
        intervene(opened("native"), random_pairs(), CASES[message])


def test_targets_that_say_nothing() -> None:
    with pytest.raises(
        UserError, match=r"node 'h3.a1' is not known: write a1, a1.h3, m1, m1.n5 or resid_post.1"
    ):
        target("h3.a1")
    with pytest.raises(UserError, match=r"part 'resid_end' is not known; the nearest: resid_"):
        target("resid_end.1")
    with pytest.raises(UserError, match=r"direction has length 0.0, so it points nowhere"):
        stream(1, direction=torch.zeros(4))
    with pytest.raises(UserError, match=r"feature 48 is out of range: the dictionary of .* has 0 to 47"):
        features(random_features("blocks.1.hook_resid_post"), 48)
    with pytest.raises(UserError, match="no feature was named"):
        features(random_features("blocks.1.hook_resid_post"))
    with pytest.raises(UserError, match="has no direction to steer along"):
        steer_by(stream(1), 0.1)


def test_dictionaries_of_another_model_or_hook(opened: Opened) -> None:
    good = random_features("blocks.1.hook_resid_post")
    for changed, message in (
        ({"metadata": {"model_hash": "abc"}}, "was trained on a model with weights abc"),
        ({"hook_name": "blocks.9.hook_resid_post"}, "blocks.9.hook_resid_post"),
    ):
        with pytest.raises(UserError, match=message):
            intervene(opened("native"), random_pairs(), ablate(features(replace(good, **changed), 3)))


def test_patches_need_prompts_and_columns_their_names(opened: Opened) -> None:
    with pytest.raises(UserError, match="'patch m1' has no prompts to take values from: give source="):
        intervene(opened("native"), random_pairs().clean, patch("m1"))
    with pytest.raises(UserError, match="columns must not contain 'baseline'"):
        intervene(opened("native"), random_pairs(), {"baseline": ablate("m1")})


def test_parts_that_an_architecture_lacks(opened: Opened) -> None:
    alone = open_anatomy(native_model(attn_only=True))
    with pytest.raises(UserError, match=r"node 'm1' is an MLP, and this model has attention only"):
        intervene(alone, random_pairs(), ablate("m1"))
    with pytest.raises(UserError, match="layer 1 has no MLP, so it has no neurons"):
        intervene(alone, random_pairs(), ablate("m1.n3"))
    with pytest.raises(UserError, match=r"'resid_mid.1' does not exist in parallel blocks"):
        intervene(opened("neox"), random_pairs(), add("resid_mid.1", 1.0))


def test_an_intervention_says_what_it_does() -> None:
    assert str(scale("a1.h3", 0.5, positions=[4, 5])) == "scale a1.h3 by 0.5 at 4, 5"
    assert str(set_to(stream(2, direction=torch.ones(4)), 1.0)) == "set resid_post.2 direction to 1"
    assert str(ablate(neurons(1, 5, 7))) == "ablate m1.n5, 7"
