"""Key files go both ways between us and what others make and read: Python `cryptography`, pycryptodome, OpenSSL."""

import hashlib
import os
import shutil
import subprocess
import sys

import ciphermq
import pytest
from conftest import DEADLINE, ROOT
from Crypto.IO import PEM, PKCS8
from Crypto.Util.asn1 import DerNull
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import Encoding, PrivateFormat, PublicFormat

sys.path[:0] = [str(ROOT / "tests" / "interop"), str(ROOT / "tests" / "vectors")]
import check  # noqa: E402  (opens messages with nothing of ours)
import oracle  # noqa: E402  (seals, and writes keys, with nothing of ours)

PASSPHRASE = "correct horse"
VARIABLE = "TEST_KEY_PASSPHRASE"
SUITES = ["1", "2x", "2pq", "sign"]
each_suite = pytest.mark.parametrize("suite", SUITES)
KINDS = ["rsa", "x25519", "ed25519", "xwing"]
each_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture
def program(ciphermq_binary, tmp_path):
    """Runs `ciphermq` in a directory with a file of the passphrase; gives its stdout."""
    (tmp_path / "passphrase").write_text(PASSPHRASE + "\n")
    (tmp_path / "passphrase").chmod(0o600)

    def run(*arguments, status=0):
        environment = {VARIABLE: PASSPHRASE}
        done = subprocess.run(
            [ciphermq_binary, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=DEADLINE
        )
        assert done.returncode == status, done.stderr
        return done.stdout if status == 0 else done.stderr

    return run


def spki(public):
    return public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def der_of(pem):
    return PEM.decode(pem)[0]


def kid_of(public_pem):
    """As docs/encryption.md has it, from the public half alone."""
    der = der_of(public_pem)
    is_xwing = oracle.XWING_ALGORITHM in der[:24]
    return oracle.named(hashlib.sha256(b"cipher/xwing" + der[-1216:] if is_xwing else der).digest())


# --- ours, read by others


FLAGS = {
    "plain": [],
    "passphrase-file": ["--encrypt", "--passphrase-file", "passphrase"],
    "passphrase-env": ["--encrypt", "--passphrase-env", VARIABLE],
}


@each_suite
@pytest.mark.parametrize("how", FLAGS)
def test_others_read_what_keygen_writes(program, tmp_path, suite, how):
    printed = program("keygen", "--suite", suite, "--out", "keys", *FLAGS[how])
    name = "sender" if suite == "sign" else "receiver"
    private, public = ((tmp_path / "keys" / f"{name}_{half}.pem").read_text() for half in ("private", "public"))
    assert private.startswith("-----BEGIN PRIVATE KEY-----" if how == "plain" else "-----BEGIN ENCRYPTED PRIVATE KEY-----")
    assert printed.split("fingerprint")[1].strip() == kid_of(public)
    assert_belongs(private, None if how == "plain" else PASSPHRASE, public, suite)
    if how != "plain":
        with pytest.raises(ValueError):
            assert_belongs(private, "wrong", public, suite)


@each_suite
def test_others_read_keysets_and_what_rewrap_writes(program, tmp_path, suite):
    if suite == "sign":
        program("keygen", "--suite", suite, "--out", "keys")
        (private,), (public,) = (list(tmp_path.glob(f"keys/*_{half}.pem")) for half in ("private", "public"))
    else:
        program("keygen", "--suite", suite, "--out", "keys", "--keyset")
        program("key", "rotate", "keys")
        (public, other), privates = tmp_path.glob("keys/*.public.pem"), set(tmp_path.glob("keys/*.pem"))
        for path in (public, other):
            private = path.with_name(path.name.replace(".public", ""))
            assert private in privates
            assert_belongs(private.read_text(), None, path.read_text(), suite)
        private = public.with_name(public.name.replace(".public", ""))
    program("key", "rewrap", str(private), "--new-passphrase-file", "passphrase")
    assert_belongs(private.read_text(), PASSPHRASE, public.read_text(), suite)
    program("key", "rewrap", str(private), "--passphrase-env", VARIABLE, "--decrypt")
    assert_belongs(private.read_text(), None, public.read_text(), suite)


@pytest.mark.parametrize("kind", ["rsa", "x25519", "x-wing", "ed25519"])
@pytest.mark.parametrize("passphrase", [None, PASSPHRASE], ids=["plain", "encrypted"])
def test_others_read_what_the_package_writes(kind, passphrase):
    key = ciphermq.Identity.generate() if kind == "ed25519" else ciphermq.PrivateKey.generate(kind)
    public = (key.sender_key() if kind == "ed25519" else key.public_key()).to_pem()
    public = public if isinstance(public, str) else public.decode()
    assert_belongs(key.to_pem(passphrase=passphrase).decode(), passphrase, public, {"x-wing": "2pq"}.get(kind))
    assert key.kid == kid_of(public)


def assert_belongs(private, passphrase, public, suite):
    """By others' means: the two halves are of one key, and written as they would write them."""
    if suite == "2pq":
        # No other library has a form for X-Wing: the envelope of PKCS#8 is opened, and the key made from its seed.
        algorithm, seed, parameters = PKCS8.unwrap(der_of(private), passphrase)
        assert (algorithm, parameters) == ("1.3.6.1.4.1.62253.25722", None)
        theirs = oracle.Key("xwing", seed)
        assert theirs.spki == public
        assert passphrase or theirs.pkcs8 == private
        assert oracle.named(check.Key(theirs.pkcs8).kid) == kid_of(public), "two ways to its id agree"
        return
    key = serialization.load_pem_private_key(private.encode(), passphrase and passphrase.encode())
    assert spki(key.public_key()) == der_of(public) == spki(serialization.load_pem_public_key(public.encode()))
    plain = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, serialization.NoEncryption())
    assert passphrase or plain.decode() == private, "byte for byte"
    if isinstance(key, ed25519.Ed25519PrivateKey):
        key.public_key().verify(key.sign(b"text"), b"text")


