"""The model card of an export: what was measured, how, and what the model was built from. No figure is guessed."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Any

from cgpt.model import ConstructedLM
from cgpt.provenance import licence_table
from cgpt.score import Score
from ontology.environment import describe, version
from ontology.io import read_json
from ontology.stats import bootstrap_ratio


@dataclass(frozen=True)
class Measured:
    """A score that was made for the card: of which PATHs, as the command line names them, and how many of their files
    the model was built from, where that is known."""

    paths: tuple[str, ...]
    score: Score
    known: int | None = None


def card(model: ConstructedLM, measured: Measured | None = None) -> str:
    """Markdown with the hub's YAML heading."""
    config = model.config
    corpus = config["corpus"]
    licences = licence_table(model)
    rows = "\n".join(
        f"| {row['licence']} | {row['files']:,} | {row['projects']:,} | {row['tokens']:,} |" for row in licences
    )
    mixing = read_json(model.folder / "mixer.json").get("held_out_bits", {})
    held_out = ", ".join(f"{name} {bits:.3f}" for name, bits in mixing.items())
    ledger = _optional(model, "ledger.json")
    seconds = f"{ledger['seconds']:.0f} s of wall clock" if ledger else "not recorded"
    built = _optional(model, "environment.json") or {}
    machine = f"{built.get('cpu', 'unknown processor')}, {built.get('cpus', '?')} cores"
    return f"""---
language: [code]
library_name: transformers
pipeline_tag: text-generation
tags: [code, python, constructible]
license: other
license_name: licences-of-the-corpus
---

# A constructed model of Python code, cut `{config["cut"]}`

Built by [constructible](https://pypi.org/project/constructible/) {version()}: plain code gathers what may matter at a
position and names the situation; counts over the corpus, the file's own past, names in scope and a small net for that
situation answer; a table of weights mixes them. Every probability can be taken apart again into its sources.

```python
from transformers import AutoModelForCausalLM, AutoTokenizer  # and: pip install constructible

model = AutoModelForCausalLM.from_pretrained(FOLDER, trust_remote_code=True)
tokenizer = AutoTokenizer.from_pretrained(FOLDER, trust_remote_code=True)
inputs = tokenizer(["import o", "def add(a, b):"], return_tensors="pt", padding=True)
print(tokenizer.batch_decode(model.generate(**inputs, max_new_tokens=16), skip_special_tokens=True))
```

It runs on the CPU; logits are log probabilities; there is no key-value cache to use. Explanations, `--valid`, packing
and the rest are in the package: `constructible cgpt complete FOLDER/constructible FILE --explain`.

## Measured

{_measured(measured)}
| | |
| --- | --- |
| parameters of nets | {model.parameters:,} |
| table entries | {model.table_entries:,} |
| alphabet | {model.tokenizer.vocab_size:,} tokens |
| built in | {seconds} ({machine}) |
| bits per token on the build's own held-out files, by expert | {held_out or "too few to measure"} |

## Made from

`{corpus["name"]}`: {corpus["files"]:,} files, {corpus["bytes"]:,} bytes, seed {config["seed"]}, hash
`{corpus["hash"]}`. The match index holds the token sequence of these files, so passing the model on passes them on:
their licences apply.

| licence | files | projects | tokens |
| --- | ---: | ---: | ---: |
{rows}

## Limits

Python alone. It repeats its corpus where the corpus fits: ask for the provenance of a completion, or restrict the
evidence to licences (`--allow`). Nets and weights were learned from all files whatever is allowed.
"""


def _measured(measured: Measured | None) -> str:
    if measured is None:
        return "No files were named to score it on (`constructible cgpt export DIR --hf OUT --score PATH`).\n"
    score = measured.score
    bits, right = bootstrap_ratio(score.bits, score.n_bytes), bootstrap_ratio(score.n_correct, score.n_tokens)
    commit = (describe().get("git") or {}).get("commit")
    paths = shlex.join(measured.paths)
    memory = f"\n**{measured.known} of these files are in the training corpus.**\n" if measured.known else ""
    return f"""`constructible cgpt score DIR {paths}`{f" at commit `{commit[:12]}`" if commit else ""}, 95 % bootstrap intervals over files:

| files | bytes | bits per byte | next-token accuracy | bytes per token |
| ---: | ---: | ---: | ---: | ---: |
| {len(score.files):,} | {int(score.n_bytes.sum()):,} | {bits.estimate:.3f} [{bits.low:.3f}, {bits.high:.3f}] \
| {right.estimate:.1%} [{right.low:.1%}, {right.high:.1%}] | {score.n_bytes.sum() / score.n_tokens.sum():.2f} |
{memory}"""  # noqa: E501 - one line of Markdown


def _optional(model: ConstructedLM, name: str) -> dict[str, Any] | None:
    path = model.folder / name
    return read_json(path) if path.is_file() else None
