"""The command line. Each command lives in its own file and is imported only when it is called."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from functools import wraps
from importlib import import_module
from typing import Annotated, Any

import typer

from ptychow._version import __version__
from ptychow.errors import PtychoWError, is_out_of_memory

# In the order of a user's work; the text is what `ptychow --help` shows.
COMMANDS = {
    "demo": "Simulate, train and reconstruct a small scan in two minutes.",
    "fetch": "Bring a real measured scan to try.",
    "simulate": "Write a simulated scan with its truth.",
    "simulate-detector": "Send a scan as a detector does, to try `ptychow live`.",
    "inspect": "What a scan file holds, and what looks wrong.",
    "convert": "Write a scan in another file format.",
    "orient": "Which way round detector and positions are, or that nothing tells.",
    "prepare": "Turn, centre, crop or bin the frames of a scan.",
    "label": "Reconstruct a scan iteratively: the labels for training.",
    "train": "Fit a network to labelled scans.",
    "calibrate": "Fit a network to the instrument of one scan, without labels.",
    "reconstruct": "From a scan and a Model to a picture.",
    "live": "The object appears while the detector scans.",
    "refine": "Finish a known object by iterative reconstruction.",
    "evaluate": "How good a Model is on a labelled scan.",
    "import-ptychonn": "Turn a published PtychoNN checkpoint into a Model.",
    "weights": "Trained Models that come with PtychoW.",
    "export": "A Model as one file for ONNX Runtime, OpenVINO or PyTorch.",
    "doctor": "What is installed here, and which engines were chosen.",
    "networks": "The networks, their sizes and costs.",
    "benchmark": "Make the numbers in docs/results again.",
}
# Hands options it does not know on to a script.
PASSES_ON = {"allow_extra_args": True, "ignore_unknown_options": True}


# Of all that typer raises for a wrong command line it exports this child only.
_UsageError: type[typer.BadParameter] = typer.BadParameter.__bases__[0]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `ptychow ARGUMENTS`; every error a user can meet ends here, as one line and an exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    try:
        sys.exit(_application(arguments)(arguments, prog_name="ptychow", standalone_mode=False) or 0)
    except PtychoWError as error:
        _fail(str(error), error.exit_code)
    except _UsageError as error:
        _fail(f"{error.format_message()} (see ptychow COMMAND --help)", 2)
    except BrokenPipeError:
        # The reader of our pipe has left; there is nobody to tell, now or when Python flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        _fail(f"{error.filename or 'file system'}: {error.strerror or error}", 1)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        _fail(f"out of memory ({error}); use a smaller batch or a machine with more memory", 1)
    except KeyboardInterrupt:
        _fail("interrupted", 1)


def _application(arguments: Sequence[str]) -> typer.Typer:
    """The commands as typer sees them: the one that is called for real, the others by name and help line."""
    application = typer.Typer(
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"max_content_width": 100},
        help="Ptychography scans to pictures with neural networks. `ptychow COMMAND --help` says more.",
    )
    application.callback()(_global_options)
    called = next((argument for argument in arguments if not argument.startswith("-")), None)
    for name, text in COMMANDS.items():
        function: Any = _not_loaded
        if name == called:
            module = name.replace("-", "_")
            function = _interruptible(getattr(import_module(f"ptychow.cli.{module}"), module))
        settings = PASSES_ON if name == "benchmark" else None
        application.command(name, help=None if name == called else text, context_settings=settings)(function)
    return application


def _interruptible(command: Callable[..., None]) -> Callable[..., None]:
    """The command with Ctrl-C as an error of ours: typer would leave without a word."""

    @wraps(command)
    def run(**options: Any) -> None:
        try:
            command(**options)
        except KeyboardInterrupt:
            raise PtychoWError("interrupted") from None

    return run


def _not_loaded() -> None:
    """Stands for a command that only has to be listed."""


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ptychow {__version__}")
        raise typer.Exit


def _global_options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def _fail(message: str, code: int) -> None:
    """One line on standard error, then leave with `code`."""
    typer.secho("error: " + " ".join(message.split()), fg="red", err=True)
    sys.exit(code)
