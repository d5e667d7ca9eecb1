"""How a program ends when the user can mend the cause: one line on stderr and a documented exit code."""

OK = 0
BUG = 1
USAGE = 2  # wrong arguments or configuration
DATA = 65  # bad data
UNAVAILABLE = 69  # a service, a program or a device is not there
IO = 74  # the disk or the network failed
BUSY = 75  # another process holds the stage, or the run was interrupted: run it again
REJECT = 100  # ran fine; the gate or a limit said no
INCONCLUSIVE = 101  # ran fine; too few rows to say


class Stop(Exception):
    """Ends a program. The message says what was found, what was wanted and what to do next."""

    def __init__(self, message: str, code: int = USAGE):
        super().__init__(message)
        self.code = code
