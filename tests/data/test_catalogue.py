import os

import mutagen
import numpy as np
import pytest
import soundfile

from lca_keras.base.errors import UserError
from lca_keras.data import catalogue, split
from tests.audio.encoders import encode
from tests.audio.signals import music

NAMES = ("Sigur Rós", "Ágætis 'byrjun'", 'Svefn "g" englar 🎵 ..')


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")


def test_tree_with_any_names(tmp_path):
    touch(tmp_path / NAMES[0] / NAMES[1] / f"{NAMES[2]}.MP3")
    touch(tmp_path / "春野" / "a" / "b.flac")
    songs = catalogue.load(tmp_path)
    assert [(s.artist, s.album, s.song) for s in songs] == [NAMES, ("春野", "a", "b")]
    assert all(song.path.exists() for song in songs)


def test_every_audio_file_is_listed_or_left_out(tmp_path):
    listed = ["a/b/c.wav", "a/b/d.M4A", "a/b/CD 1/e.opus", "a/b/disc2/e.wma"]
    left_out = {
        "single.mp3": "in no folder of an album",
        "a/loose.wav": "in no folder of an album",
        "a/b/._c.wav": "hidden",
        "a/b/live/deep.wav": "too deep",
        "a/b/CD1/x/deeper.wav": "too deep",
        ".trash/b/c.wav": "hidden",
        "a/\N{NO-BREAK SPACE}/c.wav": "a name of it is blank",
    }
    no_audio = ["cover.jpg", "a/readme.txt", "a/b/notes.txt", "a/b/list.m3u8"]
    for name in (*listed, *left_out, *no_audio):
        touch(tmp_path / name)
    reasons = {}
    songs = catalogue.load(tmp_path, left_out=reasons)
    assert [s.path for s in songs] == [tmp_path / name for name in sorted(listed)]
    assert {s.album for s in songs} == {"b"}
    assert [s.song for s in songs] == ["CD 1 e", "c", "d", "disc2 e"]
    assert set(reasons) == {str(tmp_path / name) for name in left_out}
    for name, reason in left_out.items():
        assert reason in reasons[str(tmp_path / name)]


@pytest.mark.parametrize(
    ("folder", "album", "song"),
    [
        ("Album CD1", "Album", "CD1 x"),
        ("Album (Disc 2)", "Album", "Disc 2 x"),
        ("Album - disk 10", "Album", "disk 10 x"),
        ("Album [CD_2]", "Album", "CD_2 x"),
        ("The Dark Side", "The Dark Side", "x"),
        ("CD1", "CD1", "x"),
        ("Abcd 1", "Abcd 1", "x"),
        ("Vol. 2", "Vol. 2", "x"),
    ],
)
def test_discs_belong_to_their_album(folder, album, song, tmp_path):
    touch(tmp_path / "a" / folder / "x.mp3")
    (found,) = catalogue.load(tmp_path)
    assert (found.album, found.song) == (album, song)


def test_forms_of_a_name_are_one_name(tmp_path):
    composed, decomposed = "Bj\N{LATIN SMALL LETTER O WITH DIAERESIS}rk", "Bjo\u0308rk"
    touch(tmp_path / composed / "a" / "x.mp3")
    touch(tmp_path / decomposed / "a" / "x.mp3")
    touch(tmp_path / f" {composed}\N{NO-BREAK SPACE}" / "b  c" / "y.mp3")
    songs = catalogue.load(tmp_path)
    assert {s.artist for s in songs} == {composed}
    names = [(s.album, s.song) for s in songs]
    assert names == [("a", "x (1)"), ("a", "x (2)"), ("b c", "y")]
    assert all(s.path.exists() for s in songs)


def test_names_of_any_bytes(tmp_path):
    name = os.fsdecode("Bj\xf6rk".encode("latin-1"))
    touch(tmp_path / name / "a\nb" / f"{name}.mp3")
    (song,) = catalogue.load(tmp_path)
    assert (song.artist, song.album, song.song) == ("Bj\xf6rk", "a b", "Bj\xf6rk")
    assert song.path.exists()


def test_links_are_followed_once(tmp_path):
    touch(tmp_path / "elsewhere" / "b" / "c.wav")
    root = tmp_path / "music"
    root.mkdir()
    (root / "artist").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "b" / "loop").symlink_to(root)
    (tmp_path / "elsewhere" / "b" / "gone.mp3").symlink_to("nowhere")
    assert [s.song for s in catalogue.load(root)] == ["c", "gone"]


