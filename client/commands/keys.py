"""``pbr keys``: manage the API keys of a stack."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Final

import typer
from rich.table import Table
from rich.text import Text

from client import api_keys
from client.api_keys import IssuedKey, KeyInfo
from client.commands.connect import connect
from client.commands.console import ERR, OUT, local_time, print_table
from client.commands.options import AsJson, Region, StackName, parse_duration
from functions.contracts.api_key import KNOWN_FOR_S, MAX_RATE_PER_MINUTE, Scope

_STYLES: Final = {"active": "green", "expired": "dim", "revoked": "dim"}

app = typer.Typer(no_args_is_help=True, help="Manage the API keys of a stack.")

KeyId = Annotated[str, typer.Argument(metavar="ID", help="ID of the key, or the key itself.", show_default=False)]


@app.command("create")
def create_key(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Display name, 1 to 100 characters.", show_default=False)],
    scopes: Annotated[
        list[Scope] | None,
        typer.Option("--scope", help="What the key allows. Repeat for several scopes.", show_default="process, read"),
    ] = None,
    rate: Annotated[
        int | None,
        typer.Option(min=1, max=MAX_RATE_PER_MINUTE, help="Limit of requests per minute.", show_default="the stack's"),
    ] = None,
    quota: Annotated[
        int | None, typer.Option(min=0, help="Limit of credits per month.", show_default="the stack's")
    ] = None,
    expires: Annotated[
        str | None, typer.Option(help="Lifetime of the key, e.g. 12h or 90d.", show_default="never expires")
    ] = None,
    as_json: AsJson = False,
    stack: StackName = None,
    region: Region = None,
) -> None:
    """Create a key and print it. A key is shown only once.

    Standard output has only the key, so that a script can read it: [bold]KEY=$(pbr keys create laptop)[/bold]
    """
    lifetime = parse_duration(expires, "--expires") if expires else None
    issued = api_keys.create(
        connect(stack, region),
        name,
        scopes or [Scope.PROCESS, Scope.READ],
        rate_per_minute=rate,
        monthly_quota=quota,
        lifetime=lifetime,
        now=_now(),
    )
    _print_issued(issued, as_json=as_json)


@app.command("list")
def list_keys(as_json: AsJson = False, stack: StackName = None, region: Region = None) -> None:
    """List the keys with their scopes, limits and usage."""
    keys = api_keys.list_keys(connect(stack, region), datetime.now(UTC))
    if as_json:
        OUT.print_json(data=[key.to_json() for key in keys])
    elif keys:
        print_table(_keys_table(keys))
    else:
        OUT.print("There are no keys. Create one with pbr keys create.")


@app.command("rotate")
def rotate_key(
    key: KeyId,
    grace: Annotated[
        str, typer.Option(help="How long the previous secret stays valid, e.g. 24h; 0m ends it at once.")
    ] = "24h",
    as_json: AsJson = False,
    stack: StackName = None,
    region: Region = None,
) -> None:
    """Replace the secret of a key and print the new key. Its ID, limits and jobs stay the same."""
    period = parse_duration(grace, "--grace")
    _print_issued(api_keys.rotate(connect(stack, region), key, period, _now()), as_json=as_json)


@app.command("revoke")
def revoke_key(key: KeyId, stack: StackName = None, region: Region = None) -> None:
    """Revoke a key permanently."""
    record = api_keys.revoke(connect(stack, region), key, _now())
    OUT.print(f"Revoked {record.key_id}, {record.name}. Functions may accept it for up to {KNOWN_FOR_S} s longer.")


@app.command("webhook-secret")
def show_webhook_secret(
    caller: Annotated[
        str,
        typer.Argument(
            metavar="ID",
            help="ID of the key, the key itself, or the ARN of a caller with AWS credentials, as "
            "aws sts get-caller-identity prints it.",
            show_default=False,
        ),
    ],
    stack: StackName = None,
    region: Region = None,
) -> None:
    """Print the secret that signs the webhooks of a caller."""
    OUT.print(api_keys.webhook_secret(connect(stack, region), caller))


def _print_issued(issued: IssuedKey, *, as_json: bool) -> None:
    """Print a key on standard output, and its description on standard error."""
    if as_json:
        OUT.print_json(data=issued.to_json())
        return
    OUT.print(issued.key.reveal())
    for line in _description(issued):
        ERR.print(line)


def _description(issued: IssuedKey) -> list[str]:
    info, previous = issued.info, issued.info.record.hashes[1:]
    expires_at = info.record.expires_at
    lines = [
        f"Key {info.record.key_id}, {info.record.name}: {', '.join(sorted(info.record.scopes))}; "
        f"{info.rate_per_minute:,} requests per minute, {info.monthly_quota:,} credits per month; "
        f"{f'expires {local_time(expires_at)}' if expires_at else 'never expires'}.",
        "The key is shown only once, because the stack stores only its hash. Keep it secret, and send it as X-API-Key.",
        f"To get the signing secret of its webhooks, run pbr keys webhook-secret {info.record.key_id}.",
    ]
    ends = [secret.expires_at for secret in previous if secret.expires_at]
    return [*lines, f"The previous key is valid until {local_time(max(ends))}."] if ends else lines


def _keys_table(keys: Sequence[KeyInfo]) -> Table:
    """Return a table with one key per row."""
    table = Table(box=None, pad_edge=False)
    table.add_column("id", no_wrap=True)
    table.add_column("name", no_wrap=True)
    table.add_column("status")
    table.add_column("scopes")
    table.add_column("per minute", justify="right")
    table.add_column("this month", justify="right")
    for name in ("created", "rotated", "expires"):
        table.add_column(name, no_wrap=True)
    for key in keys:
        table.add_row(
            key.record.key_id,
            Text(key.record.name),
            Text(key.status, style=_STYLES[key.status]),
            ", ".join(sorted(key.record.scopes)),
            f"{key.rate_per_minute:,}",
            f"{key.used:,} of {key.monthly_quota:,}",
            _date(key.record.created_at),
            _date(key.rotated_at),
            _date(key.record.expires_at),
        )
    return table


def _date(time: datetime | None) -> str:
    return local_time(time, "%Y-%m-%d") if time else "-"


def _now() -> datetime:
    """Return the current time in whole seconds."""
    return datetime.now(UTC).replace(microsecond=0)
