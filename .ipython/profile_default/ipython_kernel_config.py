"""Settings of the kernels that the Makefile starts."""

c = get_config()  # noqa: F821

# Each kernel would warn that its connection, to this very machine, is not encrypted, and tell of
# a Ctrl-C that is make's to answer.
c.IPKernelApp.log_level = 50
