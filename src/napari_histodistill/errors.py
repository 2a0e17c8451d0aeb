"""The one error that a user can cause, and that every front end shows as one sentence."""


class HistodistillError(Exception):
    """Something the user can mend: the message says in one sentence what is wrong and what to do.

    The command line prints the message on stderr and exits with code 2; the widgets show it. Modules derive their own
    classes where callers need to tell cases apart.
    """
