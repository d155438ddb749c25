"""The command line: parse, call a verb, print. torch is imported by the command that needs it, never for help."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from oblivio.cli.codes import BAD_INPUT, FAILED, FINISHED

INTERRUPTED = 130  # what Typer makes of Ctrl-C


def main(words: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; what is wrong with the input is one line on standard error.

    Args:
        words: what stands after ``oblivio``; None takes the words that this process was started with.

    Returns:
        0 finished, 1 anything that went wrong on the way, 2 bad input, 3 rejected, 4 inconclusive.
    """
    import typer

    from oblivio.cli import console
    from oblivio.cli.app import application
    from oblivio.core.errors import BadInput, Stopped

    if words is None:
        _import_from_here()
    given = list(sys.argv[1:] if words is None else words) or ["--help"]
    with console.brief_warnings():
        try:
            code = application(given)(given, prog_name="oblivio", standalone_mode=False) or FINISHED
            return console.complain("interrupted", FAILED) if code == INTERRUPTED else code
        except BadInput as error:
            return console.complain(str(error), BAD_INPUT)
        except typer.TyperException as error:
            return console.complain(error.format_message(), BAD_INPUT)
        except Stopped as error:
            return console.complain(f"stopped: {error}", FAILED)
        except OSError as error:
            return console.complain(f"{type(error).__name__}: {error}", FAILED)


def _import_from_here() -> None:
    """Find the user's modules in the current folder first, as ``python -m`` does and an installed command does not."""
    if not sys.flags.safe_path and sys.path[:1] not in ([""], [os.getcwd()]):
        sys.path.insert(0, os.getcwd())