def test_an_encrypted_key_says_the_parameters_that_are_documented(program, tmp_path):
    program("keygen", "--suite", "2x", "--out", "keys", *FLAGS["passphrase-file"])
    der = der_of((tmp_path / "keys" / "receiver_private.pem").read_text())
    scrypt, cbc = bytes.fromhex("06092b06010401da47040b"), bytes.fromhex("060960864801650304012a")
    salt = der.index(scrypt) + len(scrypt) + 2
    assert der[salt:salt + 2] == b"\x04\x10", "a salt of 16 bytes"
    costs = [b"\x02\x02\x40\x00", b"\x02\x01\x08", b"\x02\x01\x05"]
    assert der[salt + 18:].startswith(b"".join(costs)), "N 2^14, r 8, p 5"
    assert cbc in der, "AES-256-CBC"


# --- others', read by us


def generate(kind):
    """A key of theirs: the private key and its public half in PEM."""
    if kind == "xwing":
        key = oracle.Key("xwing", os.urandom(32))
        return key.pkcs8, key.spki
    key = {
        "rsa": lambda: rsa.generate_private_key(65537, 2048),
        "x25519": x25519.X25519PrivateKey.generate,
        "ed25519": ed25519.Ed25519PrivateKey.generate,
    }[kind]()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, serialization.NoEncryption())
    return private.decode(), key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


@pytest.fixture(scope="module")
def theirs():
    """One key of each kind."""
    return {kind: generate(kind) for kind in KINDS}


@pytest.fixture
def is_read(program, tmp_path):
    """Fails unless the program and the package read a private key as the one that belongs to a public one."""

    def check_(private, public, passphrase=None):
        private = private.encode() if isinstance(private, str) else private
        path = tmp_path / "theirs.pem"
        path.write_bytes(private)
        path.chmod(0o600)
        (tmp_path / "theirs.public.pem").write_text(public)
        flags = ["--passphrase-file", "passphrase"] if passphrase else []
        expected = kid_of(public)
        assert program("key", "fingerprint", "theirs.pem", *flags).split() == [expected, "theirs.pem"]
        assert program("key", "fingerprint", "theirs.public.pem").split()[0] == expected
        kind = ciphermq.Identity if len(der_of(public)) == 44 and b"\x2b\x65\x70" in der_of(public) else ciphermq.PrivateKey
        assert kind.from_pem(private, passphrase=passphrase).kid == expected
        if passphrase:
            for wrong in ({}, {"passphrase": "wrong"}):
                with pytest.raises(ciphermq.PassphraseError):
                    kind.from_pem(private, **wrong)

    return check_


@each_kind
def test_we_read_plain_keys_of_others(theirs, is_read, kind):
    is_read(*theirs[kind])
    if kind == "rsa":
        key = serialization.load_pem_private_key(theirs[kind][0].encode(), None)
        is_read(key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()), theirs[kind][1])


@pytest.mark.parametrize("kind", ["rsa", "x25519", "ed25519"])
def test_we_read_keys_that_cryptography_encrypted(theirs, is_read, kind):
    private, public = theirs[kind]
    key = serialization.load_pem_private_key(private.encode(), None)
    encryption = serialization.BestAvailableEncryption(PASSPHRASE.encode())
    is_read(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption), public, PASSPHRASE)


KDFS = ["scrypt", *(f"PBKDF2WithHMAC-SHA{size}" for size in (1, 224, 256, 384, 512))]
CIPHERS = ["AES128-CBC", "AES192-CBC", "AES256-CBC", "AES128-GCM", "AES256-GCM"]