def test_folders_that_cannot_be_read(tmp_path, monkeypatch):
    touch(tmp_path / "a" / "b" / "c.wav")
    touch(tmp_path / "a" / "x" / "d.wav")
    scandir = os.scandir

    def forbidden(path):
        if os.fspath(path).endswith("x"):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", forbidden)
    reasons = {}
    assert len(catalogue.load(tmp_path, left_out=reasons)) == 1
    assert reasons == {str(tmp_path / "a/x"): "cannot be read: Permission denied"}


def tagged(path, **tags):
    """A short recording with tags."""
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.stack([music(44100, 1)] * 2, axis=1)
    if path.suffix == ".m4a":
        encode(path, samples, 44100, "m4a")
    else:
        soundfile.write(path, samples, 44100)
    file = mutagen.File(path, easy=True)
    file.update(tags)
    file.save()


def test_names_from_tags(tmp_path):
    tagged(
        tmp_path / "x.m4a", artist="A feat. B", albumartist="A", album="1", title="t"
    )
    tagged(tmp_path / "deep/er/y.mp3", artist="C", album="2 (Disc 1)")
    tagged(tmp_path / "z.flac", artist="D", albumartist="Various Artists", album="3")
    tagged(tmp_path / "q.ogg", artist="E")
    touch(tmp_path / "a/b/broken.mp3")
    reasons = {}
    songs = catalogue.load(tmp_path, tags=True, left_out=reasons)
    names = [(s.artist, s.album, s.song) for s in songs]
    assert names == [("A", "1", "t"), ("C", "2", "Disc 1 y"), ("D", "3", "z")]
    assert reasons.pop(str(tmp_path / "q.ogg")) == "its tags name no album"
    assert "tags" in reasons.pop(str(tmp_path / "a/b/broken.mp3"))
    assert reasons == {}


def test_same_stem_twice_gives_two_songs(tmp_path):
    touch(tmp_path / "a" / "b" / "c.wav")
    touch(tmp_path / "a" / "b" / "c.mp3")
    songs = catalogue.load(tmp_path)
    assert [song.song for song in songs] == ["c.mp3", "c.wav"]
    assert len({song.key for song in songs}) == 2


def test_keys_tell_names_apart_that_join_alike():
    songs = [
        catalogue.Song("a", "b/c", "d", None),
        catalogue.Song("a/b", "c", "d", None),
        catalogue.Song("a", "b", "c/d", None),
    ]
    assert len({song.key for song in songs}) == 3


def test_manifest_equals_the_tree(tiny_corpus):
    reasons = {}
    tree = catalogue.load(tiny_corpus, left_out=reasons)
    manifest = catalogue.load(tiny_corpus / "manifest.csv")
    assert [(s.key, s.path) for s in tree] == [(s.key, s.path) for s in manifest]
    assert len(reasons) == 2 * len(tree)  # The stems.
    assert {path.split(os.sep)[-5] for path in reasons} == {"stems"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,artist,album\nx.wav,a,b\n", r"columns \['song'\] are missing"),
        ("path,artist,album,song\nx.wav,a,b,\n", "line 2: empty field"),
        ("path,artist,album,song\nx.wav,a\n", "line 2: too few fields"),
        ("path,artist,album,song\n../x.wav,a,b,c\n", r"\.\./x.wav lies outside"),
        ("path,artist,album,song\n/etc/x.wav,a,b,c\n", "lies outside"),
        (
            "path,artist,album,song\nx.wav,a,b,c\ny.wav,a,b,c\n",
            r"line 3: a / b / c is in line 2 already",
        ),
        ("path,artist,album,song\n", "lists no songs"),
        (
            "path,artist,album,song\nx.wav,Tyler, The Creator,Igor,Earfquake\n",
            r"line 2: 5 fields, the header has 4. Put names that hold ',' into quotes",
        ),
        (
            'path,artist,album,song\nx.wav,"a,b,c\ny.wav,a,b,d\nz.wav,"a",b,e\n',
            "line 2: .*Is a quote open",
        ),
        ('path,artist,album,song\nx.wav,"a,b,c\n', "line 2: .*Is a quote open"),
        ("path,artist,album,song\n\n\nx.wav,a,b\n", "line 4: too few fields"),
        ("path,artist,artist,album,song\n", "a column twice"),
        ("path,artist,album,song\nC:\\x.wav,a,b,c\n", "a path of Windows' drives"),
        (
            "path,artist,album,song,vocals_path\nx.wav,a,b,c,../v.wav\n",
            r"line 2: \.\./v.wav lies outside",
        ),
    ],
)
def test_manifest_errors_name_the_line(text, message, tmp_path):
    path = tmp_path / "list.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        catalogue.load(path)


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("path,artist,album,song\r\na\\x.wav,\xe9,b,c\r\n", "utf-8-sig"),
        ("path;artist;album;song\na/x.wav;\xe9;b;c\n", "utf-8"),
        ("path\tartist\talbum\tsong\na/x.wav\te\u0301\tb\tc\n", "utf-16"),
        (' path , artist,album,song \na/x.wav," \xe9",b ,c\n\n', "utf-8"),
    ],
)
def test_manifests_of_other_programs(text, encoding, tmp_path):
    touch(tmp_path / "a" / "x.wav")
    path = tmp_path / "list.csv"
    path.write_bytes(text.encode(encoding))
    (song,) = catalogue.load(path)
    assert (song.artist, song.album, song.song) == ("\xe9", "b", "c")
    assert song.path == tmp_path / "a" / "x.wav"


