"""The one error that a user can cause, and that every front end shows as one sentence; text that is safe to show."""

from __future__ import annotations


class HistodistillError(Exception):
    """Something the user can mend: the message says in one sentence what is wrong and what to do.

    The command line prints the message on stderr and exits with code 2; the widgets show it. Modules derive their own
    classes where callers need to tell cases apart. Messages name files, and say what other packages said about them:
    whatever is in there, a message is one line without control characters.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(printable(message.replace("\n", " ")))


def printable(text: str) -> str:
    r"""A name that is shown: control characters and marks that turn the direction of text become a box.

    Examples
    --------
    >>> printable("a\nb\u202egnp.exe")
    'a\ufffdb\ufffdgnp.exe'
    """
    return "".join(character if character.isprintable() else "\ufffd" for character in text)


def reason(error: Exception | str) -> str:
    """What another package says of a file, or a name in it, for use in a sentence: one line, at most 200 characters."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    said = printable(str(error).replace("\n", " "))[:200]
    return said or (error if isinstance(error, str) else type(error).__name__)