@pytest.mark.parametrize("kdf", KDFS)
@pytest.mark.parametrize("cipher", CIPHERS)
def test_we_read_keys_under_every_documented_derivation_and_cipher(theirs, is_read, kdf, cipher):
    """pycryptodome writes them all; each with another kind of key, X-Wing as well."""
    private, public = theirs[KINDS[(KDFS.index(kdf) + CIPHERS.index(cipher)) % len(KINDS)]]
    oid, inner, _ = PKCS8.unwrap(der_of(private))
    parameters = DerNull() if len(inner) > 100 else None  # RSA alone has some: none, in its own word
    costs = {} if kdf == "scrypt" else {"iteration_count": 2048}
    kept = PKCS8.wrap(inner, oid, PASSPHRASE.encode(), f"{kdf}And{cipher}", costs, parameters)
    is_read(PEM.encode(kept, "ENCRYPTED PRIVATE KEY"), public, PASSPHRASE)


openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl here")


def run_openssl(directory, *arguments):
    done = subprocess.run(["openssl", *arguments], cwd=directory, capture_output=True, timeout=DEADLINE)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode()


GENERATED = {"RSA": ["-pkeyopt", "rsa_keygen_bits:2048"], "X25519": [], "ED25519": []}
ENCRYPTED = {
    "default": ["-v2", "aes-256-cbc"],
    "aes-128": ["-v2", "aes-128-cbc", "-iter", "10000"],
    "sha512": ["-v2", "aes-256-cbc", "-v2prf", "hmacWithSHA512"],
    "sha1": ["-v2", "aes-192-cbc", "-v2prf", "hmacWithSHA1"],
    "scrypt": ["-scrypt"],
    "scrypt with costs": ["-scrypt", "-scrypt_N", "1024", "-scrypt_r", "4", "-scrypt_p", "2"],
}


@openssl
@pytest.mark.parametrize("algorithm", GENERATED)
def test_we_read_what_openssl_writes(is_read, tmp_path, algorithm):
    run_openssl(tmp_path, "genpkey", "-algorithm", algorithm, "-out", "o.pem", *GENERATED[algorithm])
    public = run_openssl(tmp_path, "pkey", "-in", "o.pem", "-pubout")
    is_read((tmp_path / "o.pem").read_text(), public)
    for flags in ENCRYPTED.values():
        kept = run_openssl(tmp_path, "pkcs8", "-topk8", "-in", "o.pem", "-passout", f"pass:{PASSPHRASE}", *flags)
        is_read(kept, public, PASSPHRASE)
    digest = hashlib.sha256(subprocess.run(
        ["openssl", "pkey", "-in", "o.pem", "-pubout", "-outform", "DER"], cwd=tmp_path, capture_output=True, check=True).stdout)
    assert oracle.named(digest.digest()) == kid_of(public), "the command of the documentation"


@openssl
@pytest.mark.parametrize("suite", ["1", "2x", "sign"])
@pytest.mark.parametrize("how", ["plain", "passphrase-file"])
def test_openssl_reads_what_keygen_writes(program, tmp_path, suite, how):
    program("keygen", "--suite", suite, "--out", "keys", *FLAGS[how])
    private, public = sorted((tmp_path / "keys").iterdir())
    given = run_openssl(tmp_path, "pkey", "-in", str(private), "-passin", f"pass:{PASSPHRASE}", "-pubout")
    assert given == public.read_text()


@openssl
def test_weak_protection_is_refused_and_what_helps_is_named(program, tmp_path):
    run_openssl(tmp_path, "genpkey", "-algorithm", "RSA", "-out", "o.pem")
    protections = {
        "pkcs8": ["-topk8", "-in", "o.pem", "-v1", "PBE-SHA1-3DES"],
        "rsa": ["-in", "o.pem", "-aes256", "-traditional"],
        "pkcs8 ": ["-topk8", "-in", "o.pem", "-v2", "des3"],
    }
    for command, flags in protections.items():
        kept = run_openssl(tmp_path, command.strip(), *flags, "-passout", f"pass:{PASSPHRASE}")
        (tmp_path / "weak.pem").write_text(kept)
        (tmp_path / "weak.pem").chmod(0o600)
        said = program("key", "fingerprint", "weak.pem", "--passphrase-file", "passphrase", status=1)
        assert "weak.pem" in said and PASSPHRASE not in said
        assert "openssl" in said, said
        with pytest.raises(ciphermq.KeyFormatError):
            ciphermq.PrivateKey.from_pem(kept, passphrase=PASSPHRASE)


# --- and messages go from one to the other


@pytest.mark.parametrize("kind", ["rsa", "x25519", "xwing"])
def test_what_is_sealed_to_their_key_is_opened_by_both(theirs, kind):
    private, public = theirs[kind]
    envelope = ciphermq.seal("text", ciphermq.PublicKey.from_pem(public))
    assert ciphermq.open_envelope(envelope, ciphermq.PrivateKey.from_pem(private)) == b"text"
    assert check.open_envelope(envelope, [check.Key(private)])["plaintext"] == b"text"
