"""`trtdet demo`: from nothing to a page of scores."""

from __future__ import annotations

import base64
import csv
import html
import io
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from trtdet.errors import TrtdetError

if TYPE_CHECKING:
    from PIL import Image

    from trtdet.scenes import Scene

_THUMBNAIL = 132  # pixels, the longer side
_WIDEST = 4.0  # logit at which the bar is full


@click.command()
@click.option(
    "--out",
    metavar="DIR",
    type=click.Path(path_type=Path),
    default=Path("trtdet-demo"),
    show_default=True,
    help="Where images, CSVs and the page go.",
)
def command(out: Path) -> None:
    """Draw a dozen images, score them with the starter, and make a page that shows the scores.

    The page's path is printed. The images are drawn by a program, neither photographs nor a
    generator's: the page shows how scoring works, not how good the detector is.

    \b
    Example:
      trtdet demo --out demo
    """
    from trtdet.engine.atomic import atomic_text
    from trtdet.scenes import scenes

    out.mkdir(parents=True, exist_ok=True)
    drawn = scenes()
    images = [scene.image() for scene in drawn]
    for scene, image in zip(drawn, images, strict=True):
        image.save(out / scene.file, **scene.save)
    table, scores = out / "input.csv", out / "output.csv"
    with atomic_text(table) as file:
        csv.writer(file).writerows([["filename"], *([scene.file] for scene in drawn)])
    summary = _score(table, scores)
    with scores.open(newline="", encoding="utf-8") as scored:
        logits = [float(row["logit"]) for row in csv.DictReader(scored)]
    page = out / "index.html"
    with atomic_text(page) as file:
        file.write(_page(drawn, images, logits, summary))
    click.echo(summary, err=True)
    click.echo(str(page.absolute()))


def _score(table: Path, scores: Path) -> str:
    """Run the command that a user would type. Returns its summary."""
    command = [sys.executable, "-m", "trtdet", "score", "--engine", "starter"]
    done = subprocess.run(
        [*command, str(table), str(scores)], check=False, capture_output=True, text=True
    )
    if done.returncode != 0:
        raise TrtdetError(f"`trtdet score` failed: {done.stderr.strip()}")
    return done.stderr.strip().splitlines()[-1]


def _page(drawn: list[Scene], images: list[Image.Image], logits: list[float], summary: str) -> str:
    rows = "\n".join(
        _row(scene, image, logit) for scene, image, logit in zip(drawn, images, logits, strict=True)
    )
    return _TEMPLATE.replace("{rows}", rows).replace("{summary}", html.escape(summary))


def _row(scene: Scene, image: Image.Image, logit: float) -> str:
    share = 50.0 * min(abs(logit) / _WIDEST, 1.0)
    side = "left:50%" if logit > 0 else "right:50%"
    kind = "synthetic" if logit > 0 else "real"
    return (
        f'<tr><td><img alt="{html.escape(scene.caption)}" src="{_thumbnail(image)}"></td>'
        f"<td><b>{html.escape(scene.file)}</b><br>{html.escape(scene.caption)}<br>"
        f"<small>{image.width} x {image.height}</small></td>"
        f'<td class="number">{logit:+.2f}</td>'
        f'<td class="bar"><i class="{kind}" style="{side};width:{share:.1f}%"></i></td>'
        f"<td>{kind}</td></tr>"
    )


def _thumbnail(image: Image.Image) -> str:
    """The image, small, as a data URL: the page needs no other file."""
    small = image.copy()
    small.thumbnail((_THUMBNAIL, _THUMBNAIL))
    file = io.BytesIO()
    small.save(file, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


_TEMPLATE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>trtdet: a dozen scores</title>
<style>
:root { color-scheme: light dark; --real: #2f855a; --synthetic: #c05621; --line: #8884; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.4rem; margin-bottom: .3rem }
table { border-collapse: collapse; width: 100%; margin-top: 1.5rem }
td, th { padding: .5rem .7rem; border-bottom: 1px solid var(--line); text-align: left }
td.number { font-variant-numeric: tabular-nums; text-align: right }
td.bar { position: relative; width: 30%; min-width: 8rem }
td.bar::before { content: ""; position: absolute; left: 50%; top: 0; bottom: 0;
  border-left: 1px solid var(--line) }
td.bar i { position: absolute; top: 40%; height: 20%; border-radius: 2px }
i.real { background: var(--real) } i.synthetic { background: var(--synthetic) }
img { display: block; max-width: 132px; border-radius: 4px }
code { background: var(--line); padding: .1em .3em; border-radius: 3px }
</style></head><body>
<h1>A dozen scores</h1>
<p><code>trtdet score --engine starter input.csv output.csv</code><br>{summary}</p>
<p>A logit above 0 means synthetic. These images were drawn by a program: they are neither
photographs nor a generator's output, so no answer here is right or wrong. The page shows what comes
out, and how noise, scale and compression move it; what the starter reaches on real and synthetic
images is in <code>trtdet inspect starter</code>.</p>
<table><thead><tr><th></th><th>image</th><th>logit</th><th>real &larr; &rarr; synthetic</th>
<th>called</th></tr></thead>
<tbody>
{rows}
</tbody></table>
</body></html>
"""
