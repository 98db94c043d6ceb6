"""The command line's own options, and its commands by name: what `regard --help` shows, without what commands need."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

import regard
from regard.application import DEFAULT_TIMEOUT_SECONDS

_BOX_CELLS = 80
COMMANDS = {
    "models": "List the models: what they take, what they can do; and versions that are not served, with the reason.",
    "load": "Let the server load a model's new and changed versions, and unload what is no longer wanted.",
    "unload": "Let the server stop serving a model.",
    "classify": "Name what photos, texts or a pair of texts are; of many a line each, or a file with -o.",
    "embed": "Turn photos or texts into vectors; of several print each pair's cosine, of many a line each, or a file.",
    "rank": "Sort texts by how well each answers a query, best first (or JSON, one a line).",
    "align": "Show which patch of a photo answers to which word of a text, by two towers: a table; a picture with -o.",
    "compare": "Say how similar two inputs are, and why: by token or patch, or by pairs of them; a picture with -o.",
    "attend": "Show what a transformer attends to: a picture for photos, token by token for texts, a sheet for many.",
    "study": "Count what every head attends to over a data set, reduced on the server; a page shows it.",
    "generate": "Let an encoder-decoder write a text, token by token; shows what each token attended to in the source.",
    "explore": "Show attention on a page in the browser: drop a photo or type a text, point at a patch or a token.",
    "serve": "Serve exported models, or the small one that regard brings (extra server); --help lists its own options.",
    "export": "Export a network to an artifact that the server serves (extra export); --help lists its own options.",
}
"""The first line of each command's help: to take them from the commands would import gRPC and numpy."""


class Commands(TyperGroup):
    """The commands, imported when one is used."""

    _is_listing = False

    def list_commands(self, ctx: Any) -> list[str]:
        """Return their names."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command; for a list no more than its name and first line."""
        if cmd_name not in COMMANDS:
            return None
        if self._is_listing:
            return TyperCommand(name=cmd_name, help=COMMANDS[cmd_name])
        from regard.commands import app as whole

        group: Any = typer.main.get_command(whole)
        return group.commands[cmd_name]

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help."""
        with self._listing():
            super().format_help(ctx, formatter)

    def shell_complete(self, ctx: Any, incomplete: str) -> Any:
        """Return what a shell may complete: names of commands, options of this group."""
        with self._listing():
            return super().shell_complete(ctx, incomplete)

    @contextmanager
    def _listing(self) -> Iterator[None]:
        self._is_listing = True
        try:
            yield
        finally:
            self._is_listing = False


def new_app(**more: Any) -> typer.Typer:
    """Return a command line without commands; its help has boxes where there is room for them, else nothing is cut."""
    mode: Any = "rich" if shutil.get_terminal_size().columns >= _BOX_CELLS else None
    return typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=mode, **more)


app = new_app(cls=Commands)


def run() -> int:
    """Run the command line of sys.argv and return its exit code; what goes wrong in a command is raised."""
    try:
        app(prog_name="regard")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    return 0


def _file(variable: str, text: str) -> Any:
    return typer.Option(metavar="FILE", envvar=variable, help=text)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"regard {regard.__version__}")
        raise typer.Exit


def connect(
    context: typer.Context,
    server: Annotated[str, typer.Option(metavar="HOST:PORT", envvar="REGARD_SERVER")] = "127.0.0.1:8001",
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", min=0, help="For each call; many inputs are given up after four.")
    ] = DEFAULT_TIMEOUT_SECONDS,
    tls: Annotated[bool, typer.Option("--tls", help="Encrypt, trusting whom the system trusts.")] = False,
    ca: Annotated[Path | None, _file("REGARD_CA", "Encrypt, trusting this authority (PEM).")] = None,
    cert: Annotated[Path | None, _file("REGARD_CERT", "Certificate to show the server (PEM).")] = None,
    key: Annotated[Path | None, _file("REGARD_KEY", "Its key (PEM).")] = None,
    token_file: Annotated[Path | None, _file("REGARD_TOKEN_FILE", "Holds the token; or set REGARD_TOKEN.")] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Ask a regard server what a photo or a text is, and what the transformer attends to."""
    from regard.client import Client  # not for --help
    from regard.identity import read_identity

    identity = read_identity(ca, cert, key, token_file, os.environ, tls=tls)
    context.meta["identity"] = identity
    client = Client(server, timeout=timeout, credentials=identity.credentials, token=identity.token)
    context.obj = context.with_resource(client)


def explorer_settings(context: typer.Context, *host_names: str) -> Any:
    """Return the settings of an explorer that asks the same server as a command, under these names of this machine."""
    from regard.explorer import Settings  # Starlette is needed here alone

    asked = context.parent.params if context.parent is not None else {}
    names = frozenset(host_names)
    return Settings(asked["server"], asked["timeout"], host_names=names, identity=context.meta["identity"])


app.callback()(connect)
