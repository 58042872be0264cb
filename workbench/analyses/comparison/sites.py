"""Where dictionaries are compared: planted settings with their control, and hook points of the model with theirs.

    planted.<setting>             rows whose features are known
    planted.<setting>.shuffled    the control: every column permuted by itself, so that no direction is left
    model.resid, model.mlp        the embedded model's residual stream and MLP output
    random.resid, random.mlp      the control: the same hook points of the model with random weights

What is found at a control is no evidence of what is found at its site.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from workbench.errors import UserError, nearest
from workbench.testbeds.planted import SETTINGS

LAYER, RESID = 2, "model.resid"
HOOKS = {"resid": f"blocks.{LAYER}.hook_resid_post", "mlp": f"blocks.{LAYER}.hook_mlp_out"}


@dataclass(frozen=True, kw_only=True)
class Site:
    """One place with activations.

    Attributes:
        name: See the module.
        kind: "planted", "model" or "random".
        setting: Planted setting; empty for a model.
        hook: Hook point of the model; "planted" for planted rows.
        shuffled: Whether the columns are permuted.
        gives: What is known of each row besides its activation.
        frontier: Whether dictionaries of several sparsities are trained.
    """

    name: str
    kind: str
    setting: str = ""
    hook: str = "planted"
    shuffled: bool = False
    gives: tuple[str, ...] = ()
    frontier: bool = False

    @property
    def is_control(self) -> bool:
        """Whether it is the control of another site."""
        return self.shuffled or self.kind == "random"

    @property
    def nonnegative(self) -> bool:
        """Whether no row has a negative number."""
        return self.kind == "planted" and "neurons" in SETTINGS[self.setting]["full"]

    @property
    def folder(self) -> str:
        """Name of its run folder; the hook points of a model share one."""
        return self.kind if self.hook != "planted" else self.name


def _planted(setting: str) -> list[Site]:
    name = f"planted.{setting}"
    return [
        Site(name=name, kind="planted", setting=setting),
        Site(name=f"{name}.shuffled", kind="planted", setting=setting, shuffled=True),
    ]


def _of_model(kind: str, gives: tuple[str, ...]) -> list[Site]:
    return [
        Site(
            name=f"{kind}.{short}", kind=kind, hook=hook, gives=gives, frontier=(kind, short) == ("model", "resid")
        )
        for short, hook in HOOKS.items()
    ]  # fmt: skip


SITES: dict[str, Site] = {
    site.name: site
    for site in (
        *(site for setting in SETTINGS for site in _planted(setting)),
        *_of_model("model", ("gradient",)),
        *_of_model("random", ("gradient",)),
    )
}


def chosen_sites(names: Sequence[str] | None, *, left_out: Sequence[str] = ()) -> list[Site]:
    """The sites of these names, in the order of the table; where none are named all but those left out.

    Raises:
        UserError: a name is not known.
    """
    for name in names or ():
        if name not in SITES:
            raise UserError(f"site {name!r} is not one of the comparison; {nearest(name, SITES)}")
    wanted = [name for name in SITES if name not in left_out] if names is None else names
    return [site for name, site in SITES.items() if name in wanted]
