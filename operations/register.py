"""Which nouns, verbs and step tasks exist: filled by the apps when they are ready, read by engine, doors and tests."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from operations.explaining import Explainer
    from operations.plan import Plan


def _never(params: dict[str, Any], open_verb: str) -> bool:
    return False


def _nothing(subject: Any, operation: Any) -> None:
    return None


@dataclass(frozen=True, slots=True)
class Verb:
    """One row of a verb table.

    `frm`: settled states it may begin from. `plan(subject, params)` is computed when the operation begins.
    `supersedes(params, open_verb)`: may it end the operation that holds the subject?
    `on_begin`, `on_end` and `on_stopped` (only when it failed or was cancelled) change the noun's own columns within
    the engine's transaction.
    `resumes`: goes on with the operation that left the subject in error, whose verb says plan and states.
    """

    noun: str
    name: str
    frm: frozenset[str]
    to: str
    plan: Callable[[Any, dict[str, Any]], Plan] | None  # None: that of the operation that it resumes
    failed_to: str = "error"
    cancelled_to: str = "error"
    supersedes: Callable[[dict[str, Any], str], bool] = _never
    on_begin: Callable[[Any, Any], None] = _nothing
    on_end: Callable[[Any, Any], None] = _nothing
    on_stopped: Callable[[Any, Any], None] = _nothing
    resumes: bool = False
    offered: bool = True  # False: part of no door, begun by the system
    says: str = ""  # what an offered verb does, as the end of a sentence

    @property
    def ends_quietly(self) -> bool:
        """When it is done, its subject changes its state and nothing else."""
        return self.on_end is _nothing

    @property
    def full_name(self) -> str:
        return f"{self.noun}.{self.name}"


@dataclass(slots=True)
class Noun:
    """A kind of subject: its model has `uid`, `state`, `error` and `KIND`."""

    kind: str
    model: Any
    verbs: dict[str, Verb] = field(default_factory=dict)


nouns: dict[str, Noun] = {}
tasks: dict[str, Any] = {}
explainers: dict[str, Explainer] = {}  # how rows are explained to people, by the prefix of their ids

# Told by the room that knows nodes: why these nodes cannot work now, one sentence each; nothing of those that can.
node_troubles: list[Callable[[set[str]], dict[str, str]]] = []

# Told by the room that knows nodes: the lanes, as (node, lane), of those that live.
lanes: list[Callable[[], Iterable[tuple[str, str]]]] = []


def register_noun(model: Any, verbs: list[Verb]) -> None:
    """Make `model` a subject of operations, with its verb table."""
    nouns[model.KIND] = Noun(model.KIND, model, {verb.name: verb for verb in verbs})


def verb_named(full_name: str) -> Verb:
    """The verb "instance.launch"; KeyError when nobody registered it."""
    noun, _, name = full_name.partition(".")
    return nouns[noun].verbs[name]


def troubles_of(node_uids: Iterable[str]) -> dict[str, str]:
    """Which of these nodes cannot work now, and why, as sentences; "" stands for no node and has no trouble."""
    asked = {uid for uid in node_uids if uid}
    return {uid: said for ask in node_troubles if asked for uid, said in ask(asked).items()}
