"""The command line of the scripted model."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import yaml

from examples.serving import serve

from . import ScriptedModel, ScriptError
from .profiles import PROFILES

KEY = "SCRIPTED_MODEL_KEY"


def main() -> int:
    """Serve until SIGTERM or SIGINT; 2 for a script or options that cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m examples.scripted_model", description="A model from a script.")
    parser.add_argument("script", type=Path, help="the YAML script")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 (default) takes a free one")
    parser.add_argument("--port-file", type=Path, help="write the port there once it is served")
    parser.add_argument("--ledger", type=Path, help="append a JSON line per request there")
    parser.add_argument("--profile", choices=PROFILES, default="openai", help="the endpoint that it plays at /v1")
    parser.add_argument("--require-key", action="store_true", help=f"require the API key in the variable {KEY}")
    options = parser.parse_args()
    if options.require_key and not os.environ.get(KEY):
        parser.error(f"--require-key: set the environment variable {KEY} to the key")
    try:
        document = yaml.load(options.script.read_bytes(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - both are the safe loader
        model = ScriptedModel(
            document,
            options.ledger,
            key=os.environ[KEY] if options.require_key else None,
            host=options.host,
            port=options.port,
            keep=False,
            profile=options.profile,
        )
        serve(model, options.port_file)
    except OSError as error:  # of the script, the ledger, the port or its file: it names which
        print(error, file=sys.stderr)
        return 2
    except (yaml.YAMLError, ScriptError) as error:
        print(f"{options.script}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