def test_manifests_of_other_encodings(tmp_path):
    path = tmp_path / "list.csv"
    path.write_bytes("path,artist,album,song\nx,\xe9,b,c\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"line 2: cannot be read .*Save it as UTF-8"):
        catalogue.load(path)


def test_paths_may_be_elsewhere(tmp_path):
    music, lists = tmp_path / "music", tmp_path / "lists"
    touch(music / "x.wav")
    touch(tmp_path / "y.wav")
    lists.mkdir()
    (lists / "linked.wav").symlink_to(music / "x.wav")
    path = lists / "list.csv"
    path.write_text(
        f"path,artist,album,song\nx.wav,a,b,1\n{tmp_path / 'y.wav'},a,b,2\n"
    )
    with pytest.raises(UserError, match="line 3: .* unless --data-root says"):
        catalogue.load(path)
    songs = catalogue.load(path, root=music)
    assert [s.path for s in songs] == [music / "x.wav", tmp_path / "y.wav"]
    path.write_text("path,artist,album,song\nlinked.wav,a,b,1\n")
    assert catalogue.load(path)[0].path.samefile(music / "x.wav")
    with pytest.raises(UserError, match="no such folder"):
        catalogue.load(path, root=tmp_path / "nowhere")
    with pytest.raises(UserError, match="is for a manifest"):
        catalogue.load(music, root=music)
    with pytest.raises(UserError, match="is for a folder"):
        catalogue.load(path, tags=True)


def test_split_files_know_forms_of_names(tmp_path):
    songs = [catalogue.Song("\xe9", "b", "c", None)]
    path = tmp_path / "split.csv"
    path.write_text("artist;album;song;part\ne\u0301;b;c ;test\n", encoding="utf-8")
    assert split.read_split(path, songs) == {songs[0].key: "test"}
    with open(path, "a", encoding="utf-8") as file:
        file.write("\xe9;b;c;train\n")
    with pytest.raises(UserError, match="line 3: . / b / c is in line 2 already"):
        split.read_split(path, songs)


def test_vocals_are_optional_song_by_song(tmp_path):
    path = tmp_path / "list.csv"
    path.write_text(
        "path,artist,album,song,vocals_path\nx.wav,a,b,c,v.wav\ny.wav,a,b,d,\n"
    )
    first, second = catalogue.load(path)
    assert first.vocals_path == tmp_path.resolve() / "v.wav"
    assert second.vocals_path is None


def test_missing_and_empty_folders(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        catalogue.load(tmp_path / "nowhere")
    with pytest.raises(UserError, match="Expected audio files .* as artist/album/song"):
        catalogue.load(tmp_path)
    touch(tmp_path / "loose.mp3")
    with pytest.raises(UserError, match="loose.mp3: in no folder of an album"):
        catalogue.load(tmp_path)
    (tmp_path / "x.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="cannot be read as CSV"):
        catalogue.load(tmp_path / "x.csv")


def test_tagged_files_in_other_folders_are_told_of_tags(tmp_path):
    for number in range(7):
        path = tmp_path / f"{number}.flac"
        soundfile.write(path, np.zeros(1600), 16000)
        tags = mutagen.File(path, easy=True)
        tags.update({"artist": "A", "album": "B", "title": f"{number}"})
        tags.save()
    deep = tmp_path / "a" / "b" / "c" / "d"
    deep.mkdir(parents=True)
    (deep / "x.mp3").write_bytes(b"x")
    with pytest.raises(UserError) as raised:
        catalogue.load(tmp_path)
    first, *reasons = str(raised.value).splitlines()
    assert "These files have tags: add --tags." in first
    assert len(reasons) == 2
    assert sum("too deep" in reason for reason in reasons) == 1
    assert sum("in no folder of an album" in r and "(and 6 more)" in r for r in reasons)
    assert len(catalogue.load(tmp_path, tags=True)) == 7
