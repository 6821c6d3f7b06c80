"""The keys of this service's clients. `python -m` this module makes one: see `--help`."""

import argparse
import hashlib
import re
import secrets
import zlib

# Secret scanners and the log's redaction know keys by their prefix.
PREFIX = "svc_"


def new_key() -> str:
    body = PREFIX + secrets.token_hex(20)
    return body + _checksum(body)


def is_well_formed(key: str) -> bool:
    """Whether the checksum is right: a mistyped key is refused without a look-up."""
    return key.startswith(PREFIX) and key.isascii() and _checksum(key[:-8]) == key[-8:]


def digest(key: str) -> str:
    """SHA-256, in hexadecimal. A slow hash is for passwords: a key has 160 random bits."""
    return hashlib.sha256(key.encode()).hexdigest()


def _checksum(text: str) -> str:
    return f"{zlib.crc32(text.encode()):08x}"


def main() -> None:
    parser = argparse.ArgumentParser(prog=f"python -m {__spec__.name}")
    new = parser.add_subparsers(required=True).add_parser(
        "new", help="print a new key, and its pair for SERVICE_API_KEYS"
    )
    new.add_argument("id", help="names the client in limits, logs and metrics, such as `web`")
    args = parser.parse_args()
    if not re.fullmatch(r"(?!anonymous$)[A-Za-z0-9._-]{1,64}", args.id):
        parser.error("an id has up to 64 letters, digits, dots, dashes and underscores")
    key = new_key()
    print(f"Key, shown only now, for the client:  {key}")  # noqa: T201 - the command's output
    print(f"Pair, for SERVICE_API_KEYS:           {args.id}:{digest(key)}")  # noqa: T201


if __name__ == "__main__":
    main()
