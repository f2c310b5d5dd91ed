"""Who asks, where an issuer of JWTs or a proxy makes sure of it: over a real service, with keys
over a real server."""

import asyncio
import base64
import hmac
import json
import threading
import time
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, HMACAlgorithm, OKPAlgorithm, RSAAlgorithm

from rag_index.core.settings import ServeSettings, load_settings
from rag_index.errors import SettingsError, TransientError
from rag_index.search import Caller
from rag_index.search.service import tokens
from rag_index.search.service.tokens import IssuerKeys, SignOn, TokenRegister, new_token, token_line
from tests.search.desk import DESK, Desk
from tests.search.service.live import asking
from tests.waiting import GENEROUS

KEY, OTHER = (rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(2))
CURVE = ec.generate_private_key(ec.SECP256R1())
SECRET = "0123456789abcdef" * 4
ISSUER, AUDIENCE = "https://id.example.com", "rag-index"
PSS = rsa.generate_private_key(public_exponent=65537, key_size=2048)
SHORT = rsa.generate_private_key(public_exponent=65537, key_size=1024)
P384, EDWARDS = ec.generate_private_key(ec.SECP384R1()), ed25519.Ed25519PrivateKey.generate()
PRIVATE = json.loads(ECAlgorithm.to_jwk(CURVE)) | {"kid": "k"}
ANN = Caller("jwt:ann", frozenset({"staff"}))
PUBLIC = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def jwk(key, kid: str, **more) -> dict:
    kinds = {ec.EllipticCurvePrivateKey: ECAlgorithm, ed25519.Ed25519PrivateKey: OKPAlgorithm}
    algorithm = next((one for kind, one in kinds.items() if isinstance(key, kind)), RSAAlgorithm)
    return {**json.loads(algorithm.to_jwk(key.public_key())), "kid": kid, **more}


KEYS = {
    "keys": [
        jwk(KEY, "one"),
        jwk(CURVE, "two"),
        {**json.loads(HMACAlgorithm.to_jwk(SECRET)), "kid": "secret"},
    ]
}


def signed(key=KEY, algorithm="RS256", kid="one", **claims) -> str:
    given = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "exp": time.time() + 60,
        "sub": "ann",
        "groups": ["staff"],
        **claims,
    }
    given = {name: value for name, value in given.items() if value is not None}
    return jwt.encode(given, key, algorithm, headers={"kid": kid} if kid else None)


class Issuer(BaseHTTPRequestHandler):
    keys, status, asked, pause = KEYS, 200, 0, 0.0

    def do_GET(self):
        type(self).asked += 1
        self.send_response(self.status)
        self.end_headers()
        answer = json.dumps(self.keys).encode()
        with suppress(OSError):  # the reader has gone
            for part in (answer,) if not self.pause else (bytes([one]) for one in answer):
                self.wfile.write(part)
                self.gone.wait(self.pause)

    def log_message(self, *_):
        pass


@contextmanager
def issuing():
    kind = type("OneIssuer", (Issuer,), {"gone": threading.Event()})
    with ThreadingHTTPServer(("127.0.0.1", 0), kind) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        kind.url = f"http://127.0.0.1:{server.server_port}/keys"
        yield kind
        kind.gone.set()
        server.shutdown()


@pytest.fixture
def issuer():
    with issuing() as issuer:
        yield issuer


@pytest.fixture(scope="module")
def keys():
    """The address of keys that stay."""
    with issuing() as issuer:
        yield issuer.url


def settings(keys: str, **more) -> ServeSettings:
    return ServeSettings(jwt_keys=keys, jwt_audience=AUDIENCE, **{"jwt_issuer": ISSUER, **more})


def verify(serve: ServeSettings, token: str) -> Caller | None:
    return asyncio.run(SignOn(serve).verify(token))


