"""What every panel has in common: traits are the whole state, questions have answers, nothing stays blank.

A panel is an anywidget: a Python object whose synced traits are mirrored in the browser, where
`widgets/<panel>/panel.js` draws them. Small state (what is chosen, the columns of an index) is in traits; what
is large or follows from a choice is asked for (`answers.py`). Because both can be written down, the same module
draws a panel live in JupyterLab and frozen in a report: `Panel.freeze` gives the state with the answers that are
to be shipped. Nothing is computed here; a panel only shows what the workbench computed.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import anywidget
import traitlets

from workbench.errors import UserError, nearest
from workbench.panels.answers import Answer, Kind, call, kinds_of, question_key
from workbench.panels.assets import panel_script, panel_style
from workbench.panels.jobs import CancelledError, Job
from workbench.panels.session import RunSession

Question = tuple[str, Mapping[str, Any]]
P = TypeVar("P", bound="Panel")


class Panel(anywidget.AnyWidget):
    """Base of the panels. A subclass names its folder in `widgets/` and declares synced traits.

    Traits:
        live: Whether there is a Python to ask.
        problem: Why the panel cannot be shown, in one sentence; drawn in its place.
        selection: What all panels look at (`selection.py`).
        shipped: Answers that travel with a frozen panel.
    """

    panel: ClassVar[str]
    _kinds: ClassVar[dict[str, Kind]] = {}

    live = traitlets.Bool(True).tag(sync=True)
    problem = traitlets.Unicode("").tag(sync=True)
    selection = traitlets.Dict().tag(sync=True)
    shipped = traitlets.Dict().tag(sync=True)

    def __init_subclass__(cls, **options: Any) -> None:
        if "panel" in cls.__dict__:  # not in the subclasses that ipywidgets makes to add traits
            cls._esm, cls._css = panel_script(cls.panel), panel_style(cls.panel)
        super().__init_subclass__(**options)
        cls._kinds = kinds_of(cls)

    def __init__(self, **traits: Any) -> None:
        known = self.own_traits()
        for name in traits:
            if name not in known:
                label = f"{type(self).__name__} has no trait {name!r}"
                raise UserError(f"{label}; its traits: {', '.join(known)}; {nearest(name, known)}")
        super().__init__(**traits)
        self._jobs: dict[str, Job] = {}
        self.on_msg(self._hear)

    @classmethod
    def own_traits(cls) -> list[str]:
        """Names of the synced traits that this panel declares, the widget machinery's left out."""
        inherited = set(anywidget.AnyWidget.class_trait_names())
        return sorted(
            name for name in cls.class_trait_names(sync=True) if name not in inherited and name[0] != "_"
        )

    @classmethod
    def open_run(cls: type[P], session: RunSession, **options: Any) -> P:
        """The panel of a run.

        Raises:
            UserError: the run lacks what the panel shows; the sentence names the command that makes it.
        """
        raise NotImplementedError(f"{cls.__name__} is not drawn from a run")

    @classmethod
    def from_run(cls: type[P], run: RunSession | Path | str, **options: Any) -> P:
        """The panel of a run; where the run lacks something, a panel that says what and which command makes it."""
        try:
            return cls.open_run(RunSession.of(run), **options)
        except (UserError, OSError) as error:
            return cls.broken(str(error))

    @classmethod
    def broken(cls: type[P], why: str) -> P:
        """A panel that shows nothing but a sentence."""
        made = cls.__new__(cls)
        Panel.__init__(made, problem=why)
        return made

    def answer(self, kind: str, args: Mapping[str, Any]) -> Answer:
        """What the browser is answered; for tests, and for what a page ships.

        Raises:
            UserError: an unknown question, or one that has no answer.
        """
        return call(self, self._kinds, kind, args)

    def freeze(self, questions: Iterable[Question] = ()) -> dict[str, Any]:
        """The state that draws this panel with no kernel: JSON values, and `bytes` for binary traits.

        Args:
            questions: What is asked now, so that the page holds the answers: (kind, arguments) each.
        """
        state = {name: copy.deepcopy(getattr(self, name)) for name in self.own_traits()}
        return {**state, "live": False, "shipped": self.ship(questions)}

    def absent_from_reports(self) -> str:
        """Why a report does without this panel; empty where it shows it."""
        return ""

    def keep(self, **freeze: Any) -> None:
        """Keep in this panel's state what `freeze(**freeze)` ships, so that the saved notebook can be shared.

        `workbench share notebook.ipynb` and `jupyter nbconvert --to workbench` then draw it without Python.
        """
        for name, value in self.freeze(**freeze).items():
            if name != "live":
                setattr(self, name, value)

    def save(self, path: Path | str, **freeze: Any) -> Path:
        """Write this panel as one HTML file that opens by double-click; the rest as for `freeze`."""
        from workbench.panels.page import write_panel_page

        return write_panel_page(Path(path), {self.panel: self.freeze(**freeze)}, title=type(self).__name__)

    def ship(self, questions: Iterable[Question]) -> dict[str, Any]:
        """Answers by the key of their question: {key: {value, buffers}}."""
        made = {question_key(kind, args): self.answer(kind, args) for kind, args in questions}
        return {key: {"value": answer.value, "buffers": list(answer.buffers)} for key, answer in made.items()}

    def _hear(self, _widget: Any, message: Any, _buffers: Any) -> None:
        """A message of the browser: a question, or the wish to end one."""
        identity, kind = str(message.get("id", "")), str(message.get("kind", ""))
        if kind == "cancel":
            if identity in self._jobs:
                self._jobs[identity].cancel()
            return
        args = message.get("args") or {}
        if kind in self._kinds and self._kinds[kind].long:
            return self._start(identity, kind, args)
        try:
            self._reply(identity, self.answer(kind, args), None)
        except Exception as error:
            self._reply(identity, None, error)

    def _start(self, identity: str, kind: str, args: Mapping[str, Any]) -> None:
        def done(made: Any, error: BaseException | None) -> None:
            self._jobs.pop(identity, None)
            self._reply(identity, made, error)

        job = Job(
            lambda: self.answer(kind, args),
            done=done,
            progress=lambda state: self.send({"id": identity, "progress": state}),
        )
        self._jobs[identity] = job
        job.start()

    def _reply(self, identity: str, made: Answer | None, error: BaseException | None) -> None:
        if made is None:
            known = isinstance(error, UserError | CancelledError | OSError)
            text = str(error) if known else f"{type(error).__name__}: {error}"
            self.send({"id": identity, "error": text})
        else:
            self.send({"id": identity, "value": made.value}, list(made.buffers))
