"""All pages that are made of raw results, made again by one call: leaderboard, post, curves, scale, contenders."""

from __future__ import annotations

from pathlib import Path

from eval import contenders_rows, decomposition, research_parts, scale, scale_page
from eval.board import write_board
from eval.research import write_post
from ontology.io import read_json, write_text


def publish(docs: Path) -> list[Path]:
    """Write every page of a folder `docs` from `docs/results` and `docs/experiments/contenders.json`; measures nothing.

    Raises:
        UsageError: there are no results.
    """
    results, experiments = docs / "results", docs / "experiments"
    written = write_board(results, docs)
    for name, raw in research_parts.raw_files(results):
        if decomposition.is_raw(raw):
            written += decomposition.write_pages(results / name, experiments)
        elif scale.is_raw(raw):
            written += scale_page.write_pages(results / name, experiments)
    for raw in dict.fromkeys(one.raw for one in contenders_rows.read(results)):
        from eval.studies.contenders import page

        written.append(write_text((results / raw).resolve().with_suffix(".md"), page(read_json(results / raw))))
    return written + write_post(results, docs)
