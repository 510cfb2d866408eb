"""The command `code-judge`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from app import __version__, logs
from app.embedded import NoServer
from app.manager import Manager, Unsafe, plan_for
from app.serve import CannotServe, Options, serve
from app.settings import Settings, SettingsError, describe, load, misspelt
from code_judge import run_command

_ROLES = {"serve": "serve", "workers": "manager"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status: 0, or 2 with one line on stderr for a mistake of the user."""
    options = _parser().parse_args(arguments)
    if options.command == "run":  # needs a service, not the settings of one
        return run_command.run(options)
    try:
        settings = load()
        logs.configure(settings, _ROLES.get(options.command, options.command))
        if options.command == "settings":
            return _settings(settings)
        logs.warn_of_misspelt()
        if options.command == "doctor":
            from app.doctor import examine

            return examine(settings)
        if options.command == "workers":
            Manager(settings, plan_for(settings)).run()
        else:
            serve(settings, _serve_options(settings, options))
    except (SettingsError, Unsafe, CannotServe, NoServer, RuntimeError) as error:
        print(f"code-judge: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "code-judge",
        description="Runs model-written programs in a sandbox and says what came of them, over HTTP.",
        epilog="`code-judge serve` is all that one machine needs. On several, `code-judge workers` on each "
        "and a web process (uvicorn app.main:app) share one Redis, REDIS_URI. All else is set by environment "
        "variables: `code-judge settings` lists them with their present values.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="COMMAND", title="commands (COMMAND --help says more)"
    )

    def command(name: str, summary: str, more: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=summary, description=f"{summary}. {more}")

    whole = command(
        "serve",
        "API, workers and, without REDIS_URI, a private Valkey, on one machine",
        "SIGTERM or Ctrl-C stops it as soon as everything accepted is answered (DRAIN_TIMEOUT), a second one "
        "at once.",
    )
    whole.add_argument("--host", default="127.0.0.1", help="address to listen at (default: %(default)s)")
    whole.add_argument("--port", type=int, default=8088, help="0: any free one (default: %(default)s)")
    whole.add_argument("--workers", type=_positive, metavar="N", help="programs at a time, as MAX_WORKERS")
    whole.add_argument(
        "--web", type=_positive, metavar="N", default=1, help="web processes (default: %(default)s)"
    )
    whole.add_argument(
        "--die-with-parent", action="store_true", help="stop when the process that started it ends"
    )
    whole.add_argument("--ready-file", metavar="PATH", help="gets the base URL once the service answers")
    command(
        "workers",
        "the workers of this machine; they take jobs from REDIS_URI",
        "SIGTERM or Ctrl-C stops them after their present programs, a second one at once.",
    )
    run_command.add_arguments(command("run", run_command.SUMMARY, run_command.MORE))
    command(
        "settings",
        "list all settings: present value, default, meaning",
        "Exit status 2 and one line if one is wrong.",
    )
    command(
        "doctor",
        "say what isolates programs here, and whether Redis is found",
        "Exit status 0 if the service can run programs safely.",
    )
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return value


def _serve_options(settings: Settings, options: argparse.Namespace) -> Options:
    return Options(
        host=options.host,
        port=options.port,
        workers=options.workers,
        web=options.web,
        die_with_parent=options.die_with_parent,
        ready_file=options.ready_file,
    )


def _settings(settings: Settings) -> int:
    head = ("variable", "value", "default", "meaning")
    rows = [head] + [
        (row.variable, f"{row.value} *" if row.changed else row.value, row.default, row.meaning)
        for row in describe(settings)
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for row in rows:
        print("  ".join([*(f"{text:{width}}" for text, width in zip(row, widths, strict=False)), row[3]]))
    print("\n* differs from the default. Settings are environment variables; secrets are masked.")
    for line in misspelt(os.environ):
        print(f"warning: {line}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
