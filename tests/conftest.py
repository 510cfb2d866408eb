"""What all tests need."""

import signal

# A shell ignores Ctrl-C for what it runs in the background, and what is ignored is inherited: the tests that press
# Ctrl-C, in processes that they start, would then wait in vain.
signal.signal(signal.SIGINT, signal.default_int_handler)
