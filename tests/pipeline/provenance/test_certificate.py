"""Certificates: the run's own, and the user's, with everything that can be wrong about them."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from pipeline.config import SigningSettings
from pipeline.errors import CannotRun
from pipeline.provenance.certificate import OWN, THROW_AWAY, signing, throw_away
from pipeline.provenance.manifest import check
from tests.pipeline.provenance.signers import Key, files


def test_a_run_without_certificate_makes_one_of_its_own() -> None:
    one, other = signing(SigningSettings()), signing(SigningSettings())
    check(one)
    assert (one.kind, one.algorithm) == (THROW_AWAY, "es256")
    assert one.key != other.key and one.run != other.run
    leaf, root = x509.load_pem_x509_certificates(one.chain)
    leaf.verify_directly_issued_by(root)
    assert one.facts()["untrusted"] is True


def test_keys_are_in_no_text() -> None:
    found = throw_away()
    middle = found.key.decode().splitlines()[1]
    assert middle not in repr(found) and middle not in str(found.facts())


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [
        (ec.generate_private_key(ec.SECP256R1()), "es256"),
        (ec.generate_private_key(ec.SECP384R1()), "es384"),
        (ed25519.Ed25519PrivateKey.generate(), "ed25519"),
        (rsa.generate_private_key(65537, 2048), "ps256"),
    ],
    ids=["p256", "p384", "ed25519", "rsa"],
)
def test_keys_of_every_kind_sign(tmp_path: Path, key: Key, algorithm: str) -> None:
    settings, _ = files(tmp_path, key=key)
    found = signing(settings)
    check(found)
    assert (found.kind, found.algorithm) == (OWN, algorithm)
    assert found.facts()["untrusted"] is False
    assert found.facts()["subject"] == "CN=Signer,O=Studio"


def test_a_certificate_that_is_out_of_date_stops_the_run(tmp_path: Path) -> None:
    for days in ((-20, -10), (10, 20)):
        settings, _ = files(tmp_path, days=days)
        with pytest.raises(CannotRun, match=r"signing\.certificate .*signer\.pem: valid from"):
            signing(settings)


def test_a_key_of_another_certificate_stops_the_run(tmp_path: Path) -> None:
    one, _ = files(tmp_path / "one")
    other, _ = files(tmp_path / "other")
    with pytest.raises(CannotRun, match="not the key of the first certificate"):
        signing(SigningSettings(certificate=one.certificate, key=other.key))


def test_a_key_with_a_pass_phrase_stops_the_run(tmp_path: Path) -> None:
    settings, _ = files(tmp_path, phrase=b"open sesame")
    with pytest.raises(CannotRun, match="without a pass phrase"):
        signing(settings)


def test_files_that_are_none_stop_the_run(tmp_path: Path) -> None:
    settings, authorities = files(tmp_path)
    with pytest.raises(CannotRun, match=r"signing\.certificate .*nowhere\.pem: can't be read: No such file"):
        signing(SigningSettings(certificate=str(tmp_path / "nowhere.pem"), key=settings.key))
    (tmp_path / "text.pem").write_text("hello")
    with pytest.raises(CannotRun, match="expected a certificate in PEM"):
        signing(SigningSettings(certificate=str(tmp_path / "text.pem"), key=settings.key))
    with pytest.raises(CannotRun, match="expected a private key in PEM"):
        signing(SigningSettings(certificate=settings.certificate, key=str(authorities)))


def test_a_certificate_that_c2pa_refuses_stops_the_run(tmp_path: Path) -> None:
    settings, _ = files(tmp_path, usage=False)
    with pytest.raises(CannotRun, match=r"C2PA can't sign with it.*emailProtection"):
        check(signing(settings))


def test_both_files_or_none() -> None:
    with pytest.raises(ValueError, match="expected both certificate and key, or neither"):
        SigningSettings(certificate="a.pem")
