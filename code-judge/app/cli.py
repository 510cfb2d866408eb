"""The command `code-judge`."""

from __future__ import annotations

import argparse
import logging
import socket
import sys
from collections.abc import Sequence

from app import __version__
from app.embedded import NoServer
from app.manager import Manager, Unsafe, plan_for
from app.serve import CannotServe, Options, serve
from app.settings import Settings, SettingsError, describe, load

_GRACEFUL_SECONDS = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status: 0, or 2 with one line on stderr for a mistake of the user."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    try:
        if options.command == "settings":
            return _settings()
        settings = load()
        if options.command == "doctor":
            from app.doctor import examine

            return examine(settings)
        if options.command == "workers":
            Manager(settings, plan_for(settings)).run()
        elif options.command == "web":
            _web(options.descriptor)
        else:
            serve(settings, _serve_options(settings, options))
    except (SettingsError, Unsafe, CannotServe, NoServer, RuntimeError) as error:
        print(f"code-judge: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("code-judge", description="Runs model-written programs in a sandbox.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True)
    whole = commands.add_parser(
        "serve", help="API, workers and, without REDIS_URI, a private Valkey, on one machine"
    )
    whole.add_argument("--host", default="127.0.0.1")
    whole.add_argument("--port", type=int, default=8088, help="0: any free one (default: %(default)s)")
    whole.add_argument("--workers", type=_positive, help="as MAX_WORKERS")
    whole.add_argument("--web", type=_positive, default=1, help="web processes (default: %(default)s)")
    whole.add_argument(
        "--die-with-parent", action="store_true", help="stop when the process that started it ends"
    )
    whole.add_argument("--ready-file", metavar="PATH", help="gets the base URL once the service answers")
    commands.add_parser("workers", help="the workers of this machine; they take jobs from REDIS_URI")
    commands.add_parser("settings", help="list all settings")
    commands.add_parser("doctor", help="say what isolates programs here, and whether Redis is found")
    web = commands.add_parser("web")  # internal: one web process of `serve`
    web.add_argument("descriptor", type=int)
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


def _web(descriptor: int) -> None:
    import uvicorn

    config = uvicorn.Config(
        "app.main:app",
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=_GRACEFUL_SECONDS,
        timeout_keep_alive=75,
    )
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=descriptor)])


def _settings() -> int:
    rows = [("variable", "default", "meaning"), *describe()]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    for variable, default, meaning in rows:
        print(f"{variable:{widths[0]}}  {default:{widths[1]}}  {meaning}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
