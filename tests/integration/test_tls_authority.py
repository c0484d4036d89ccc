"""The authority's files, certificates and one-time tokens, with real keys on a real disk."""

import multiprocessing
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from hyperion.adapters.link.authority import Authority, new_request
from hyperion.adapters.link.certificate import fingerprint_of, read_certificate, renew_due
from hyperion.adapters.link.credentials import Credentials, CredentialsError, pinned, save
from hyperion.adapters.link.errors import Conflict, Denied, Exhausted, Invalid
from hyperion.adapters.link.identity import Identity, Role
from hyperion.adapters.link.tokens import TokenStore, parse_token

DOMAIN = "test.hyperion"


class Watch:
    """A clock that a test sets."""

    def __init__(self):
        self.time = datetime.now(UTC).replace(microsecond=0)

    def __call__(self):
        return self.time

    @property
    def now_s(self):
        return int(self.time.timestamp())


@pytest.fixture
def watch():
    return Watch()


@pytest.fixture
def authority(tmp_path, watch):
    return Authority.open(tmp_path / "ca", DOMAIN, watch)


def identity(role=Role.SCHEDULER, name="one"):
    return Identity(DOMAIN, role, name)


def open_and_say_fingerprint(directory, start, said):
    start.wait(10)
    said.put(Authority.open(directory, DOMAIN).fingerprint)


def test_many_processes_that_start_at_once_make_one_authority(tmp_path):
    context = multiprocessing.get_context("spawn")
    start, said = context.Event(), context.Queue()
    starters = [
        context.Process(target=open_and_say_fingerprint, args=(tmp_path / "ca", start, said))
        for _ in range(4)
    ]
    for starter in starters:
        starter.start()
    start.set()
    seen = {said.get(timeout=20) for _ in starters}
    for starter in starters:
        starter.join(10)
    assert len(seen) == 1


def test_the_authority_keeps_its_key_to_itself_and_itself_over_restarts(tmp_path, authority):
    directory = tmp_path / "ca"
    assert (directory / "ca.key").stat().st_mode & 0o777 == 0o600
    assert directory.stat().st_mode & 0o777 == 0o700
    again = Authority.open(directory, DOMAIN)
    assert again.ca_pem == authority.ca_pem
    assert fingerprint_of(again.ca_pem) == again.fingerprint
    certificate = x509.load_pem_x509_certificate(authority.ca_pem)
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert constraints.value.ca
    assert constraints.value.path_length == 0


def test_a_damaged_or_foreign_directory_is_refused_with_the_remedy(tmp_path, authority, watch):
    directory = tmp_path / "ca"
    key, certificate = (directory / "ca.key").read_bytes(), (directory / "ca.pem").read_bytes()
    with pytest.raises(Conflict, match=r"trust domain spiffe://test.hyperion, expected .*other"):
        Authority.open(directory, "other")
    (directory / "ca.key").chmod(0o644)
    with pytest.raises(Conflict, match="chmod 600"):
        Authority.open(directory, DOMAIN)
    (directory / "ca.key").chmod(0o600)
    (directory / "ca.key").write_bytes(b"rubbish")
    with pytest.raises(Conflict, match="no ECDSA key"):
        Authority.open(directory, DOMAIN)
    (directory / "ca.key").write_bytes(
        Authority.open(tmp_path / "b", DOMAIN) and (tmp_path / "b" / "ca.key").read_bytes()
    )
    with pytest.raises(Conflict, match="does not belong to the key"):
        Authority.open(directory, DOMAIN)
    (directory / "ca.key").unlink()
    with pytest.raises(Conflict, match="lost its key"):
        Authority.open(directory, DOMAIN)
    (directory / "ca.key").write_bytes(key)
    (directory / "ca.key").chmod(0o600)
    (directory / "ca.pem").write_bytes(certificate[:100])
    with pytest.raises(Conflict, match="no certificate in PEM"):
        Authority.open(directory, DOMAIN)
    (directory / "ca.pem").write_bytes(certificate)
    watch.time += timedelta(days=3651)
    with pytest.raises(Conflict, match="expired on"):
        Authority.open(directory, DOMAIN, watch)


