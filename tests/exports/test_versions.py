"""Versions of exports: pushed, rolled back, pruned, labelled, signed, read."""

import multiprocessing
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import time

import pytest

from lca_keras.base import files
from lca_keras.base.errors import UserError
from lca_keras.export import main
from lca_keras.exports import integrity, labels, versions

FILES = {
    "saved_model.pb": "graph",
    "variables/variables.index": "index",
    "variables/variables.data-00000-of-00001": "weights of {0}",
    "labels.txt": "Ada Quill\nBjörn Talvik\n",
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def made(folder, content):
    """A folder like an export's, with sums."""
    for name, text in FILES.items():
        path = pathlib.Path(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.format(content), encoding="utf-8")
    integrity.write_sums(folder)
    return pathlib.Path(folder)


def content(folder):
    """What was given to `made`."""
    path = pathlib.Path(folder, "variables/variables.data-00000-of-00001")
    return path.read_text(encoding="utf-8").removeprefix("weights of ")


def pushed(model, *contents):
    """A model's folder with versions of some contents."""
    for each in contents:
        versions.push(made(f"candidate {each}", each), model)
    return pathlib.Path(model)


def export(*words):
    """Exit code of `python -m lca_keras.export`."""
    return main(list(map(str, words)))


# === Sums ===


def test_sums_are_those_of_sha256sum(here):
    folder = made("an export", "a")
    command = ["sha256sum", "--check", "--strict", "SHA256SUMS"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(": OK") == len(FILES)
    assert integrity.check(folder)


def test_what_is_not_as_it_was_is_named(here):
    folder = made("m", "a")
    (folder / "labels.txt").write_text("Somebody else\n")
    (folder / "variables/variables.index").unlink()
    (folder / "assets.extra").mkdir()
    (folder / "assets.extra/late").touch()
    expected = (
        "m: not as it was exported, by its SHA256SUMS: assets.extra/late is not of it, "
        "labels.txt was changed, variables/variables.index is missing"
    )
    with pytest.raises(UserError, match=re.escape(expected)):
        integrity.check(folder)
    (folder / "SHA256SUMS").write_text("")
    with pytest.raises(UserError, match="SHA256SUMS is damaged"):
        integrity.check(folder)
    (folder / "SHA256SUMS").unlink()
    with pytest.raises(UserError, match="m: not a whole export, it has no SHA256SUMS"):
        integrity.check(folder)


# === Pushes ===


def test_pushes_count_up_and_say_where_from(here):
    model = pushed("models/m", "a", "b")
    assert versions.versions(model) == [1, 2]
    assert [content(model / n) for n in "12"] == ["a", "b"]
    history = versions.history_of(model / "2")
    assert history["from"] == str(here / "candidate b")
    assert set(history) == {"pushed", "host", "from"}
    assert integrity.check(model / "2")


def test_a_changed_export_is_not_pushed(here):
    candidate = made("candidate", "a")
    (candidate / "saved_model.pb").write_text("another graph")
    with pytest.raises(UserError, match="candidate: not as it was exported"):
        versions.push(candidate, "models/m")
    assert versions.versions("models/m") == []


def test_a_full_disk_leaves_nothing_half_pushed(here, monkeypatch):
    model = pushed("models/m", "a")

    def fill(path):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(files, "sync", fill)
    with pytest.raises(OSError, match="No space left"):
        pushed("models/m", "b")
    assert sorted(os.listdir(model)) == [".lock", "1"]


def test_what_killed_processes_left_is_cleared_and_the_living_are_not(here):
    model = pushed("models/m", "a")
    program = (
        "import os, signal, sys\n"
        "from lca_keras.export import versions\n"
        "with versions.staging(sys.argv[1]) as folder:\n"
        "    (folder / 'half').touch()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", program, model])
    assert killed.returncode == -signal.SIGKILL
    assert len(list(model.glob(".export-*/half"))) == 1
    with versions.staging(model) as mine:
        assert list(model.glob(".export-*")) == [mine]
        with versions.staging(model) as another:
            assert mine.is_dir()
            assert another.is_dir()
    assert sorted(os.listdir(model)) == [".lock", "1"]


def _push_many(model, name, count):
    for number in range(count):
        versions.push(made(f"candidate {name} {number}", f"{name} {number}"), model)


def test_pushes_at_the_same_time_do_not_collide(here):
    context = multiprocessing.get_context("spawn")
    workers = [
        context.Process(target=_push_many, args=("models/m", name, 8)) for name in "ab"
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    found = [content(f"models/m/{number}") for number in range(1, 17)]
    for name in "ab":  # All of them, each process's in its order.
        mine = [each for each in found if each.startswith(name)]
        assert mine == [f"{name} {number}" for number in range(8)]


def test_object_stores_get_the_graph_last(here, monkeypatch):
    import tensorflow as tf

    copied = []
    copy = tf.io.gfile.copy

    def watch(source, target, overwrite):
        copied.append(target)
        copy(source, target, overwrite=overwrite)

    monkeypatch.setattr(tf.io.gfile, "copy", watch)
    candidate = made("candidate", "a")
    for number in (1, 2):
        assert export("push", "m", candidate, "--exports", "ram://models") == 0
        place = f"ram://models/m/{number}"
        assert copied[-1] == f"{place}/saved_model.pb"
        with tf.io.gfile.GFile(f"{place}/variables/variables.index") as file:
            assert file.read() == "index"
    assert versions.versions_in_store("ram://models/m") == [1, 2]
    assert len(copied) == 2 * (len(FILES) + 1)


# === Rolled back ===


def test_rolling_back_goes_a_step_further_each_time(here):
    model = pushed("models/m", "a", "b", "c")
    path, version = versions.roll_back(model)
    assert (path.name, version, content(path)) == ("4", 2, "b")
    path, version = versions.roll_back(model)
    assert (path.name, version, content(path)) == ("5", 1, "a")
    with pytest.raises(
        UserError,
        match=r"version 5 is live, and nothing older .* 1 was.* which: 1, 2, 3, 4",
    ):
        versions.roll_back(model)
    path, version = versions.roll_back(model, 4)
    assert (path.name, content(path)) == ("6", "b")
    assert versions.history_of(path)["restored"] == 2
    assert versions.versions(model) == [1, 2, 3, 4, 5, 6]


def test_the_one_before_a_restored_version_is_that_of_its_original(here):
    model = pushed("models/m", "a", "b", "c")
    versions.roll_back(model)
    assert versions.prune(model, 1, spare=[1], grace=0) == ([2, 3], [1])
    path, version = versions.roll_back(model)
    assert (version, content(path)) == (1, "a")  # Not 3, which was taken back.


# === Pruned ===


def test_old_versions_are_pruned_and_the_newest_stay(here):
    model = pushed("models/m", *"abcde")
    (model / "draft").mkdir()
    assert versions.prune(model, 2, spare=[2], grace=0) == ([1, 3], [2])
    assert versions.prune(model, 7, grace=0) == ([], [])
    assert versions.versions(model) == [2, 4, 5]
    assert sorted(os.listdir(model)) == [".lock", "2", "4", "5", "draft"]
    with pytest.raises(ValueError, match="keep=0"):
        versions.prune(model, 0)


def test_a_version_that_was_live_just_now_is_not_pruned(here):
    model = pushed("models/m", *"abc")
    assert versions.prune(model, 1) == ([], [1, 2])
    minutes_ago = time.time() - 2 * versions.GRACE_SECONDS
    os.utime(model / "2" / integrity.PUSHED, (minutes_ago, minutes_ago))
    assert versions.prune(model, 1) == ([1], [2])  # 2 has been followed just now.


# === Labels ===


def test_labels_are_a_model_config_of_tf_serving(here):
    from google.protobuf import text_format
    from tensorflow_serving.config import model_server_config_pb2

    candidate = made("candidate", "a")
    assert export("push", "älter", candidate, "--exports", "models") == 0
    assert export("push", "m", candidate, "--exports", "models") == 0
    again = ["push", "m", candidate, "--exports", "models"]
    assert export(*again, "--canary", "--base-path", "/models/") == 0
    config = model_server_config_pb2.ModelServerConfig()
    text_format.Parse(pathlib.Path("models/models.config").read_text("utf-8"), config)
    older, model = config.model_config_list.config
    assert older.name == "älter"
    assert older.base_path == str(here / "models" / "älter")
    assert (model.name, model.base_path) == ("m", "/models/m")
    assert model.model_platform == "tensorflow"
    assert dict(model.version_labels) == {"stable": 1, "canary": 2}
    assert model.model_version_policy.specific.versions == [1, 2]


def test_labels_follow_pushes_and_roll_backs(here, capsys):
    model = pathlib.Path("saved_models/m")
    candidate = made("candidate", "a")
    for canary in ([], [], ["--canary"]):
        assert export("push", "m", candidate, *canary) == 0
    assert labels.labels_of(model) == {"stable": 2, "canary": 3}
    assert export("label", "m", "stable", "3") == 0
    assert export("label", "m", "canary", "none") == 0
    assert labels.labels_of(model) == {"stable": 3}
    assert export("push", "m", candidate, "--canary") == 0
    assert export("rollback", "m") == 0
    assert labels.labels_of(model) == {"stable": 5}
    assert export("label", "m", "canary", "9") == 1
    assert export("label", "m", "canary", "newest") == 1
    error = capsys.readouterr().err
    assert "no version 9; available: [1, 2, 3, 4, 5]" in error
    assert "'newest': a version's number, or none" in error
    assert export("prune", "m", "--keep", "1", "--grace", "0") == 0
    assert versions.versions(model) == [5]


def test_a_version_with_a_label_is_not_pruned(here, capsys):
    candidate = made("candidate", "a")
    for canary in ([], ["--canary"], ["--canary"]):
        assert export("push", "m", candidate, *canary) == 0
    assert export("prune", "m", "--keep", "1", "--grace", "0") == 0
    assert versions.versions("saved_models/m") == [1, 3]
    out = capsys.readouterr().out
    assert "deleted 2" in out
    assert "kept 1: it has a label" in out


def test_a_damaged_model_config_is_named(here, capsys):
    pushed("saved_models/m", "a")
    pathlib.Path("saved_models/models.config").write_text("model_config_list {")
    assert export("label", "m", "stable", "1") == 1
    assert "models.config is no model config of TF Serving" in capsys.readouterr().err


# === The command ===


def test_versions_are_listed_with_what_there_is_to_say(here, capsys):
    candidate = made("candidate", "a")
    for _ in range(2):
        assert export("push", "m m", candidate) == 0
    assert export("rollback", "m m") == 0
    changed = pathlib.Path("saved_models/m m/2/labels.txt")
    changed.write_text("nobody\n")
    capsys.readouterr()
    assert export("list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "saved_models/m m"
    assert re.match(r" +1  pushed 20\S+ on \S+, whole$", lines[1])
    assert "NOT AS IT WAS: " in lines[2]
    assert re.match(r" +3  live  stable, pushed .*restored from 1, whole$", lines[3])
    assert export("list", "nobody") == 1
    assert "saved_models/nobody: no exported model" in capsys.readouterr().err
    assert export("list", "--exports", "nowhere") == 1


# === Signatures ===


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """Folder with a pair of keys, another public one, and certificates."""
    pytest.importorskip("model_signing")
    import datetime

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    folder = tmp_path_factory.mktemp("keys")

    def write(name, content):
        (folder / name).write_bytes(content)

    pem = serialization.Encoding.PEM
    pkcs8 = serialization.PrivateFormat.PKCS8
    public = serialization.PublicFormat.SubjectPublicKeyInfo
    made = {}
    for name in ("own", "other", "root"):
        made[name] = key = ec.generate_private_key(ec.SECP256R1())
        plain = serialization.NoEncryption()
        write(f"{name}.pem", key.private_bytes(pem, pkcs8, plain))
        locked = serialization.BestAvailableEncryption(b"open sesame")
        write(f"{name}-locked.pem", key.private_bytes(pem, pkcs8, locked))
        write(f"{name}.pub", key.public_key().public_bytes(pem, public))

    def name_of(common):
        return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common)])

    def certificate(subject, issuer):
        now = datetime.datetime.now(datetime.timezone.utc)
        key = made[subject].public_key()
        authority = subject == "root"
        usage = x509.KeyUsage(
            digital_signature=not authority,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            key_cert_sign=authority,
            crl_sign=authority,
            encipher_only=False,
            decipher_only=False,
        )
        signing = [x509.oid.ExtendedKeyUsageOID.CODE_SIGNING]
        builder = (
            x509.CertificateBuilder()
            .subject_name(name_of(subject))
            .issuer_name(name_of(issuer))
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=9))
            .add_extension(x509.BasicConstraints(authority, None), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(
                    made[issuer].public_key()
                ),
                critical=False,
            )
        )
        if not authority:
            builder = builder.add_extension(x509.ExtendedKeyUsage(signing), False)
        signed = builder.sign(made[issuer], hashes.SHA256())
        write(f"{subject}.crt", signed.public_bytes(pem))

    certificate("root", "root")
    certificate("own", "root")
    certificate("other", "other")
    return folder


