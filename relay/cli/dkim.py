"""`relay dkim`: makes signing keys, and compares them with what DNS publishes."""

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from relay.cli.faults import CommandFailed
from relay.cli.options import Changes, Config, read_settings
from relay.cli.show import AsJson, print_json, print_table

if TYPE_CHECKING:
    from relay.net.resolver import Resolver
    from relay.settings.schema import Settings
    from relay.smtp.dkim_key import DkimKey

dkim_app = typer.Typer(help="Keys that sign mail (DKIM).", no_args_is_help=True)


@dkim_app.command("keygen")
def make_key(
    domain: Annotated[str, typer.Argument(help="The domain that signs: that of From, or above.")],
    selector: Annotated[
        str, typer.Option(metavar="NAME", help="Where the record stands; new for each key.")
    ] = "",
    kind: Annotated[
        Literal["rsa", "ed25519"], typer.Option("--type", help="RSA is understood everywhere.")
    ] = "rsa",
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where to write the private key.")
    ] = None,
) -> None:
    """Write a new private key; print its DNS record and the lines for relay.toml."""
    from relay.model.address import normalize_domain
    from relay.smtp.dkim_key import make_key, zone_line

    try:
        domain = normalize_domain(domain)
        selector = selector or f"{kind}{time.gmtime().tm_year}"
        key = make_key(domain, selector, kind)
    except ValueError as error:
        raise CommandFailed(f"{domain}: {error}", os.EX_USAGE) from None
    path = (out or Path(f"{domain}.{selector}.pem")).absolute()
    _write_new(path, key.pem())
    print(f"; Publish this record; `relay dkim check` tells when it is seen. Key: {path}")
    print(zone_line(key.name, key.record))
    print("\n# For relay.toml:\n[[dkim_keys]]")
    for name, value in (("domain", domain), ("selector", selector), ("file", str(path))):
        print(f"{name} = {_quoted(value)}")


@dkim_app.command("check")
def check_keys(config: Config = "", changes: Changes = None, as_json: AsJson = False) -> None:
    """Compare each key with its record in DNS; exit code 65 where one is wrong, 75 without DNS."""
    import asyncio

    settings = read_settings(config, changes).settings
    rows, code = asyncio.run(_compare_all(settings))
    if as_json:
        for row in rows:
            print_json(row)
    else:
        columns = ("record", "type", "bits", "tenant", "verdict")
        print_table(columns, [[str(row[name]) for name in columns] for row in rows])
    raise SystemExit(code)


async def _compare_all(settings: "Settings") -> tuple[list[dict[str, Any]], int]:
    import msgspec

    from relay.delivery.sign import read_keys
    from relay.net.resolver import Resolver
    from relay.settings.schema import Mode

    keys, doubts = read_keys(settings)
    for doubt in doubts:
        print(f"relay: {doubt}", file=sys.stderr)
    if not keys:
        raise CommandFailed("there is no [[dkim_keys]] table to check; see relay dkim keygen")
    if settings.delivery.mode is None:  # a look at DNS sends no mail
        live = msgspec.structs.replace(settings.delivery, mode=Mode.LIVE)
        settings = msgspec.structs.replace(settings, delivery=live)
    resolver = Resolver.from_settings(settings)
    try:
        rows, codes = [], {os.EX_OK}
        for table, key in zip(settings.dkim_keys, keys, strict=True):
            verdict, code = await _compare(key, resolver)
            codes.add(code)
            row = {"record": key.name, "type": key.kind, "bits": key.bits, "tenant": table.tenant}
            rows.append({**row, "ok": code == os.EX_OK, "verdict": verdict})
        return rows, max(codes)
    finally:
        await resolver.aclose()


async def _compare(key: "DkimKey", resolver: "Resolver") -> tuple[str, int]:
    """What the published record comes to, and the exit code that it calls for."""
    from relay.model.errors import ResolverUnavailable
    from relay.smtp.dkim_key import compare_record

    try:
        records = await resolver.texts(key.name)
    except ResolverUnavailable as error:
        return f"DNS gave no answer: {error}", os.EX_TEMPFAIL
    if not records:
        return "no TXT record is published; publish it", os.EX_DATAERR
    if len(records) > 1:
        return f"{len(records)} TXT records are published; leave one", os.EX_DATAERR
    fault = compare_record(records[0], key)
    return (fault, os.EX_DATAERR) if fault else ("ok", os.EX_OK)


def _write_new(path: Path, pem: bytes) -> None:
    """Write a file that only its owner may read; one that exists is never overwritten."""
    try:
        number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise CommandFailed(
            f"{path} exists, and mail may be signed with it; choose another --selector or --out",
            os.EX_CANTCREAT,
        ) from None
    with os.fdopen(number, "wb") as file:
        file.write(pem)


def _quoted(text: str) -> str:
    import msgspec

    return msgspec.json.encode(text).decode()