def test_a_valid_jwt_stands_for_its_subject_and_groups_which_are_texts_of_one_claim(keys):
    assert verify(settings(keys), signed()) == Caller("jwt:ann", frozenset({"staff"}))
    assert verify(settings(keys), signed(CURVE, "ES256", "two")) == Caller(
        "jwt:ann", frozenset({"staff"})
    )
    odd = verify(settings(keys), signed(aud=["other", AUDIENCE], sub="a\nb"))
    assert odd.name == "jwt:a%0Ab", "one line in the log"
    for claims, where, groups in (
        ({"groups": None}, "groups", []),
        ({"groups": "a b"}, "groups", ["a b"]),
        ({"groups": ["a", 7, None, "", ["b"]]}, "groups", ["a"]),
        ({"groups": {"a": True}}, "groups", []),
        ({"realm_access": {"roles": ["board"]}}, "realm_access.roles", ["board"]),
        ({"realm_access": ["board"]}, "realm_access.roles", []),
        ({"https://desk.example.com/groups": ["x"]}, "https://desk.example.com/groups", ["x"]),
    ):
        assert verify(settings(keys, jwt_groups=where), signed(**claims)).groups == frozenset(
            groups
        )


def test_any_other_jwt_is_nobody(keys):
    for token in (
        signed(OTHER),
        signed(exp=time.time() - 60),
        signed(exp=None),
        signed(aud="another"),
        signed(aud=None),
        signed(iss="https://evil.example.com"),
        signed(iss=None),
        signed(nbf=time.time() + 600),
        signed(kid="three"),
        signed(kid="two"),
        signed(OTHER, kid=None),
        signed(SECRET, "HS256", "secret"),
        jwt.encode(
            {"aud": AUDIENCE, "iss": ISSUER, "exp": time.time() + 60},
            None,
            "none",
            headers={"kid": "one"},
        ),
        signed()[:-6] + "AAAAAA",
        "a.b.c",
        f"{base64.urlsafe_b64encode(b'[' * 9000).decode()}.b.c",
        signed(sub=["ann"]),
        f"{'x' * 20_000}.b.c",
        "",
    ):
        assert verify(settings(keys), token) is None, token


def listed(key, **more) -> dict:
    """Return a key as issuers list it, which `more` may add to, or take from by None."""
    return {name: value for name, value in (jwk(key, "k") | more).items() if value is not None}


def test_a_jwt_that_a_listed_key_verifies_is_good_however_the_issuer_lists_its_keys(issuer):
    for keys, good in (
        ([listed(OTHER), listed(KEY)], {"kid": "k"}),
        ([listed(OTHER), listed(KEY)], {"kid": None}),
        ([listed(OTHER, kid="other"), listed(KEY, kid=None)], {"kid": "k"}),
        ([listed(KEY, kid=None)], {"kid": None}),
        ([None, 7, "k", [], {}, listed(KEY)], {}),
        ([listed(CURVE), listed(P384), listed(KEY)], {}),
        (
            [
                {"kty": "MLDSA", "kid": "k", "alg": "ML-DSA-44"},
                {"kty": "RSA", "kid": "k"},
                listed(KEY),
            ],
            {},
        ),
        (
            [
                listed(KEY, n=7),
                listed(KEY, n="!"),
                listed(KEY, key_ops=5),
                listed(KEY, use=["sig"]),
                listed(KEY),
            ],
            {},
        ),
        ([listed(KEY, use="enc"), listed(KEY, use="sig", key_ops=["verify", "wrapKey"])], {}),
        ([listed(PSS, key_ops=None)], {"key": PSS, "algorithm": "PS256"}),
        ([listed(PSS)], {"key": PSS, "algorithm": "RS512"}),
        ([listed(PSS, alg="PS256")], {"key": PSS, "algorithm": "PS256"}),
        ([listed(PSS, alg="RS256"), listed(PSS, alg="PS256")], {"key": PSS, "algorithm": "PS256"}),
        ([listed(CURVE), listed(P384)], {"key": P384, "algorithm": "ES384"}),
        ([listed(EDWARDS)], {"key": EDWARDS, "algorithm": "EdDSA"}),
    ):
        issuer.keys = {"keys": keys}
        assert verify(settings(issuer.url), signed(**{"kid": "k", **good})) == ANN
        assert verify(settings(issuer.url), signed(**{"kid": "k", **good, "exp": 1})) is None
        foreign = {"RS": OTHER, "PS": OTHER, "ES": P384, "Ed": ed25519.Ed25519PrivateKey.generate()}
        algorithm = good.get("algorithm", "RS256")
        if algorithm != "ES384" and len(keys) == 1:
            assert (
                verify(
                    settings(issuer.url),
                    signed(**{"kid": "k", **good, "key": foreign[algorithm[:2]]}),
                )
                is None
            )


