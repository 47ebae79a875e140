"""The program: the group of all commands, exit codes, and errors as one line without traceback or secrets."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Iterator
from typing import Final

import click
from fs import errors
from fs.opener.errors import OpenerError

from fs_dropbox import __version__
from fs_dropbox.authorization import required_scope
from fs_dropbox.commands import account, changing, looking, transfers
from fs_dropbox.commands.locations import LOCATIONS_HELP
from fs_dropbox.commands.output import reason_of, shown, told
from fs_dropbox.error_table import NoAccess
from fs_dropbox.errors import ApiError, AuthError, TransportError, reason
from fs_dropbox.login.connections import ConnectionsError, UnknownConnectionError
from fs_dropbox.login.login import LoginError
from fs_dropbox.login.redirect import RedirectError
from fs_dropbox.mirroring.transfer import StoppedError

OK: Final = 0
FAILED: Final = 1
USAGE: Final = 2
AUTHENTICATION: Final = 3
NOT_FOUND: Final = 4
UNREACHABLE: Final = 5
INTERRUPTED: Final = 130  # 128 + SIGINT, as shells have it
PIPE_CLOSED: Final = 141  # 128 + SIGPIPE

PROGRAM: Final = "fs-dropbox"
COMPLETION_VARIABLE: Final = "_FS_DROPBOX_COMPLETE"  # set by click's scripts for shells
DEBUG_VARIABLE: Final = "FS_DROPBOX_DEBUG"

EPILOG: Final = """
\b
Exit codes
  0    done
  1    an operation failed, or some of several did
  2    the command was not understood
  3    the credentials are mistyped, refused by Dropbox, or lack a permission
  4    there is no such file or folder
  5    Dropbox cannot be reached, or did not answer in time
  130  interrupted with Ctrl-C

\b
Environment
  DROPBOX_API_HOST and its siblings, REQUESTS_CA_BUNDLE, SSL_CERT_FILE and
  HTTPS_PROXY mean what they mean to Dropbox's SDK.
  XDG_CONFIG_HOME       where connections are kept
  FS_DROPBOX_DEBUG=1    show tracebacks
"""


@click.group(
    epilog=LOCATIONS_HELP + "\n" + EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(__version__, prog_name=PROGRAM, message="%(prog)s %(version)s")
@click.option("-v", "--verbose", count=True, help="Log what happens to standard error; twice for every request.")
def program(verbose: int) -> None:
    """Dropbox from the command line. Begin with: fs-dropbox login"""
    level = (logging.ERROR, logging.INFO, logging.DEBUG)[min(verbose, 2)]
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s", level=logging.ERROR, stream=sys.stderr)
    logging.getLogger("fs_dropbox").setLevel(level)


for _module in (account, looking, changing, transfers):
    for _command in _module.COMMANDS:
        program.add_command(_command)


def run(arguments: list[str]) -> int:
    """Run a command line and return the exit code; whatever goes wrong becomes one line on standard error."""
    _open_what_is_closed()
    try:
        code = _run(arguments)
        sys.stdout.flush()
        return code
    except OSError as error:
        # What is left may not be written at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):  # whoever read has seen enough, as head has
            return PIPE_CLOSED
        click.echo(f"fs-dropbox: standard output: {reason_of(error)}", err=True)
        return FAILED


def _open_what_is_closed() -> None:
    """Have whoever uses a standard stream that is closed (`<&-`, `>&-`) told so, and nothing else take its place."""
    for name, mode, flags in (("stdin", "r", os.O_WRONLY), ("stdout", "w", os.O_RDONLY), ("stderr", "w", os.O_WRONLY)):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, flags), mode))


def _run(arguments: list[str]) -> int:
    try:
        if COMPLETION_VARIABLE in os.environ:
            program.main(args=arguments, prog_name=PROGRAM)
        # Not program.main(), which takes a closed pipe for a failure.
        with program.make_context(PROGRAM, arguments) as context:
            result = program.invoke(context)
        return result if isinstance(result, int) else OK
    except click.exceptions.Exit as end:
        return end.exit_code
    except BrokenPipeError:
        raise
    except (KeyboardInterrupt, click.Abort, StoppedError) as interruption:
        click.echo("; ".join(["fs-dropbox: interrupted", *getattr(interruption, "__notes__", ())]), err=True)
        return INTERRUPTED
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return USAGE
    except click.ClickException as error:
        hint = f" (see {error.ctx.command_path} --help)" if isinstance(error, click.UsageError) and error.ctx else ""
        click.echo(f"fs-dropbox: {error.format_message()}{hint}", err=True)
        return error.exit_code
    except Exception as error:  # noqa: BLE001 - the last resort: a bug is one line as well
        if isinstance(error, OSError) and not error.filename:
            sys.stdout.flush()  # if that is what failed, it fails again
        if os.environ.get(DEBUG_VARIABLE):
            traceback.print_exc()
        code, text = explain(error)
        click.echo(shown(f"fs-dropbox: {text}", error=True), err=True)
        return code


def explain(error: Exception) -> tuple[int, str]:
    """Return the exit code for an error, and what to tell."""
    if isinstance(error, UnknownConnectionError | OpenerError):
        return USAGE, reason_of(error)
    if isinstance(error, ConnectionsError):
        return FAILED, reason_of(error)
    if isinstance(error, errors.IllegalBackReference):
        return USAGE, f"the path {error.path} leads above the root"
    if isinstance(error, errors.FSError):
        text = told(error)
        if isinstance(error, NoAccess | errors.CreateFailed) or any(map(_is_unauthorised, _causes(error))):
            return AUTHENTICATION, text
        if isinstance(error, errors.ResourceNotFound):
            return NOT_FOUND, text
        if isinstance(error, errors.RemoteConnectionError | errors.OperationTimeout):
            return UNREACHABLE, text
        return FAILED, text
    if isinstance(error, LoginError):
        return AUTHENTICATION, reason_of(error)
    if isinstance(error, ApiError):
        return AUTHENTICATION if _is_unauthorised(error) else FAILED, reason(error)
    if isinstance(error, TransportError):
        return UNREACHABLE, reason(error)
    if isinstance(error, RedirectError | OSError):
        return FAILED, reason_of(error)
    if isinstance(error, RuntimeError) and "new thread" in str(error):
        return FAILED, "this machine lets no further threads be started (see ulimit -u, or the container's limit)"
    return FAILED, f"internal error: {type(error).__name__}: {reason_of(error)} ({DEBUG_VARIABLE}=1 shows where)"


def _is_unauthorised(error: BaseException) -> bool:
    """Tell whether Dropbox refused the credentials, or they lack a permission."""
    if isinstance(error, AuthError):
        return True
    return isinstance(error, ApiError) and required_scope(error.tag, error.message, error.details) is not None


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__
