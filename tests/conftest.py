"""What holds for all tests."""

import signal

# A shell has what it runs in the background ignore SIGINT, and daemons inherit that: the tests that
# press Ctrl-C would then wait in vain, as in `make test &`.
signal.signal(signal.SIGINT, signal.default_int_handler)