def by_hand(header: dict, sign=lambda text: b"") -> str:
    """Return a token that no library makes."""
    claims = {"iss": ISSUER, "aud": AUDIENCE, "exp": time.time() + 60, "groups": ["staff"]}
    parts = [
        base64.urlsafe_b64encode(json.dumps(one).encode()).rstrip(b"=") for one in (header, claims)
    ]
    return b".".join(
        [*parts, base64.urlsafe_b64encode(sign(b".".join(parts))).rstrip(b"=")]
    ).decode()


def good_signature(text: bytes, key=KEY) -> bytes:
    return key.sign(text, PKCS1v15(), SHA256())


def hs256(text: bytes, key: bytes) -> bytes:
    return hmac.digest(key, text, "sha256")


@pytest.mark.parametrize(
    ("keys", "token"),
    [
        (
            [listed(SHORT)],
            by_hand({"alg": "RS256", "kid": "k"}, lambda text: good_signature(text, SHORT)),
        ),
        (
            [listed(SHORT, alg="RS256")],
            by_hand({"alg": "RS256"}, lambda text: good_signature(text, SHORT)),
        ),
        ([listed(KEY, use="enc")], signed(kid="k")),
        ([listed(KEY, alg="RSA-OAEP")], signed(kid="k")),
        ([listed(KEY, alg="RS512")], signed(kid="k")),
        ([listed(KEY, alg="PS256")], signed(kid="k")),
        ([listed(KEY, key_ops=["encrypt"])], signed(kid="k")),
        ([listed(KEY, key_ops=[])], signed(kid="k")),
        ([listed(KEY, kid="other")], signed(kid="k")),
        ([PRIVATE], signed(CURVE, "ES256", "k")),  # whoever reads the list could sign
        ([listed(P384, alg="ES256")], signed(P384, "ES384", "k")),
        ([listed(CURVE, crv="P-384")], signed(CURVE, "ES256", "k")),
        ([listed(KEY)], by_hand({"alg": "none", "kid": "k"})),
        ([listed(KEY)], by_hand({"alg": "none", "kid": "k"}, good_signature)),
        ([listed(KEY)], by_hand({"kid": "k"}, good_signature)),
        ([listed(KEY)], by_hand({"alg": ["RS256"], "kid": "k"}, good_signature)),
        ([listed(KEY)], by_hand({"alg": "RS256", "kid": 7}, good_signature)),
        (
            [listed(KEY)],
            by_hand({"alg": "RS256", "kid": "k", "crit": ["exp"], "exp": 1}, good_signature),
        ),
        ([listed(KEY)], by_hand({"alg": "RS256", "kid": "k", "crit": []}, good_signature)),
        ([listed(KEY)], by_hand({"alg": "HS256", "kid": "k"}, lambda text: hs256(text, PUBLIC))),
        (
            [{"kty": "oct", "kid": "k", "k": "MDEy"}],
            by_hand({"alg": "HS256"}, lambda text: hs256(text, b"012")),
        ),
    ],
)
def test_no_other_jwt_is_good_whatever_the_issuer_lists(issuer, keys, token):
    for more in ([], [listed(OTHER, kid=None)]):
        issuer.keys = {"keys": [*keys, *more]}
        assert verify(settings(issuer.url), token) is None
    issuer.keys = {"keys": [listed(KEY)]}
    good = by_hand({"alg": "RS256", "kid": "k"}, good_signature)
    assert verify(settings(issuer.url), good).groups == {"staff"}, "but for what is wrong with it"


