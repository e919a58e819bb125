"""The directive `{commands}`: every command, its options and examples, read from the code.

Built from nodes, not from text, so that no character of a help text can be taken for markup.
"""

import inspect
import re

import click
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from mpsearch.cli import cli


class Commands(SphinxDirective):
    """One section per command, in the order of `mpsearch --help`."""

    def run(self) -> list[nodes.Node]:
        top = click.Context(cli, info_name="mpsearch")
        commands = ((name, cli.get_command(top, name)) for name in cli.list_commands(top))
        return [_section(command, name, top) for name, command in commands if command]


def _section(command: click.Command, name: str, parent: click.Context) -> nodes.section:
    context = click.Context(command, info_name=name, parent=parent)
    identifier = "-".join(context.command_path.split())
    section = nodes.section(ids=[identifier], names=[identifier])
    section += nodes.title(text=context.command_path)
    section += _literal(
        context.command_path + " " + " ".join(command.collect_usage_pieces(context))
    )
    section += [_paragraph(text) for text in _paragraphs(inspect.cleandoc(command.help or ""))]
    options = [
        record for p in command.params if (record := p.get_help_record(context)) and record[1]
    ]
    if options:
        section += _options(options)
    if isinstance(command, click.Group):
        for child in command.list_commands(context):
            found = command.get_command(context, child)
            if found:
                section += _section(found, child, context)
    return section


def _paragraphs(text: str) -> list[str]:
    return [part for part in re.split(r"\n\s*\n", text.split("\f")[0].strip()) if part.strip()]


def _paragraph(text: str) -> nodes.Element:
    """A paragraph, or a literal block where click is told (\\b) not to wrap the lines."""
    if text.startswith("\b"):
        return _literal(text.removeprefix("\b").strip("\n"))
    return nodes.paragraph("", "", *_with_code(" ".join(text.split())))


def _with_code(text: str) -> list[nodes.Node]:
    """`code` between backticks, the rest as it is."""
    pieces = re.split(r"`([^`]+)`", text)
    return [nodes.literal(text=p) if i % 2 else nodes.Text(p) for i, p in enumerate(pieces)]


def _literal(text: str) -> nodes.literal_block:
    return nodes.literal_block(text, text, language="text")


def _options(records: list[tuple[str, str]]) -> nodes.definition_list:
    items = nodes.definition_list()
    for names, text in records:
        term = nodes.term("", "", nodes.literal(text=names))
        meaning = nodes.definition("", nodes.paragraph("", "", *_with_code(text)))
        items += nodes.definition_list_item("", term, meaning)
    return items


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("commands", Commands)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
