"""Tokens: made once, known by their hash, read again when their file changes; and where a service may listen."""

import socket
from contextlib import closing

import pytest

from rag_index.core.settings import ServeSettings
from rag_index.errors import SettingsError, TerminalError
from rag_index.search import Caller
from rag_index.search.service.server import listen, url_of
from rag_index.search.service.tokens import TokenRegister, allowed_hosts, new_token, require_tokens, token_line
from tests.core.test_outages import Clock


def register(tmp_path=None, *lines: str, **settings) -> TokenRegister:
    if tmp_path:
        (tmp_path / "tokens").write_text("".join(f"{line}\n" for line in lines))
        settings["tokens_file"] = tmp_path / "tokens"
    return TokenRegister(ServeSettings(**settings))


def test_a_token_stands_for_its_name_and_groups():
    token = new_token()
    line = token_line("Bo Åström", token, ["sales team", "a,b"])
    assert token not in line
    assert "," not in line  # the environment divides lists at commas
    known = register(tokens=[line])
    assert known.caller(token) == Caller("Bo Åström", frozenset({"sales team", "a,b"}))
    assert known.caller(new_token()) is None
    assert known.caller("") is None
    assert known.caller("\ud800") is None


def test_every_hash_is_compared(monkeypatch):
    """The time that an answer takes must not tell where a token is in the list."""
    import hmac

    compared = []
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: compared.append(a) or a == b)
    tokens = [new_token() for _ in range(3)]
    known = register(tokens=[token_line(str(n), token, []) for n, token in enumerate(tokens)])
    assert known.caller(tokens[0]).name == "0"
    assert len(compared) == 3


def test_a_file_has_comments_and_its_changes_are_in_force_at_once(tmp_path):
    clock, token = Clock(), new_token()
    path = tmp_path / "tokens"
    path.write_text(f"# who may ask\n\n{token_line('bo', token, ['sales'])}\n")
    known = TokenRegister(ServeSettings(tokens_file=path), clock=clock)
    assert known.caller(token) == Caller("bo", frozenset({"sales"}))
    path.write_text("# nobody\n")
    clock.now += 2
    assert known.caller(token) is None
    assert known.required  # an emptied file does not open the service
    assert TokenRegister(ServeSettings(tokens_file=path)).required
    path.unlink()
    clock.now += 2
    with pytest.raises(SettingsError, match="cannot be read"):
        known.caller(token)


@pytest.mark.parametrize("line", ["rag_abcdefgh", "bo sha256:12", "bo " + "0" * 64, "bo sha1:" + "0" * 64])
def test_a_line_that_is_none_is_named_but_not_repeated(tmp_path, line):
    for make in (lambda: register(tmp_path, line), lambda: register(tokens=[line])):
        with pytest.raises(SettingsError, match=r"line 1 is not NAME sha256:HASH.*--new-token") as raised:
            make()
        assert line not in str(raised.value)


def test_no_token_has_the_name_of_a_jwt():
    """They would be one in the log, and share a rate."""
    for name in ("jwt:ann", "jwt%3Aann"):
        with pytest.raises(SettingsError, match="line 1 has a name that begins with jwt:"):
            register(tokens=[token_line("ann", new_token(), []).replace("ann", name, 1)])


TOKEN = token_line("bo", new_token(), [])


OTHERS = ["0.0.0.0", "::", "192.168.1.2", "search.example.com", "localhost.example.com", "::ffff:10.0.0.1"]


def test_tokens_are_needed_wherever_others_than_this_machine_could_ask(tmp_path):
    for host in ("127.0.0.1", "::1", "localhost"):
        require_tokens(ServeSettings(host=host), register())
    for host in OTHERS:
        require_tokens(ServeSettings(host=host), register(tokens=[TOKEN]))
        for none in (register(), register(tmp_path)):  # a file without tokens
            with pytest.raises(SettingsError, match="needs tokens: make a token with `rag-index serve --new-token"):
                require_tokens(ServeSettings(host=host), none)
    with pytest.raises(SettingsError, match=r"search\.example\.com.*needs tokens"):
        require_tokens(ServeSettings(hosts=["search.example.com"]), register())


def test_without_tokens_only_names_of_this_machine_are_answered():
    assert "evil.example.com" not in allowed_hosts(ServeSettings(), register())
    assert "[::1]" in allowed_hosts(ServeSettings(), register())
    assert allowed_hosts(ServeSettings(host="0.0.0.0"), register(tokens=[TOKEN])) is None
    named = ServeSettings(host="0.0.0.0", hosts=["search.example.com"])
    assert "search.example.com" in allowed_hosts(named, register(tokens=[TOKEN]))
    assert "other.example.com" not in allowed_hosts(named, register(tokens=[TOKEN]))


def test_an_address_in_use_or_of_another_machine_is_named():
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(TerminalError, match=rf"port {port} of 127\.0\.0\.1: .*in use.*--port"):
            listen("127.0.0.1", port)
    for host in ("192.0.2.1", "no-such-host.invalid"):
        with pytest.raises(TerminalError, match=host):
            listen(host, 0)
    with closing(listen("127.0.0.1", 0)) as listening:
        assert url_of(listening) == f"http://127.0.0.1:{listening.getsockname()[1]}"


def test_an_answer_does_not_wait_for_its_caller_to_acknowledge_the_first_packet():
    with closing(listen("127.0.0.1", 0)) as listening, closing(socket.create_connection(listening.getsockname())):
        connection, _ = listening.accept()
        with closing(connection):
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
