"""`trtdet models`: what can be built."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from trtdet.errors import InputError

if TYPE_CHECKING:
    from trtdet.build.detectors.spec import DetectorSpec


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the records as JSON.")
def command(as_json: bool) -> None:
    """List the detectors: paper, licence, input, and where the weights come from.

    \b
    Example:
      trtdet models
    """
    try:
        from trtdet.build.detectors.registry import detectors
    except ImportError as error:
        raise InputError(
            f"the detectors are torch modules ({error}): pip install 'trtdet[build]'"
        ) from error

    if as_json:
        import json

        records = [_record(spec) for spec in detectors().values()]
        click.echo(json.dumps(records, indent=2, ensure_ascii=False))
        return
    for spec in detectors().values():
        click.secho(spec.name, bold=True)
        for key, value in (
            ("what", spec.title),
            ("paper", spec.paper),
            ("code", spec.repository),
            ("licence", spec.licence),
            *(("input", f"{name}: {each}") for name, each in spec.geometries.items()),
            ("note", spec.note),
        ):
            if value:
                click.echo(f"  {key:<8} {value}")
        for variant in spec.variants:
            click.echo(f"  {'weights':<8} {variant.name}: trained on {variant.trained_on}")
            if where := variant.url or variant.where:
                click.echo(f"  {'':<8} {where}")
        click.echo()


def _record(spec: DetectorSpec) -> dict[str, Any]:
    """What a script wants to know of a detector."""
    return {
        "name": spec.name,
        "title": spec.title,
        "paper": spec.paper,
        "repository": spec.repository,
        "licence": spec.licence,
        "inputs": {name: str(geometry) for name, geometry in spec.geometries.items()},
        "note": spec.note,
        "variants": [
            {
                "name": variant.name,
                "trained_on": variant.trained_on,
                "file": variant.file,
                "url": variant.url,
                "where": variant.where,
                "git_blob": variant.git_blob,
            }
            for variant in spec.variants
        ],
    }
