"""`mpsearch doctor`."""

from dataclasses import asdict
from itertools import groupby

import click

from mpsearch.commands.console import echo, json_option, print_json

TITLES = {
    "core": "Packages that mpsearch needs",
    "extras": "Extras",
    "solvers": "Solvers",
    "tools": "Tools for exports and devices",
    "processors": "Processors",
}


@click.command()
@json_option
def doctor(as_json: bool) -> int:
    """Say which packages, solvers, compilers and processors work here, and how to get the others.

    Exit code 1: something that mpsearch needs itself is missing or too old. Everything else is
    optional.

    \b
    Example:
      mpsearch doctor
    """
    from mpsearch.commands.doctor_checks import diagnose
    from mpsearch.commands.versions import versions

    checks = diagnose()
    healthy = all(check.works for check in checks if check.needed)
    if as_json:
        print_json(
            {"healthy": healthy, **versions(), "checks": [asdict(check) for check in checks]}
        )
        return 0 if healthy else 1
    known = versions()
    echo(f"mpsearch {known['mpsearch']}, Python {known['python']}, {known['system']}")
    width = max(len(check.name) for check in checks)
    for group, members in groupby(checks, key=lambda check: check.group):
        echo("", TITLES[group])
        for check in members:
            mark = "ok" if check.works else "MISSING" if check.needed else "-"
            echo(f"  {mark:<7} {check.name:<{width}}  {check.detail}")
            if check.install:
                echo(f"  {'':<7} {'':<{width}}  get it: {check.install}")
    return 0 if healthy else 1
