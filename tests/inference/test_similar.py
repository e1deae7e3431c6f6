"""Songs whose voices are alike: an index that is built once, and asked."""

import dataclasses
import json
import os
import pathlib
import shutil

import numpy as np
import pytest
import soundfile

from lca_keras import similar
from lca_keras.exports.export import with_gallery
from lca_keras.inference.identification import Identifier
from lca_keras.voices import index as voices
from tests.exports.material import clips_of, song, voiceprints_of


@pytest.fixture
def music(tmp_path, monkeypatch):
    """Songs of four kinds, and a noise, in a folder."""
    monkeypatch.chdir(tmp_path)
    folder = pathlib.Path('Ōno\'s "songs"')
    folder.mkdir()
    for seed in (1, 2, 11, 12, 21, 22, 31, 32):
        soundfile.write(folder / f"{seed:02d}.wav", song(7.0, seed), 16000, "FLOAT")
    hiss = np.random.default_rng(0).normal(0, 0.1, 16000 * 7)
    soundfile.write(folder / "hiss.wav", hiss, 16000, "FLOAT")
    return folder


def test_the_most_similar_come_first(
    exported_with_gallery, music, network, gallery, capsys
):
    asked = str(music / "01.wav")
    command = ["--model", str(exported_with_gallery), "--json"]
    assert similar.main([*command, asked, "--among", str(music), "--top", "20"]) == 1
    out, err = capsys.readouterr()
    assert "hiss.wav: no voice is heard in it" in err
    found = json.loads(out)
    assert os.path.abspath(asked) not in [each["song"] for each in found]
    assert len(found) == 7

    def direction(seed):
        prints = voiceprints_of(network, clips_of(song(7.0, seed)))
        moved = (prints.mean(axis=0) - gallery.center) @ gallery.projection
        return moved / np.linalg.norm(moved)

    for each in found:
        seed = int(pathlib.Path(each["song"]).stem)
        expected = direction(1) @ direction(seed)
        assert each["similarity"] == pytest.approx(expected, abs=1e-3)
        assert len(each["passages"]) == 2  # Of two clips, each once.
        assert len({p["start"] for p in each["passages"]}) == 2
    order = [each["similarity"] for each in found]
    assert order == sorted(order, reverse=True)


def test_an_index_is_extended_and_asked(
    exported_with_gallery, music, monkeypatch, capsys
):
    model = ["--model", str(exported_with_gallery)]
    (music / "hiss.wav").unlink()
    index = ["--index", "voices.npz"]
    assert similar.main([*model, "--among", str(music), *index]) == 0
    assert "8 songs in voices.npz" in capsys.readouterr().err
    whole = pathlib.Path("voices.npz").read_bytes()
    # One has changed, one is new: those are heard, and no other.
    soundfile.write(music / "02.wav", song(8.0, 3), 16000, "FLOAT")
    soundfile.write(music / "99.wav", song(7.0, 1), 16000, "FLOAT")
    heard, ask = [], voices.song_voice
    monkeypatch.setattr(
        voices, "song_voice", lambda i, p, v=None: heard.append(p) or ask(i, p, v)
    )
    more = [*model, "--among", str(music), *index, "--workers", "1"]
    assert similar.main(more) == 0
    changed = [str(music.absolute() / name) for name in ("02.wav", "99.wav")]
    assert sorted(heard) == changed
    assert "9 songs in voices.npz" in capsys.readouterr().err
    # The copy of a song is the most like it.
    asked = str(music / "01.wav")
    assert similar.main([*model, asked, *index, "--top", "1"]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f" 1.000  {music.absolute() / '99.wav'}\n")
    assert "most alike at 0:0" in said
    # From another folder it is the same index; what is damaged now is left out.
    (music / "99.wav").write_bytes(b"RIFF")
    monkeypatch.chdir(music)
    heard.clear()
    again = ["--among", ".", "--index", "../voices.npz", "--workers", "1"]
    assert similar.main([*model, *again]) == 1
    said = capsys.readouterr().err
    assert heard == [str(pathlib.Path("99.wav").absolute())]
    assert "8 songs in ../voices.npz" in said
    monkeypatch.chdir("..")
    pathlib.Path("voices.npz").write_bytes(whole[:-200])
    assert similar.main([*model, asked, *index]) == 1
    assert "voices.npz is no index of voices" in capsys.readouterr().err


@pytest.mark.slow
def test_an_index_of_another_model(
    exported_with_gallery, music, tmp_path, network, gallery, capsys
):
    model = tmp_path / "models" / "m"
    shutil.copytree(exported_with_gallery, model / "1")
    song_path = str(music / "01.wav")
    index = voices.VoiceIndex(
        voices.model_of(Identifier(model / "1")), tmp_path / "i.npz"
    )
    voice = voices.song_voice(Identifier(model / "1"), song_path)
    index.add(song_path, voice)
    index.save()
    again = voices.VoiceIndex(index.model, tmp_path / "i.npz")
    np.testing.assert_array_equal(again.voices[song_path].clips, voice.clips)
    np.testing.assert_array_equal(again.voices[song_path].starts, voice.starts)
    # Somebody is enrolled: the voices can be compared as before.
    with_gallery(model / "1", gallery.with_singer("X", gallery.center[None] + 1))
    command = ["--model", str(model), song_path, "--index", str(tmp_path / "i.npz")]
    assert similar.main(command) == 0
    assert "no other songs" in capsys.readouterr().out
    # Another network's cannot.
    other = dataclasses.replace(gallery, projection=gallery.projection * 2)
    with_gallery(model / "2", other)
    assert similar.main(command) == 1
    assert "is an index of open " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["01.wav"], "say where to look"),
        (["01.wav", "--index", "no.npz"], "no.npz is not there"),
        (["--among", "."], "give a song"),
        (["01.wav", "--among", ".", "--index", "i.csv"], "has to end in .npz"),
        (["01.wav", "--among", ".", "--index", "no/i.npz"], "no such folder"),
        (["01.wav", "--among", ".", "--top", "0"], "--top must be at least 1"),
        (["hiss.wav", "--among", "."], "hiss.wav: no voice is heard in it"),
        (["none.wav", "--among", "."], "none.wav: cannot be read"),
    ],
)
def test_what_cannot_be_looked_for(
    exported_with_gallery, music, monkeypatch, arguments, message, capsys
):
    monkeypatch.chdir(music)
    assert similar.main(["--model", str(exported_with_gallery), *arguments]) == 1
    assert message in capsys.readouterr().err
    assert not [name for name in os.listdir(".") if name.endswith(".npz")]


def test_a_model_without_voiceprints(exported, music, capsys):
    song_path = str(music / "01.wav")
    command = ["--model", str(exported), song_path, "--among", str(music)]
    assert similar.main(command) == 1
    assert "this model has no voiceprints" in capsys.readouterr().err
