"""A terminal for tests: what stands on its screen after the bytes that a program wrote to it."""

import re

TOKENS = re.compile(r"\x1b\[(\??[\d;]*)([A-Za-z])|([\r\n])|([^\x1b\r\n]+)")


class Terminal:
    """As many rows as are needed, of `width` cells; the top one of those that scroll away stays above the screen."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.rows: list[str] = [""]
        self.row = self.column = 0
        self.shows_cursor = True

    def write(self, text: str) -> None:
        found = list(TOKENS.finditer(text))
        assert "".join(match[0] for match in found) == text, "a sequence that is not known here"
        for match in found:
            arguments, command, control, words = match.groups()
            if words:
                self._print(words)
            elif control:
                self._move(control)
            else:
                self._obey(arguments, command)

    def _print(self, words: str) -> None:
        row = self.rows[self.row].ljust(self.column)
        assert self.column + len(words) <= self.width, f"a line is too long: {words}"
        self.rows[self.row] = row[: self.column] + words + row[self.column + len(words) :]
        self.column += len(words)

    def _move(self, control: str) -> None:
        self.column = 0  # the driver of a terminal makes \r\n of \n
        if control == "\n":
            self.row += 1
            self.rows += [""] * (self.row + 1 - len(self.rows))

    def _obey(self, arguments: str, command: str) -> None:
        if command == "A":
            self.row -= int(arguments)
            assert self.row >= max(len(self.rows) - self.height, 0), "above the screen"
        elif (arguments, command) == ("2", "K"):
            self.rows[self.row] = ""
        elif arguments == "?25":
            self.shows_cursor = command == "h"
        else:
            assert command == "m", (arguments, command)

    @property
    def screen(self) -> list[str]:
        return [row.rstrip() for row in self.rows]