def test_a_certificate_says_who_for_how_long_and_for_what(authority, watch):
    _, pem = authority.issue(identity(), ["127.0.0.1", "::1", "localhost"], 3600)
    certificate = x509.load_pem_x509_certificate(pem)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [
        "spiffe://test.hyperion/scheduler/one"
    ]
    assert names.get_values_for_type(x509.DNSName) == ["scheduler.hyperion.internal", "localhost"]
    assert [str(host) for host in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "::1"]
    assert certificate.not_valid_after_utc == watch.time + timedelta(hours=1)
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(authority.ca_pem))
    usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert len(list(usages)) == 2
    _, agent = authority.issue(identity(Role.AGENT, "c/n"))
    usages = x509.load_pem_x509_certificate(agent).extensions.get_extension_for_class(
        x509.ExtendedKeyUsage
    )
    assert list(usages.value) == [x509.ExtendedKeyUsageOID.CLIENT_AUTH]


@pytest.mark.parametrize(
    "host",
    ["", "a b", "federation.hyperion.internal", "X.Hyperion.Internal", "a..b", "*", "ä", "a" * 300],
)
def test_hosts_that_lie_about_a_role_or_are_no_hosts_are_refused(authority, host):
    with pytest.raises(Invalid, match="neither an IP address nor a DNS name"):
        authority.issue(identity(), [host])


def test_other_bounds_of_a_certificate(authority):
    with pytest.raises(Invalid, match="at most 64 hosts"):
        authority.issue(identity(), [f"h{n}" for n in range(65)])
    with pytest.raises(Invalid, match="lives 1 to"):
        authority.issue(identity(), ttl_s=0)
    with pytest.raises(Invalid, match="not of trust domain"):
        authority.issue(Identity("elsewhere", Role.CLIENT, "a"))


def test_a_request_gives_its_key_and_nothing_else(authority):
    key, request = new_request()
    pem = authority.sign(request, identity(Role.CLIENT, "ann"))
    assert read_certificate(pem).identity() == identity(Role.CLIENT, "ann")
    assert b"PRIVATE KEY" in key
    asks_for_more = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([]))
        .add_extension(
            x509.SubjectAlternativeName(
                [x509.UniformResourceIdentifier("spiffe://test.hyperion/admin/root")]
            ),
            critical=False,
        )
        .sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    )
    pem = authority.sign(asks_for_more.public_bytes(Encoding.PEM), identity(Role.CLIENT, "ann"))
    assert read_certificate(pem).uris == ("spiffe://test.hyperion/client/ann",)


def signed_by(key, algorithm):
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return request.sign(key, algorithm).public_bytes(Encoding.PEM)


