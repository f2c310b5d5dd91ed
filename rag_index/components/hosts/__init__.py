"""The pool of servers that embed texts or write contexts, and the protocols that they speak.

`endpoint` is the client of one server, and `clients` has it for Ollama and for OpenAI's API; errors
of httpx become ours there. `host` is what a pool knows of a server, `host_call` the items that one
caller wants done, and `host_pool` sends them. Five rules, in the docstring of `host_pool`, say which
server gets what, how it rests, and how an item at fault is found.

This package imports `core` and neither `embedders` nor `chunking`, which use it. The pool knows
servers and calls, and neither knows the pool: `make lint` fails otherwise. A call's answers count
only once the model of their server was compared after they came: tests/components/hosts and
tests/components/embedders/test_server_calls.py.
"""
