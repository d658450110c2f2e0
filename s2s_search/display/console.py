"""The console that everything is printed on."""

import errno
import os

import rich.console


class Console(rich.console.Console):
    """A console of rich that raises BrokenPipeError when the reader of its pipe has closed it.

    That of rich ends the program, and with it a search whose output is read by `head`.
    """

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