def checked(keys: IssuerKeys, key, kid: str):
    return keys.verify(signed(key, kid=kid), audience=AUDIENCE)


def test_keys_are_read_again_when_others_sign_and_are_good_for_an_hour_without_the_issuer(issuer):
    now = [0.0]

    async def main():
        keys = IssuerKeys(issuer.url, clock=lambda: now[0])
        assert issuer.asked == 0, "a service starts without its issuer"
        assert await checked(keys, KEY, "one")
        issuer.keys = {"keys": [jwk(OTHER, "one")]}
        assert await checked(keys, OTHER, "one"), (
            "a key that appeared just after the last reading, under an old id"
        )
        assert await checked(keys, KEY, "one") is None, (
            "a key that the issuer took back is not good"
        )
        assert await checked(keys, KEY, "two") is None
        assert issuer.asked == 2, "tokens that no key verifies do not make it ask for each request"
        now[0] += tokens.KEYS_PAUSE_SECONDS + 1
        assert await checked(keys, OTHER, "one")
        assert issuer.asked == 2, "they are fresh"
        assert [await checked(keys, KEY, name) for name in ("one", "two", "four")] == [None] * 3
        assert issuer.asked == 4
        with pytest.raises(jwt.ExpiredSignatureError):
            await keys.verify(signed(OTHER, exp=1), audience=AUDIENCE)
        issuer.status = 500
        now[0] += 2 * tokens.FRESH_KEYS_SECONDS + 1
        assert [bool(await checked(keys, OTHER, "one")) for _ in range(3)] == [True] * 3
        assert issuer.asked == 5
        issuer.status, issuer.keys = 200, {"keys": []}
        now[0] += tokens.KEYS_PAUSE_SECONDS + 1
        assert await checked(keys, OTHER, "one") is None, "an empty list takes all back"
        issuer.status = 500
        now[0] += tokens.MAX_OLD_SECONDS + 1
        with pytest.raises(TransientError, match="cannot be read"):
            await checked(keys, OTHER, "one")

    asyncio.run(main())


def test_whatever_an_issuer_answers_known_keys_are_good_and_an_unknown_one_waits_no_longer_than_its_limit(
    issuer, monkeypatch, caplog
):
    now = [0.0]

    async def main():
        keys = IssuerKeys(issuer.url, clock=lambda: now[0])
        assert await checked(keys, KEY, "one")
        for pause, answer, words in (
            (0.05, KEYS, "no whole answer within 0.3 s"),
            (0, {"keys": [], "more": "x" * tokens.MAX_KEYS_BYTES}, "larger than 1,000,000 bytes"),
            (0, ["keys"], "has no keys"),
            (0, {"keys": [5]}, "has no keys"),
        ):
            monkeypatch.setattr(tokens, "TIMEOUT_SECONDS", 0.3 if pause else GENEROUS)
            issuer.pause, issuer.keys = pause, answer
            now[0] += tokens.KEYS_PAUSE_SECONDS + 1
            unknown = asyncio.ensure_future(checked(keys, OTHER, "three"))
            await asyncio.sleep(0)
            assert await checked(keys, KEY, "one"), "it waits for nobody"
            assert not pause or not unknown.done()
            assert await unknown is None
            assert words in caplog.messages[-1]
            assert await checked(keys, KEY, "one")

    asyncio.run(main())


