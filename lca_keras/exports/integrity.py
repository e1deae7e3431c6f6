"""Whether an export is as it was made: SHA-256 sums of its files, and a signature.

`SHA256SUMS` is what `sha256sum -c SHA256SUMS` reads; it names every file of a version
but the three that come after it. A signature is that of the `model-signing` package,
which its own command verifies too.
"""

import contextlib
import pathlib

from lca_keras.base import files
from lca_keras.base.errors import UserError

SUMS = "SHA256SUMS"
SIGNATURE = "model.sig"
PUSHED = "pushed.json"
# They tell about the other files, and come after these.
_OUTSIDE = (SUMS, SIGNATURE, PUSHED)


def write_sums(folder):
    """Writes the sums of all files of an export."""
    lines = [f"{value}  {name}\n" for name, value in _sums(folder).items()]
    pathlib.Path(folder, SUMS).write_text("".join(lines), encoding="utf-8")


def check(folder):
    """Compares a version's folder with its sums, and returns them.

    Raises:
        UserError: Files were changed, are missing, or came later; or no sums are there.
        OSError: A file cannot be read.
    """
    expected, found = read_sums(folder), _sums(folder)
    problems = []
    for name in sorted(expected.keys() | found.keys()):
        if name not in found:
            problems.append(f"{name} is missing")
        elif name not in expected:
            problems.append(f"{name} is not of it")
        elif found[name] != expected[name]:
            problems.append(f"{name} was changed")
    if problems:
        raise UserError(
            f"{folder}: not as it was exported, by its {SUMS}: {', '.join(problems)}. "
            "Export it again, or take another version"
        )
    return expected


def read_sums(folder):
    """Dict from file name to its sum as recorded; a `UserError` if it is damaged."""
    path = pathlib.Path(folder, SUMS)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise UserError(f"{folder}: not a whole export, it has no {SUMS}") from error
    pairs = [line.split("  ", 1) for line in lines]
    if not pairs or any(len(pair) != 2 or len(pair[0]) != 64 for pair in pairs):
        raise UserError(f"{path} is damaged: expected lines of a sum and a file name")
    return {name: value for value, name in pairs}


def _sums(folder):
    """Dict from the name of each file below a folder to the sum of its content."""
    found = {}
    for path in sorted(pathlib.Path(folder).rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name not in _OUTSIDE:
            found[name] = files.sha256(path)
    return found


# === Signatures ===


def sign(folder, key, password=None, certificate=None, chain=()):
    """Signs a version's folder; leaves `model.sig` in it.

    Args:
        folder: The folder, whole by its sums.
        key: PEM file of a private key on an elliptic curve.
        password: Optional string that opens the key.
        certificate: Optional PEM file of the signing certificate of that key.
        chain: PEM files of the certificates above it.
    """
    check(folder)
    with _model_signing("signed", folder) as package:
        settings = package.signing.Config()
        if certificate is None:
            password = password.encode() if password else None
            settings.use_elliptic_key_signer(private_key=key, password=password)
        elif password is not None:
            raise UserError("with a certificate the private key has no password")
        else:
            settings.use_certificate_signer(
                private_key=key,
                signing_certificate=certificate,
                certificate_chain=chain,
            )
        hashing = package.hashing.Config()
        hashing.set_ignored_paths(paths=[SIGNATURE, PUSHED])
        settings.set_hashing_config(hashing)
        settings.sign(pathlib.Path(folder), pathlib.Path(folder, SIGNATURE))


def verify(folder, key=None, chain=()):
    """Raises a `UserError` for a version that was changed or is not signed so.

    `key` is a PEM file of the public key, or `chain` those of trusted certificates.
    """
    check(folder)
    path = pathlib.Path(folder, SIGNATURE)
    if not path.exists():
        raise UserError(f"{folder}: not signed. `python -m lca_keras.export sign` does")
    with _model_signing("verified", folder) as package:
        settings = package.verifying.Config()
        if key is not None:
            settings.use_elliptic_key_verifier(public_key=key)
        else:
            settings.use_certificate_verifier(certificate_chain=chain)
        settings.verify(pathlib.Path(folder), path)


@contextlib.contextmanager
def _model_signing(done, folder):
    """The package, and its errors as ours."""
    try:
        import model_signing
    except ImportError as error:
        raise UserError(
            "signatures need model-signing: pip install 'lca-keras[signing]'"
        ) from error
    try:
        yield model_signing
    except UserError:
        raise
    except Exception as error:  # Of many kinds: OpenSSL's, sigstore's, its own.
        reason = str(error) or type(error).__name__
        raise UserError(f"{folder}: cannot be {done}: {reason}") from error
