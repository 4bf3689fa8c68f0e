"""The commands, their options and their help. What a command does stands in its own file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import gateway

if TYPE_CHECKING:
    from gateway.cli.sources import Sources

app = typer.Typer(
    name="isthmus",
    help="One gateway for the edge, the egress and the east-west traffic of a Kubernetes cluster.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 well, 1 problems, 2 wrong usage. The configuration by example: isthmus schema, config/ in the sources.",
)

Config = Annotated[
    Path | None, typer.Option("--config", "-c", help="Configuration file, or a directory of them.", show_default=False)
]
Objects = Annotated[
    Path | None,
    typer.Option("--objects", help="Kubernetes objects as YAML: a file or a directory. Alone, or beside a configuration."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
Level = Annotated[str, typer.Option("--log-level", help="debug, info, warning, error or critical.")]
Workers = Annotated[
    int | None, typer.Option("--workers", "-w", min=1, max=1024, help="Worker processes; the configuration's, or one for each CPU.")
]
Admin = Annotated[str | None, typer.Option("--admin", help="Address of the admin port; the configuration's, or 127.0.0.1:9901.")]


def _level(value: str) -> str:
    if value.lower() not in ("debug", "info", "warning", "error", "critical"):
        raise typer.BadParameter("one of debug, info, warning, error, critical", param_hint="--log-level")
    return value.lower()


def _sources(config: Path | None, objects: Path | None, hint: str = "--config") -> Sources:
    from gateway.cli.sources import Sources

    if config is None and objects is None:
        raise typer.BadParameter("is needed, or --objects", param_hint=hint)
    return Sources(config, objects)


def _version(value: bool) -> None:
    if value:
        print(f"isthmus {gateway.__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)] = False,
) -> None:
    """Options of isthmus itself."""


@app.command()
def run(
    config: Config = None, objects: Objects = None, workers: Workers = None, admin: Admin = None, log_level: Level = "info"
) -> None:
    """Run a gateway in the foreground until SIGTERM.

    SIGHUP looks at the configuration again (changes of files are seen by themselves), SIGUSR1 reopens the access log, a second
    SIGTERM or Ctrl-C does not wait for open connections.
    """
    from gateway.supervisor.main import Options, serve

    sources = _sources(config, objects)
    options = Options(
        config=sources.path, workers=workers, admin=admin, log_level=_level(log_level), load=sources.load,
        watches_cluster=objects is None,
    )  # fmt: skip
    raise typer.Exit(serve(options))


@app.command()
def demo(
    port: Annotated[int, typer.Option(help="Port of the gateway; another is taken when it is busy.", min=0, max=65535)] = 8080,
    admin: Annotated[str, typer.Option(help="Address of the admin port; another is taken when it is busy.")] = "127.0.0.1:9901",
    workers: Workers = 2,
    log_level: Level = "warning",
) -> None:
    """Run a gateway with two small origins of its own, and print what to try."""
    from gateway.cli.demo import show

    raise typer.Exit(show(port, admin, workers or 2, _level(log_level)))


@app.command()
def check(
    path: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="Configuration file, or a directory of them.", show_default=False)
    ] = None,
    objects: Objects = None,
    as_json: Json = False,
) -> None:
    """Say what is wrong with a configuration: 0 when nothing is, 1 when something is (warnings alone are 0)."""
    from gateway.cli.check import check_sources

    raise typer.Exit(check_sources(_sources(path, objects, "FILE"), as_json))


@app.command()
def route(
    host: Annotated[str, typer.Option("--host", help="Host of the request.", show_default=False)],
    config: Config = None,
    objects: Objects = None,
    path: Annotated[str, typer.Option("--path", help="Path of the request, with its query.")] = "/",
    method: Annotated[str, typer.Option("--method", "-X", help="Method of the request.")] = "GET",
    header: Annotated[
        list[str] | None, typer.Option("--header", "-H", metavar="'NAME: VALUE'", help="A field of the request; may be repeated.")
    ] = None,
    port: Annotated[int | None, typer.Option("--port", help="Port it arrives on; needed when there are several.")] = None,
    as_json: Json = False,
) -> None:
    """Say which rule would answer a request, and why not the others. 1 when none would."""
    from gateway.cli.route import explain_request

    fields = []
    for line in header or []:
        name, colon, value = line.partition(":")
        if not colon or not name.strip():
            raise typer.BadParameter(f"{line!r} is not 'name: value'", param_hint="--header")
        fields.append((name.strip(), value.strip()))
    raise typer.Exit(explain_request(_sources(config, objects), host, path, method, fields, port, as_json))


@app.command()
def routes(config: Config = None, objects: Objects = None, as_json: Json = False) -> None:
    """List what is routed where: hosts, paths, rules, backends."""
    from gateway.cli.routes import list_routes

    raise typer.Exit(list_routes(_sources(config, objects), as_json))


imports = typer.Typer(help="Translate the configuration of something else.", no_args_is_help=True)
app.add_typer(imports, name="import")


@imports.callback()
def import_root() -> None:
    """Options of import itself."""


@imports.command("ingress")
def import_ingress(
    path: Annotated[
        Path, typer.Argument(metavar="FILE", help="Ingresses as YAML: a file, or a directory of them.", show_default=False)
    ],
    gateway_name: Annotated[
        str, typer.Option("--gateway", help="Name of the Gateways that are made, one for each namespace.")
    ] = "isthmus",
    gateway_class: Annotated[str, typer.Option("--class", help="Class of these Gateways.")] = "isthmus",
) -> None:
    """Print Ingresses, with the annotations of ingress-nginx, as objects of Gateway API; what is not translated is listed."""
    from gateway.cli.import_ingress import import_file

    raise typer.Exit(import_file(path, gateway_name, gateway_class))


@app.command()
def schema() -> None:
    """Print the JSON Schema of the configuration, for editors."""
    from gateway.cli.schema import print_schema

    raise typer.Exit(print_schema())


@app.command()
def top(
    admin: Annotated[str, typer.Option(help="Address of the admin port.")] = "127.0.0.1:9901",
    once: Annotated[bool, typer.Option("--once", help="Print one look and end.")] = False,
    as_json: Json = False,
) -> None:
    """Watch a running gateway: requests, errors, times, clusters, workers."""
    from gateway.cli.top import watch_gateway

    raise typer.Exit(watch_gateway(admin, once or as_json, as_json))