def test_requests_that_prove_nothing_or_are_weak_are_refused(authority):
    good = new_request()[1]
    der = bytearray(x509.load_pem_x509_csr(good).public_bytes(Encoding.DER))
    der[-1] ^= 1
    import base64

    forged = (
        b"-----BEGIN CERTIFICATE REQUEST-----\n"
        + base64.encodebytes(bytes(der))
        + b"-----END CERTIFICATE REQUEST-----\n"
    )
    small = signed_by(rsa.generate_private_key(65537, 1024), hashes.SHA256())
    edwards = signed_by(ed25519.Ed25519PrivateKey.generate(), None)
    for request, why in [
        (b"", "no certificate request"),
        (b"x" * 20_000, "longer than"),
        (good[: len(good) // 2], "no certificate request"),
        (forged, "not signed by its own key|no certificate request"),
        (small, "must be ECDSA"),
        (edwards, "must be ECDSA"),
    ]:
        with pytest.raises(Invalid, match=why):
            authority.sign(request, identity())


def test_a_token_is_good_once(tmp_path, authority):
    token = authority.new_token("agent", "home/n1", 60, ["10.0.0.1"])
    assert parse_token(token).fingerprint == authority.fingerprint
    key, request = new_request()
    with pytest.raises(Invalid):
        authority.redeem(token, b"no request")
    cert, ca = authority.redeem(token, request)
    assert ca == authority.ca_pem
    assert read_certificate(cert).identity().uri == "spiffe://test.hyperion/agent/home/n1"
    with pytest.raises(Denied, match="unknown, used or expired"):
        authority.redeem(token, request)
    save(tmp_path / "me", key, cert, ca)
    loaded = Credentials.load(tmp_path / "me", int(datetime.now(UTC).timestamp()))
    assert loaded.identity.name == "home/n1"


def test_a_joiner_trusts_the_authority_of_its_token_and_no_other(tmp_path, authority):
    token = authority.new_token("client", "ann", 60)
    assert pinned(token, authority.ca_pem).get_ca_certs()
    impostor = Authority.open(tmp_path / "impostor", DOMAIN)
    with pytest.raises(Denied, match="is not the authority of the join token") as refusal:
        pinned(token, impostor.ca_pem)
    assert parse_token(token).secret not in str(refusal.value)
    with pytest.raises(Invalid, match="no certificate in PEM"):
        pinned(token, b"")


def test_of_many_at_once_one_redeems(authority):
    token, request = authority.new_token("client", "ann", 60), new_request()[1]

    def attempt(_):
        try:
            return authority.redeem(token, request)
        except Denied:
            return None

    with ThreadPoolExecutor(8) as pool:
        assert sum(answer is not None for answer in pool.map(attempt, range(8))) == 1


def test_guessed_expired_and_malformed_tokens_are_refused(tmp_path, authority, watch):
    request = new_request()[1]
    token = authority.new_token("client", "ann", 60)
    parsed = parse_token(token)
    wrong = token[:-1] + ("A" if token[-1] != "A" else "B")
    with pytest.raises(Denied):
        authority.redeem(wrong, request)
    for malformed in ("", "hx1.a.b.c", token + "x", "../" + token, "x" * 1000):
        with pytest.raises(Invalid, match="no join token") as refusal:
            authority.redeem(malformed, request)
        assert parsed.secret not in str(refusal.value)
    watch.time += timedelta(seconds=60)
    with pytest.raises(Denied):
        authority.redeem(token, request)
    kept = list((tmp_path / "ca" / "tokens").glob("*.json"))
    assert len(kept) == 1
    assert parsed.secret.encode() not in kept[0].read_bytes()
    assert parsed.secret not in repr(parsed)
    authority.new_token("client", "bob", 60)
    assert not kept[0].exists()


def test_tokens_outstanding_are_bounded(tmp_path, watch):
    store = TokenStore(tmp_path / "t", lambda: watch.now_s, limit=3)
    for _ in range(3):
        store.add("0" * 64, identity(), (), 60)
    with pytest.raises(Exhausted, match="3 join tokens"):
        store.add("0" * 64, identity(), (), 60)
    watch.time += timedelta(seconds=61)
    store.add("0" * 64, identity(), (), 60)
    with pytest.raises(Invalid, match="lives 1 to"):
        store.add("0" * 64, identity(), (), 8 * 24 * 3600)


def test_tokens_for_impossible_peers_are_refused(authority):
    for role, name in [("root", "a"), ("agent", "a"), ("client", "a/b"), ("client", "")]:
        with pytest.raises(Invalid):
            authority.new_token(role, name, 60)


def test_renewal_is_due_after_two_thirds(authority, watch):
    _, pem = authority.issue(identity(), ttl_s=3600)
    certificate = read_certificate(pem)
    assert certificate.ends_s == watch.now_s + 3600
    assert certificate.begins_s == watch.now_s - 300
    assert not renew_due(pem, certificate.begins_s + 2599)
    assert renew_due(pem, certificate.begins_s + 2600)


def test_the_small_reader_says_what_the_library_says():
    for serial, year in [(1, 1999), (2**150, 2049), (127, 2051), (128, 2100)]:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "x" * 60)])
        uris = ["spiffe://a/client/b", "https://example.org"]
        made = (
            x509.CertificateBuilder(name, name, key.public_key(), serial)
            .not_valid_before(datetime(1970, 1, 1, tzinfo=UTC))
            .not_valid_after(datetime(year, 2, 3, 4, 5, 6, tzinfo=UTC))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(
                x509.SubjectAlternativeName([x509.UniformResourceIdentifier(u) for u in uris]),
                critical=serial > 1,
            )
            .sign(key, hashes.SHA256())
        )
        read = read_certificate(made.public_bytes(Encoding.PEM))
        assert read.begins_s == 0
        assert read.ends_s == int(made.not_valid_after_utc.timestamp())
        assert list(read.uris) == uris
        assert read.identity().uri == uris[0]
        assert read.issuer == read.subject