def test_signatures_go_along_with_copies(here, keys, capsys):
    candidate = made("candidate", "a")
    assert export("push", "m", candidate) == 0
    assert export("verify", "m", "--key", keys / "own.pub") == 1
    assert "saved_models/m/1: not signed" in capsys.readouterr().err
    assert export("sign", "m", "--key", keys / "own.pem") == 0
    assert export("verify", "m", "--key", keys / "own.pub") == 0
    assert export("push", "m", candidate) == 0
    assert export("rollback", "m", "1") == 0
    assert export("verify", "m", "--key", keys / "own.pub") == 0  # Of version 3.
    assert export("verify", "m", "--version", "2", "--key", keys / "own.pub") == 1
    capsys.readouterr()
    assert export("verify", "m", "--key", keys / "other.pub") == 1
    assert "saved_models/m/3: cannot be verified" in capsys.readouterr().err
    # Sums that were written anew after a change do not help.
    weights = pathlib.Path("saved_models/m/3/variables/variables.data-00000-of-00001")
    weights.write_text("weights of somebody")
    integrity.write_sums("saved_models/m/3")
    assert export("verify", "m", "--key", keys / "own.pub") == 1
    assert "variables.data-00000-of-00001" in capsys.readouterr().err


def test_keys_with_passwords_and_certificates(here, keys, monkeypatch, capsys):
    pushed("saved_models/m", "a")
    locked = ["sign", "m", "--key", keys / "own-locked.pem"]
    assert export(*locked) == 1
    assert "saved_models/m/1: cannot be signed: " in capsys.readouterr().err
    monkeypatch.setenv("LCA_KERAS_KEY_PASSWORD", "open sesame")
    assert export(*locked) == 0
    monkeypatch.delenv("LCA_KERAS_KEY_PASSWORD")
    assert export("verify", "m", "--key", keys / "own.pub") == 0
    certificate = ["--certificate", keys / "own.crt", "--chain", keys / "root.crt"]
    assert export("sign", "m", "--key", keys / "own.pem", *certificate) == 0
    assert export("verify", "m", "--chain", keys / "root.crt") == 0
    assert export("verify", "m", "--chain", keys / "other.crt") == 1
    assert export("verify", "m") == 0
    assert "was not checked" in capsys.readouterr().out


