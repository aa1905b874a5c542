"""Certificates of users, as a test wants them, and a record of an item."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from pipeline.config import SigningSettings
from pipeline.ledger import Record
from pipeline.provenance.certificate import _usage
from pipeline.tasks import Input

Key = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey

RECORD = Record(
    id="one",
    index=0,
    status="ok",
    seed=2**62 + 1,
    fingerprint="f" * 64,
    model="imtalker-tiny",
    weights="random",
    weights_sha256={"renderer": "a" * 64},
    inputs={
        "image": Input(uri="/home/ana/secret/ana.png", size=1, sha256="1" * 64),
        "audio": Input(uri="s3://secret/a.wav", size=1, sha256="2" * 64),
    },
    settings={"label": "eu", "nfe": 10},
    consent="form 7",
    version="1.2.3",
)


def files(
    folder: Path,
    *,
    key: Key | None = None,
    days: tuple[int, int] = (-1, 30),
    usage: bool = True,
    phrase: bytes | None = None,
) -> tuple[SigningSettings, Path]:
    """A certificate by an authority of its own and its key, as files; and the authority's certificate."""
    authority = ec.generate_private_key(ec.SECP256R1())
    key = key or ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Authority")])
    subject = x509.Name(
        [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Studio"), x509.NameAttribute(NameOID.COMMON_NAME, "Signer")]
    )
    now = datetime.now(UTC)

    def builder(name: x509.Name, start: int, end: int) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(issuer)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + timedelta(days=start))
            .not_valid_after(now + timedelta(days=end))
        )

    root = (
        builder(issuer, -100, 100)
        .public_key(authority.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(_usage(key_cert_sign=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(authority.public_key()), critical=False)
        .sign(authority, SHA256())
    )
    leaf = (
        builder(subject, *days)
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()), critical=False)
    )
    if usage:
        leaf = leaf.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
    folder.mkdir(parents=True, exist_ok=True)
    certificate, secret, authorities = folder / "signer.pem", folder / "signer.key", folder / "authority.pem"
    pem = [found.public_bytes(Encoding.PEM) for found in (leaf.sign(authority, SHA256()), root)]
    certificate.write_bytes(b"".join(pem))
    authorities.write_bytes(pem[1])
    encryption = BestAvailableEncryption(phrase) if phrase else NoEncryption()
    secret.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
    return SigningSettings(certificate=str(certificate), key=str(secret)), authorities
