"""`constructible doctor`: is this machine ready, and if not, what repairs it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from ontology.errors import CheckFailed

if TYPE_CHECKING:
    from packaging.requirements import Requirement

DISTRIBUTION = "constructible"
# Pairs released for each other; a CUDA build of torch names its triton itself, a CPU build does not.
TORCH_TRITON = {"2.11": "3.6", "2.12": "3.7", "2.13": "3.7"}
NEEDED_MEMORY_BYTES = 4 << 30
NEEDED_DISK_BYTES = 2 << 30


@dataclass(frozen=True)
class Finding:
    """One thing looked at: "ok", "note" (works without), or "bad" (repair it)."""

    subject: str
    state: Literal["ok", "note", "bad"]
    detail: str
    fix: str = ""


def findings() -> list[Finding]:
    """Look at everything and return what was found; what needs a package that is missing says so."""
    found: list[Finding] = []
    for look in LOOKS:
        try:
            found += look()
        except ImportError as error:
            name = look.__name__.removeprefix("look_at_")
            missing = error.name or str(error)
            found.append(Finding(name, "bad", f"{missing!r} cannot be imported", f"pip install {DISTRIBUTION}"))
    return found


def look_at_python() -> list[Finding]:
    from ontology.environment import describe

    here = describe()
    version = sys.version_info
    detail = f"Python {here['python']} on {here['platform']}, {here['cpu']}"
    if not (3, 11) <= (version.major, version.minor) < (3, 14):
        return [Finding("python", "bad", detail, "use Python 3.11, 3.12 or 3.13")]
    return [Finding("python", "ok", detail)]


def look_at_packages() -> list[Finding]:
    """Compare every required package with the range that this distribution asks for."""
    try:
        requirements = _requirements()
    except importlib.metadata.PackageNotFoundError:
        return [Finding("packages", "bad", f"{DISTRIBUTION} is not installed", "pip install -e . (in the checkout)")]
    except ImportError:
        return [Finding("packages", "bad", "the package `packaging` is not installed", "pip install packaging")]
    found: list[Finding] = []
    good: list[str] = []
    for requirement in requirements:
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        version = _version(requirement.name)
        repair = f"pip install '{requirement.name}{requirement.specifier}'"
        if version is None:
            found.append(Finding(requirement.name, "bad", "not installed", repair))
        elif not requirement.specifier.contains(version, prereleases=True):
            found.append(Finding(requirement.name, "bad", f"{version}, needed {requirement.specifier}", repair))
        else:
            good.append(f"{requirement.name} {version}")
    return [*found, Finding("packages", "ok", ", ".join(good))]


def look_at_kernels() -> list[Finding]:
    """Hugging Face publishes a distribution named `kernels` whose files land on ours."""
    version = _version("kernels")
    spec = importlib.util.find_spec("kernels")
    ours = Path(__file__).parent.parent / "kernels" / "__init__.py"
    repair = f"pip uninstall kernels && pip install --force-reinstall --no-deps {DISTRIBUTION} (or -e . in a checkout)"
    if version is not None:
        detail = f"the foreign distribution `kernels` {version} is installed and may have replaced our files"
        return [Finding("kernels", "bad", detail, repair)]
    if spec is None or spec.origin is None:
        return [Finding("kernels", "bad", "our package `kernels` cannot be found", repair)]
    if not ours.exists() or not os.path.samefile(spec.origin, ours):
        return [Finding("kernels", "bad", f"`import kernels` finds a foreign package: {spec.origin}", repair)]
    return [Finding("kernels", "ok", "ours, and no foreign distribution of that name")]


def look_at_torch() -> list[Finding]:
    torch, triton = _version("torch"), _version("triton")
    if torch is None:
        return [Finding("torch", "bad", "not installed", f"pip install {DISTRIBUTION}")]
    wanted = next(
        (
            m.group(1)
            for text in importlib.metadata.requires("torch") or []
            if (m := re.match(r"triton==([\d.]+)", text))
        ),
        TORCH_TRITON.get(".".join(torch.split(".")[:2]), ""),
    )
    if triton is None:
        return [Finding("torch", "ok", f"{torch}, without triton (only GPUs need it; it would be {wanted or 'any'})")]
    if wanted and not f"{triton}.".startswith(f"{wanted}."):
        return [Finding("torch", "bad", f"torch {torch} with triton {triton}", f"pip install 'triton=={wanted}.*'")]
    return [Finding("torch", "ok", f"{torch} with triton {triton}")]


def look_at_machine() -> list[Finding]:
    import psutil

    from ontology.environment import usable_cpus

    cpus, free = usable_cpus(), psutil.virtual_memory().available
    setting = os.environ.get("OMP_NUM_THREADS", "")
    found = [Finding("threads", "ok", f"{cpus} processors, OMP_NUM_THREADS {setting or 'not set'}")]
    if setting and (not setting.isdigit() or not 1 <= int(setting) <= cpus):
        detail = f"OMP_NUM_THREADS is {setting!r} on {cpus} processors"
        found = [Finding("threads", "bad", detail, f"export OMP_NUM_THREADS={cpus}")]
    state = "ok" if free >= NEEDED_MEMORY_BYTES else "note"
    found.append(Finding("memory", state, f"{_gib(free)} free", "" if state == "ok" else "the quick start needs 4 GiB"))
    disk = shutil.disk_usage(Path.cwd()).free
    state = "ok" if disk >= NEEDED_DISK_BYTES else "note"
    found.append(Finding("disk", state, f"{_gib(disk)} free here", "" if state == "ok" else "runs need about 2 GiB"))
    return found


def look_at_processor() -> list[Finding]:
    """What trainings and scores multiply with: how fast they are depends on it more than on the clock."""
    from kernels.numba_amx import available
    from kernels.processor import features

    if available():
        return [Finding("bfloat16", "ok", "multiplied on a matrix unit (AMX)")]
    if features().get("amx-bf16", False):
        return [Finding("bfloat16", "ok", "multiplied by torch alone: AMX is there, and not for compiled code")]
    if features().get("avx512bf16", False):
        return [Finding("bfloat16", "ok", "multiplied in vectors (AVX-512)")]
    return [Finding("bfloat16", "note", "not multiplied by this processor", "trainings are in float32, and slower")]


def look_at_data() -> list[Finding]:
    folder = os.environ.get("CONSTRUCTIBLE_DATA")
    if not folder:
        return [
            Finding("data", "note", "CONSTRUCTIBLE_DATA is not set; the corpus `stdlib` works without",
                    "export CONSTRUCTIBLE_DATA=<folder that holds code/train.parquet>")
        ]  # fmt: skip
    train = Path(folder) / "code" / "train.parquet"
    if not train.is_file():
        return [Finding("data", "bad", f"no {train}", "point CONSTRUCTIBLE_DATA to the folder that holds code/")]
    return [Finding("data", "ok", f"{folder}, code/train.parquet has {train.stat().st_size / 1e6:.0f} MB")]


def look_at_extras() -> list[Finding]:
    """List the optional parts and what they still need."""
    try:
        requirements = _requirements()
    except ImportError:  # not installed, or `packaging` is not: reported under packages
        return []
    extras = importlib.metadata.metadata(DISTRIBUTION).get_all("Provides-Extra") or []
    found: list[Finding] = []
    for extra in sorted(extras):
        wanted = [
            r.name for r in requirements
            if r.marker is not None and r.marker.evaluate({"extra": extra}) and not r.marker.evaluate({"extra": ""})
        ]  # fmt: skip
        missing = [name for name in wanted if _version(name) is None]
        if missing:
            fix = f"pip install '{DISTRIBUTION}[{extra}]'"
            found.append(Finding(f"extra {extra}", "note", f"not installed: {', '.join(missing)}", fix))
        else:
            found.append(Finding(f"extra {extra}", "ok", ", ".join(wanted)))
    return found


LOOKS: tuple[Callable[[], list[Finding]], ...] = (
    look_at_python, look_at_packages, look_at_kernels, look_at_torch, look_at_machine, look_at_processor, look_at_data,
    look_at_extras,
)  # fmt: skip


def _requirements() -> list[Requirement]:
    from packaging.requirements import Requirement

    return [Requirement(text) for text in importlib.metadata.requires(DISTRIBUTION) or []]


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _gib(size: float) -> str:
    return f"{size / (1 << 30):.1f} GiB"


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(as_json: bool) -> None:
    """Look at versions, machine and data, and say what to repair."""
    found = findings()
    if as_json:
        click.echo(json.dumps({"findings": [asdict(finding) for finding in found]}, indent=1))
    else:
        for finding in found:
            click.echo(f"{finding.state:4}  {finding.subject}: {finding.detail}")
            if finding.fix:
                click.echo(f"      fix: {finding.fix}" if finding.state == "bad" else f"      ({finding.fix})")
    bad = [finding.subject for finding in found if finding.state == "bad"]
    if bad:
        raise CheckFailed(f"{len(bad)} to repair: {', '.join(bad)}.", fix="do what each line says")
