"""Every action on every kind of node equals a TransformerLens hook that does the same by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tests.circuits.sweeps.conftest import ARCHITECTURES, random_features, random_pairs
from tests.circuits.sweeps.reference import metric_with, values_of
from workbench.anatomy import Anatomy
from workbench.interventions import (
    Intervention,
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
)
from workbench.interventions.freeze import frozen_edits

Opened = Callable[[str], Anatomy]
DIRECTION = torch.randn(32, generator=torch.Generator().manual_seed(1))
UNIT = DIRECTION / DIRECTION.norm()
DICTIONARY = random_features("blocks.1.hook_resid_post")
AT = [2, 5]


def coded(x: Tensor) -> Tensor:
    """Activations of all features (prompt, pos, feature)."""
    indices, values = DICTIONARY.encode(x.flatten(0, 1))
    return torch.zeros(len(values), 48).scatter_add_(1, indices, values).unflatten(0, x.shape[:2])


def on_head(change: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def edit(z: Tensor) -> Tensor:
        z = z.clone().unflatten(-1, (4, -1)) if z.ndim == 3 else z.clone()
        z[:, :, 3] = change(z[:, :, 3])
        return z

    return edit


def at_positions(x: Tensor, new: Tensor) -> Tensor:
    """`new` at the positions `AT`, `x` elsewhere."""
    x = x.clone()
    x[:, AT] = new[:, AT]
    return x


def neurons_off(x: Tensor) -> Tensor:
    x = x.clone()
    x[..., [5, 7]] = 0
    return x


def feature_set(x: Tensor) -> Tensor:
    change = torch.zeros(*x.shape[:2], 48)
    change[:, 1:, 3] = 2.0 - coded(x)[:, 1:, 3]
    return x + change @ DICTIONARY.W_dec


def along(x: Tensor, c: Tensor) -> Tensor:
    """`x` with the coordinate c along the direction."""
    return x + (c - x @ UNIT)[..., None] * UNIT


def cases(other: dict[str, Tensor]) -> dict[str, tuple[Intervention, str, Callable[[Tensor], Tensor]]]:
    """Interventions with the hook and the edit that do the same."""
    names = ("attn.hook_z", "mlp.hook_post", "hook_mlp_out", "hook_attn_out", "hook_resid_post")
    z, post, mlp, attn, resid = (f"blocks.1.{name}" for name in names)
    line = stream(1, direction=DIRECTION)
    at = {"positions": AT}
    return {
        "ablate head": (ablate("a1.h3"), z, on_head(torch.zeros_like)),
        "scale head": (scale(head(1, 3), 0.5), z, on_head(lambda x: 0.5 * x)),
        "patch mlp": (patch("m1"), mlp, lambda x: other[mlp]),
        "add attention": (add("a1", DIRECTION), attn, lambda x: x + DIRECTION),
        "ablate neurons": (ablate(neurons(1, 5, 7)), post, neurons_off),
        "set": (set_to("resid_post.1", UNIT, **at), resid, lambda x: at_positions(x, UNIT.expand_as(x))),
        "ablate direction": (ablate(line), resid, lambda x: along(x, 0 * x[..., 0])),
        "scale direction": (
            scale(line, 3.0, **at),
            resid,
            lambda x: at_positions(x, along(x, 3 * (x @ UNIT))),
        ),
        "patch direction": (patch(line), resid, lambda x: along(x, other[resid] @ UNIT)),
        "steer": (steer_by(line, 0.5), resid, lambda x: x + 0.5 * x.norm(dim=-1, keepdim=True) * UNIT),
        "set feature": (set_to(features(DICTIONARY, 3), 2.0), resid, feature_set),
    }


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_interventions_equal_hooks(opened: Opened, name: str) -> None:
    anatomy, batch = opened(name), random_pairs()
    hooks = ["blocks.1.hook_mlp_out", "blocks.1.hook_resid_post"]
    made = cases(values_of(anatomy, batch.counterfactual, hooks))
    outcome = intervene(anatomy, batch, {case: one for case, (one, _, _) in made.items()})
    assert outcome.difference_logits is not None
    unedited = metric_with(anatomy, batch.clean, batch, {})
    size = max(1.0, float(unedited.abs().max()))
    assert torch.allclose(outcome.difference_logits[0], unedited, atol=1e-5 * size)
    for row, (case, (_, hook, edit)) in enumerate(made.items(), 1):
        wanted = metric_with(anatomy, batch.clean, batch, {hook: lambda x, e=edit: e(x).view_as(x)})
        assert float((wanted - unedited).abs().max()) > 1e-4, case
        error = float((outcome.difference_logits[row] - wanted).abs().max())
        assert error <= 2e-5 * max(size, float(wanted.abs().max())), case


def test_several_at_once_equal_several_hooks(opened: Opened) -> None:
    anatomy, batch = opened("llama"), random_pairs()
    outcome = intervene(
        anatomy, batch, {"both": [ablate("a1.h3"), scale("m2", 2.0, positions=AT)], "one": ablate("a1.h3")}
    )
    edits = {
        "blocks.1.attn.hook_z": on_head(torch.zeros_like),
        "blocks.2.hook_mlp_out": lambda x: at_positions(x, 2 * x),
    }
    edits = {hook: (lambda x, e=edit: e(x).view_as(x)) for hook, edit in edits.items()}
    wanted = metric_with(anatomy, batch.clean, batch, edits)
    assert outcome.columns == ("baseline", "both", "one")
    assert outcome.interventions[1] == "ablate a1.h3, scale m2 by 2 at 2, 5"
    assert torch.allclose(outcome.difference_logits[1], wanted, atol=1e-4)
    assert not torch.allclose(outcome.difference_logits[2], wanted, atol=1e-3)


def test_features_of_one_dictionary_act_together(opened: Opened) -> None:
    """Setting one feature must not change what another is read as; in turn it would."""
    anatomy, batch = opened("native"), random_pairs()
    active = coded(values_of(anatomy, batch.clean, ["blocks.1.hook_resid_post"])["blocks.1.hook_resid_post"])
    one, two = active[:, 1:].sum((0, 1)).topk(2).indices.tolist()

    def edit(x: Tensor) -> Tensor:
        change = torch.zeros(*x.shape[:2], 48)
        old = coded(x)
        change[:, 1:, one], change[:, 1:, two] = 5.0 - old[:, 1:, one], 2 * 3.0 - old[:, 1:, two]
        return x + change @ DICTIONARY.W_dec

    wanted = metric_with(anatomy, batch.clean, batch, {DICTIONARY.hook_name: edit})
    acts = [
        set_to(features(DICTIONARY, one), 5.0),
        set_to(features(DICTIONARY, two), 3.0),
        scale(features(DICTIONARY, two), 2.0),
    ]
    assert torch.allclose(intervene(anatomy, batch, acts).difference_logits[1], wanted, atol=1e-5)


def test_a_group_of_features_is_patched_from_another_prompt(opened: Opened) -> None:
    anatomy, batch = opened("native"), random_pairs()
    group = features(DICTIONARY, *range(48))
    hook = DICTIONARY.hook_name
    clean, other = (values_of(anatomy, ids, [hook])[hook] for ids in (batch.clean, batch.counterfactual))
    change = (coded(other) - coded(clean)) @ DICTIONARY.W_dec
    change[:, 0] = 0
    wanted = metric_with(anatomy, batch.clean, batch, {hook: lambda x: x + change})
    found = intervene(
        anatomy, batch, {"default": patch(group), "named": patch(group, source=batch.counterfactual)}
    )
    for row in (1, 2):
        assert torch.allclose(found.difference_logits[row], wanted, atol=1e-5)


def test_a_run_starts_where_it_is_first_edited_and_equals_a_whole_run(opened: Opened) -> None:
    anatomy, batch = opened("gemma2"), random_pairs()
    late, early = ablate("m2"), scale("a0.h0", 1.0)
    found = intervene(anatomy, batch, {"late": late, "from the start": [early, late]})
    assert torch.allclose(found.logits[1], found.logits[2], atol=1e-5)


def test_prompts_without_answers_give_logits_only(opened: Opened) -> None:
    batch = random_pairs()
    outcome = intervene(opened("native"), batch.clean, ablate("a1.h3"))
    assert outcome.difference_logits is None
    assert outcome.effect_logits is None
    assert outcome.columns == ("baseline", "edited")
    assert float(outcome.kl_nats[0].abs().max()) == 0
    assert (outcome.kl_nats[1] > 0).all()
    assert "effect_logits" not in outcome.table().columns
    top = outcome.top_tokens(str, k=2)
    assert top["column"].tolist() == ["baseline", "baseline", "edited", "edited"]


def test_the_table_pairs_prompts(opened: Opened) -> None:
    batch = random_pairs(n=8)
    outcome = intervene(opened("native"), batch, {"off": ablate("a1.h3")})
    table = outcome.table(n_resamples=300).set_index("column")
    assert table.loc["baseline", "effect_logits_high"] == 0
    effect = (outcome.difference_logits[0] - outcome.difference_logits[1]).mean()
    assert abs(table.loc["off", "effect_logits"] - float(effect)) < 1e-6
    width = table["effect_logits_high"] - table["effect_logits_low"]
    assert (
        width["off"] < table.loc["off", "difference_logits_high"] - table.loc["off", "difference_logits_low"]
    )


@pytest.mark.parametrize("name", ["gemma2", "neox", "native"])
def test_a_transcoders_feature_is_read_from_the_edited_run(opened: Opened, name: str) -> None:
    """An earlier edit changes what the transcoder reads; setting the feature then changes what the MLP adds."""
    anatomy, batch = opened(name), random_pairs()
    read, write = "blocks.1.mlp.hook_in", "blocks.1.hook_mlp_out"
    dictionary = random_features(read, out=write)
    before = {"blocks.0.hook_mlp_out": torch.zeros_like}
    given: dict[str, Tensor] = {}

    def keep(x: Tensor) -> Tensor:
        given["x"] = x.clone()
        return x

    def edit(x: Tensor) -> Tensor:
        indices, values = dictionary.encode(given["x"].flatten(0, 1))
        old = torch.zeros(len(values), 48).scatter_add_(1, indices, values).unflatten(0, x.shape[:2])
        change = torch.zeros_like(old)
        change[:, 1:, 3] = 4.0 - old[:, 1:, 3]
        return x + change @ dictionary.W_dec

    wanted = metric_with(anatomy, batch.clean, batch, {**before, read: keep, write: edit})
    both = [ablate("m0"), set_to(features(dictionary, 3), 4.0)]
    found = intervene(anatomy, batch, {"both": both, "feature": both[1]}).difference_logits
    size = max(1.0, float(wanted.abs().max()))
    assert float((found[1] - wanted).abs().max()) <= 2e-5 * size
    assert float((found[1] - found[2]).abs().max()) > 1e-3


def test_a_frozen_norm_scale_is_that_of_what_a_transcoder_reads(opened: Opened) -> None:
    """With the scale held, ablating an earlier MLP changes the transcoder's input linearly; checked by hand."""
    anatomy, batch = opened("native"), random_pairs()
    dictionary = random_features("blocks.1.mlp.hook_in", out="blocks.1.hook_mlp_out")
    mid, out = "blocks.1.hook_resid_mid", "blocks.1.hook_mlp_out"
    names = [mid, "blocks.1.ln2.hook_scale"]
    scale_before = values_of(anatomy, batch.clean, names)[names[1]]
    acts = [ablate("m0"), set_to(features(dictionary, 3), 4.0)]
    found = intervene(anatomy, batch, {"both": acts, "m0": acts[0]}, freeze=("norms", "attention"))
    seen: dict[str, Tensor] = {}
    held = frozen_edits(anatomy, ("norms", "attention"), batch.clean, batch.clean)
    edits = {**held, "blocks.0.hook_mlp_out": torch.zeros_like, mid: lambda x: seen.setdefault(mid, x)}
    x = anatomy.run(anatomy.embed(batch.clean), edits=edits)
    given = anatomy.blocks[1].ln2(seen[mid], scale_before)
    indices, values = dictionary.encode(given.flatten(0, 1))
    old = torch.zeros(len(values), 48).scatter_add_(1, indices, values).unflatten(0, x.shape[:2])
    change = torch.zeros_like(old)
    change[:, 1:, 3] = 4.0 - old[:, 1:, 3]
    again = {**edits, out: lambda y: y + change @ dictionary.W_dec}
    wanted = anatomy.logits(anatomy.run(anatomy.embed(batch.clean), edits=again), again)[:, -1]
    assert torch.allclose(found.logits[1], wanted, atol=1e-4)
    assert torch.allclose(found.logits[2], anatomy.logits(x, edits)[:, -1], atol=1e-4)


def test_features_at_the_first_position_are_silent_and_set_only_where_it_is_named(opened: Opened) -> None:
    anatomy, batch = opened("native"), random_pairs()
    first = int(
        coded(values_of(anatomy, batch.clean, [DICTIONARY.hook_name])[DICTIONARY.hook_name])[:, 0]
        .sum(0)
        .argmax()
    )
    node = features(DICTIONARY, first)

    def edit(x: Tensor) -> Tensor:
        x = x.clone()
        x[:, 0] += 2.0 * DICTIONARY.W_dec[first]
        return x

    columns = {"scaled": scale(node, 5.0, positions=[0]), "set": set_to(node, 2.0, positions=[0])}
    found = intervene(anatomy, batch, columns)
    assert torch.equal(found.logits[1], found.logits[0])
    wanted = metric_with(anatomy, batch.clean, batch, {DICTIONARY.hook_name: edit})
    assert torch.allclose(found.difference_logits[2], wanted, atol=1e-5)
    assert float((wanted - found.difference_logits[0]).abs().max()) > 1e-4
