"""The engine's own plan: fit the modules of any track at a cut, nets of one shape together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ontology.errors import ConstructibleError
from ontology.fit import Job, JobContext
from ontology.graph import Cut, reads_under
from ontology.modules import Module, load_module
from ontology.nets import NetModule, StackedTrainer
from ontology.store import code_hash, store_key
from ontology.track import FittableTrack
from ontology.training import train


@dataclass(frozen=True)
class NetOptions:
    """How nets are trained; see `StackedTrainer`."""

    rows_per_module: int = 64
    learning_rate: float = 3e-3
    checkpoint_seconds: float = 10.0


def plan(track: FittableTrack, cut: Cut, *, seed: int = 0, options: NetOptions | None = None) -> list[Job]:
    """Return one job per member of the cut; each leaves a module's folder in `modules/<concept>`.

    Raises:
        ConstructibleError: a module has more parameters than its concept's `max_params` or reads more than is declared
            at or below it (the root is exempt from both), or is a net where the cut allows none.
    """
    options = options or NetOptions()
    run_alone, run_together = _alone(track, cut), _together(track, cut, seed, options)
    jobs: list[Job] = []
    for name in cut.concepts:
        module = track.module(name, nets=cut.nets)
        _check(track, name, module, cut)
        parts = {
            "class": module.registered, "reads": list(module.reads), "settings": module.settings(), "seed": seed,
            "data": track.data_hash(name), "code": code_hash("ontology.modules", type(module).__module__),
        }  # fmt: skip
        place = f"modules/{name}"
        if isinstance(module, NetModule):
            parts |= {"rows_per_module": options.rows_per_module, "learning_rate": options.learning_rate,
                      "trainer": code_hash("ontology.nets", "ontology.training")}  # fmt: skip
            group = f"nets {store_key(shape=list(module.shape))[:8]}"
            jobs.append(Job(name, parts, run_together, kind="net", place=place, group=group))
        else:
            jobs.append(Job(name, parts, run_alone, kind=module.kind, place=place))
    return jobs


def load_modules(out: str | Path, cut: Cut) -> dict[str, Module]:
    """Return the fitted modules of a cut from a run folder, by concept."""
    return {name: load_module(Path(out) / "modules" / name) for name in cut.concepts}


def _check(track: FittableTrack, name: str, module: Module, cut: Cut) -> None:
    concept, ontology = track.ontology[name], track.ontology
    line = ontology.line(name)
    if module.kind == "net" and not cut.nets:
        raise ConstructibleError(
            f"the concept {name!r} is a net, but the cut {cut.spec!r} has none.", fix="offer a table or plain code",
            file=ontology.file, line=line,
        )  # fmt: skip
    if name == ontology.root:
        return
    undeclared = [read for read in module.reads if read not in reads_under(ontology, name)]
    if undeclared:
        raise ConstructibleError(
            f"the module of {name!r} reads {undeclared[0]!r}, which the concept does not declare.",
            fix="add it to `reads`", file=ontology.file, line=line,
        )  # fmt: skip
    if concept.max_params is not None and module.parameters > concept.max_params:
        raise ConstructibleError(
            f"the module of {name!r} has {module.parameters} parameters, more than {concept.max_params}.",
            fix="use fewer hidden units, or raise `max_params`", file=ontology.file,
            line=ontology.line(name, "max_params"),
        )  # fmt: skip


def _alone(track: FittableTrack, cut: Cut) -> Callable[[JobContext], None]:
    def run(context: JobContext) -> None:
        module = track.module(context.name, nets=cut.nets)
        module.fit(track.examples(context.name, "train"))
        module.save(context.folder)

    return run


def _together(track: FittableTrack, cut: Cut, seed: int, options: NetOptions) -> Callable[[JobContext], None]:
    def run(context: JobContext) -> None:
        nets: list[NetModule] = []
        for name in context.members:
            module = track.module(name, nets=cut.nets)
            assert isinstance(module, NetModule)
            nets.append(module)
        trainer = StackedTrainer(
            nets,
            {net.name: track.examples(net.name, "train") for net in nets},
            rows_per_module=options.rows_per_module,
            learning_rate=options.learning_rate,
            seed=seed,
        )
        train(trainer, context, checkpoint_seconds=options.checkpoint_seconds)
        trainer.finish()
        for net in nets:
            net.save(context.members[net.name].folder)

    return run