# === Read meanwhile ===


def _push_for_ever(candidate, model):
    while True:
        versions.push(candidate, model)


@pytest.mark.slow
def test_readers_never_see_half_a_version(here):
    """200 pushes with kills and roll-backs in between, and somebody who loads."""
    import tensorflow as tf

    def exported(name, value):
        module = tf.Module()
        module.value = tf.Variable(tf.fill([1000], value))
        tf.saved_model.save(module, name)
        integrity.write_sums(name)
        return name

    def load(folder):
        assert integrity.check(folder)
        return float(tf.saved_model.load(os.fspath(folder)).value[-1])

    model = pathlib.Path("models/m")
    versions.push(exported("first", 1.0), model)
    candidate = exported("candidate", 2.0)
    context = multiprocessing.get_context("fork")
    draw = random.Random(0)
    kills = reads = 0
    while versions.versions(model)[-1] < 200 or kills < 20:
        worker = context.Process(target=_push_for_ever, args=(candidate, model))
        worker.start()
        end = time.monotonic() + draw.uniform(0.2, 0.6)
        while time.monotonic() < end:
            assert load(versions.find_version(model)) in (1.0, 2.0)
            reads += 1
        os.kill(worker.pid, signal.SIGKILL)
        worker.join()
        kills += 1
        back, _ = versions.roll_back(model, 1)
        assert versions.find_version(model) == back
        assert load(back) == 1.0
        versions.prune(model, 50)  # Nothing: all of them are younger than a minute.
    assert versions.versions(model)[0] == 1
    assert reads > 100
    numbers = versions.versions(model)
    assert numbers == list(range(1, len(numbers) + 1))
    for number in numbers:
        assert integrity.check(model / str(number))
    with versions.staging(model):
        pass
    assert not list(model.glob(".export-*"))