def test_settings_that_would_let_others_in_are_refused(tmp_path):
    config = Desk(tmp_path).config
    for more, words in (
        ({"jwt_keys": "https://id.example.com/keys"}, "jwt_keys needs jwt_audience"),
        (
            {"jwt_keys": "http://id.example.com/keys", "jwt_audience": "x"},
            "must be an https address",
        ),
        ({"proxy": ["10.0.0.1"]}, "proxy and proxy_groups need each other"),
        ({"proxy_groups": "X-Groups"}, "proxy and proxy_groups need each other"),
        (
            {"proxy": ["the proxy"], "proxy_groups": "X-Groups"},
            "does not appear to be an IPv4 or IPv6 network",
        ),
    ):
        with pytest.raises(SettingsError, match=words):
            load_settings(config, serve=more)


def test_a_proxy_names_groups_from_its_own_address_alone():
    sign_on = SignOn(ServeSettings(proxy=["10.0.0.7", "192.168.0.0/24"], proxy_groups="X-Groups"))
    header = [(b"x-groups", "staff, Größe".encode())]
    for address in ("10.0.0.7", "192.168.0.9", "::ffff:10.0.0.7"):
        assert sign_on.proxied(address, header) == Caller(groups=frozenset({"staff", "Größe"}))
    for address in ("10.0.0.8", "unknown", "::1"):
        assert sign_on.proxied(address, header) is None
    assert sign_on.proxied("10.0.0.7", [(b"X-Groups", b"")]) == Caller(groups=frozenset())
    for broken in (
        [],
        [(b"x-groups", b"\xff")],
        [*header, (b"X-Groups", b"board")],
        [(b"x-group", b"staff")],
    ):
        assert sign_on.proxied("10.0.0.7", broken) is None
    assert SignOn(ServeSettings()).proxied("10.0.0.7", [(b"", b"staff")]) is None
    serve = ServeSettings(proxy=["127.0.0.1"], proxy_groups="X-Groups")
    tokens.require_tokens(
        ServeSettings(host="0.0.0.0", proxy=["10.0.0.7"], proxy_groups="X-Groups"),
        TokenRegister(serve),
    )
    # a page of another origin cannot have a token, but write a header to a name that it points at
    # this machine
    assert "evil.example.com" not in tokens.allowed_hosts(serve, TokenRegister(serve))


def test_each_caller_sees_what_is_for_their_groups(tmp_path, issuer):
    desk = Desk(tmp_path / "desk", names=("comments",), more={"comments": 'access = "tenant"'})
    groups = {
        number: {"_rag": {"groups": [name]}}
        for number, name in ((1, "staff"), (2, "board"), (3, "nobody"))
    }
    rows = [
        (number, text, {**payload, **groups[number]}) for number, text, payload in DESK["comments"]
    ]
    desk.fill({"comments": rows})
    token = new_token()
    proxy = {"proxy": ["127.0.0.1"], "proxy_groups": "X-Groups"}
    serve = settings(issuer.url, tokens=[token_line("bo", token, ["board"])], **proxy)
    with asking(desk.settings.model_copy(update={"serve": serve})) as client:

        def seen(**headers):
            answer = client.get("/search", params={"query": "printer"}, headers=headers)
            return (
                sorted(one["document_id"] for one in answer.json()["hits"])
                if answer.is_success
                else answer.status_code
            )

        assert seen(Authorization=f"Bearer {signed()}") == ["1"]
        assert seen(Authorization=f"Bearer {signed(groups=['staff', 'board'])}") == ["1", "2"]
        assert seen(Authorization=f"Bearer {signed(groups=None)}") == []
        assert seen(Authorization=f"Bearer {token}") == ["2"]
        assert seen(**{"X-Groups": "nobody"}) == ["3"]
        assert seen(Authorization=f"Bearer {signed(exp=1)}") == 401
        assert seen() == 401
        issuer.status = 500
    with asking(desk.settings.model_copy(update={"serve": serve})) as client:
        assert seen(Authorization=f"Bearer {signed()}") == 503, "its keys cannot be read"
        assert seen(Authorization=f"Bearer {token}") == ["2"]