def test_the_small_reader_survives_damage(authority):
    import base64

    _, pem = authority.issue(identity())
    der = x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)
    for at in range(0, len(der), 3):
        cut = der[:at] + bytes([der[at] ^ 0xFF]) + der[at + 1 :]
        for damaged in (cut, der[:at]):
            text = base64.encodebytes(damaged)
            shown = b"-----BEGIN CERTIFICATE-----\n" + text + b"-----END CERTIFICATE-----\n"
            try:
                read_certificate(shown)
            except Invalid:
                continue


def issued(authority, directory, ttl_s=3600, role=Role.SCHEDULER, name="one"):
    key, cert = authority.issue(identity(role, name), ttl_s=ttl_s)
    save(directory, key, cert, authority.ca_pem)


def test_credentials_that_do_not_fit_are_refused_with_the_remedy(tmp_path, authority, watch):
    me = tmp_path / "me"
    with pytest.raises(CredentialsError, match="missing; join again"):
        Credentials.load(me, watch.now_s)
    issued(authority, me)
    good = Credentials.load(me, watch.now_s)
    assert good.identity == identity()
    assert "PRIVATE" not in repr(good)
    with pytest.raises(CredentialsError, match="expired"):
        Credentials.load(me, watch.now_s + 3600)
    with pytest.raises(CredentialsError, match="not valid yet; set this machine's clock"):
        Credentials.load(me, watch.now_s - 3600)
    (me / "key.pem").chmod(0o640)
    with pytest.raises(CredentialsError, match="chmod 600"):
        Credentials.load(me, watch.now_s)
    (me / "key.pem").chmod(0o600)
    issued(authority, tmp_path / "other")
    key = (me / "key.pem").read_bytes()
    (me / "key.pem").write_bytes((tmp_path / "other" / "key.pem").read_bytes())
    with pytest.raises(CredentialsError, match="is not the key of"):
        Credentials.load(me, watch.now_s)
    (me / "key.pem").write_bytes(key)
    (me / "ca.pem").write_bytes(Authority.open(tmp_path / "b", DOMAIN).ca_pem)
    with pytest.raises(CredentialsError, match="was not issued by"):
        Credentials.load(me, watch.now_s)
    (me / "ca.pem").unlink()
    with pytest.raises(CredentialsError, match=r"ca.pem is missing"):
        Credentials.load(me, watch.now_s)


def test_using_credentials_needs_no_crypto_library(tmp_path, authority, watch):
    issued(authority, tmp_path / "me")
    program = (
        "import sys; from pathlib import Path;"
        "from hyperion.adapters.link.credentials import Credentials;"
        f"c = Credentials.load(Path({str(tmp_path / 'me')!r}), {watch.now_s});"
        "c.server(); c.channel(); c.server_context(); c.client_context();"
        "assert 'cryptography' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)
