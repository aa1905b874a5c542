"""Certificates: the user's own, or one that a run makes for itself and throws away."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from pipeline.config import SigningSettings
from pipeline.errors import CannotRun

THROW_AWAY, OWN = "throw-away", "certificate"
THROW_AWAY_NAME = "imtalker (throw-away certificate)"
"""Organisation in the certificates that runs make."""
_BEFORE, _AFTER = timedelta(days=1), timedelta(days=3650)
"""Machines' clocks differ; and without a time stamp a signature is good for as long as its certificate."""
_CURVES = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}


@dataclass(frozen=True)
class Signing:
    """What a worker needs to sign: handed to it in memory, never stored."""

    run: str
    """Names the run in its videos' manifests."""
    kind: str
    """`THROW_AWAY`, or `OWN` for the user's."""
    algorithm: str
    """As C2PA names it."""
    chain: bytes
    """PEM: the signer's certificate, then those that vouch for it."""
    key: bytes = field(repr=False)
    """PEM."""

    def facts(self) -> dict[str, Any]:
        """For records: who signs. Nothing secret, and no paths."""
        certificate = x509.load_pem_x509_certificate(self.chain)
        return {
            "signed_by": self.kind,
            "untrusted": self.kind == THROW_AWAY,
            "subject": certificate.subject.rfc4514_string(),
            "certificate_sha256": certificate.fingerprint(SHA256()).hex(),
            "run": self.run,
        }


def signing(settings: SigningSettings) -> Signing:
    """The user's certificate and key, or a new certificate for this run. Raises CannotRun for files that can't sign."""
    if settings.certificate is None or settings.key is None:
        return throw_away()
    chain, key = _read(settings.certificate, "certificate"), _read(settings.key, "key")
    return Signing(uuid.uuid4().hex, OWN, _algorithm(chain, key, settings), chain, key)


def throw_away() -> Signing:
    """A certificate authority and a certificate by it (ECDSA on P-256), of which only the latter's key is kept."""
    run = uuid.uuid4().hex
    authority, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issuer, subject = _name(f"authority of run {run}"), _name(f"run {run}")
    root = (
        _certificate(issuer, issuer, authority.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(key_cert_sign=True), critical=True)
        .sign(authority, SHA256())
    )
    leaf = (
        _certificate(subject, issuer, key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()), critical=False)
        .sign(authority, SHA256())
    )
    chain = b"".join(certificate.public_bytes(Encoding.PEM) for certificate in (leaf, root))
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return Signing(run, THROW_AWAY, "es256", chain, secret)


def _name(common: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, THROW_AWAY_NAME),
            x509.NameAttribute(NameOID.COMMON_NAME, common),
        ]
    )


def _certificate(
    subject: x509.Name, issuer: x509.Name, public_key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BEFORE)
        .not_valid_after(now + _AFTER)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


_usage = partial(
    x509.KeyUsage,
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=False,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)


def _read(path: str, what: str) -> bytes:
    try:
        return Path(path).expanduser().read_bytes()
    except OSError as exc:
        raise CannotRun(f"signing.{what} {path}: can't be read: {exc.strerror}") from exc


def _algorithm(chain: bytes, key: bytes, settings: SigningSettings) -> str:
    """C2PA's name of how the key signs. Raises CannotRun if the two files don't belong together or are out of date."""
    try:
        certificate = x509.load_pem_x509_certificate(chain)
    except ValueError as exc:
        raise CannotRun(f"signing.certificate {settings.certificate}: expected a certificate in PEM: {exc}") from exc
    try:
        private = load_pem_private_key(key, None)
    except (ValueError, TypeError) as exc:
        raise CannotRun(
            f"signing.key {settings.key}: expected a private key in PEM without a pass phrase: {exc}"
        ) from exc
    now = datetime.now(UTC)
    if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
        raise CannotRun(
            f"signing.certificate {settings.certificate}: valid from {certificate.not_valid_before_utc} to "
            f"{certificate.not_valid_after_utc}, but it is {now:%Y-%m-%d %H:%M:%S} UTC: give one that is valid"
        )
    encoded = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if private.public_key().public_bytes(*encoded) != certificate.public_key().public_bytes(*encoded):
        raise CannotRun(
            f"signing.key {settings.key}: not the key of the first certificate in {settings.certificate}; the "
            "signer's own certificate comes first, then its chain"
        )
    return _named(private, settings)


def _named(private: PrivateKeyTypes, settings: SigningSettings) -> str:
    if isinstance(private, ec.EllipticCurvePrivateKey) and private.curve.name in _CURVES:
        return _CURVES[private.curve.name]
    if isinstance(private, ed25519.Ed25519PrivateKey):
        return "ed25519"
    if isinstance(private, rsa.RSAPrivateKey):
        return "ps256"
    raise CannotRun(
        f"signing.key {settings.key}: expected ECDSA on P-256, P-384 or P-521, Ed25519 or RSA, found "
        f"{type(private).__name__}"
    )
