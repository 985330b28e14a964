"""Command lines of ranp, parsed as the command would, without being run."""

import shlex

from typer.main import get_command

from ranp.cli import app


def parse(line: str) -> None:
    """Parse the words after `ranp`.

    Raises:
        click.ClickException: Unknown commands or options, missing or wrong values.
        AssertionError: A group of commands without one of them.
    """
    command, rest = get_command(app), shlex.split(line, comments=True)
    context = None
    while rest:
        context = command.make_context(rest[0], rest[1:] if context else rest, parent=context)
        rest = [*context._protected_args, *context.args] if hasattr(command, "list_commands") else []
        if rest:
            inner = command.get_command(context, rest[0])
            assert inner is not None, f"no command {rest[0]!r}"
            command = inner
    assert not hasattr(command, "list_commands")
