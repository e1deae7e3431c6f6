import pytest

from lca_keras.data import catalogue
from lca_keras.errors import UserError

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


def test_only_songs_count(tmp_path):
    touch(tmp_path / "a" / "b" / "c.wav")
    for other in (
        "cover.jpg",
        "a/readme.txt",
        "a/loose.wav",
        "a/b/._c.wav",
        "a/b/notes.txt",
        "a/b/cd1/deep.wav",
        ".trash/b/c.wav",
    ):
        touch(tmp_path / other)
    assert [song.song for song in catalogue.load(tmp_path)] == ["c"]


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
    tree = catalogue.load(tiny_corpus)
    manifest = catalogue.load(tiny_corpus / "manifest.csv")
    assert [s.key for s in tree] == [s.key for s in manifest]
    assert [s.path.resolve() for s in tree] == [s.path for s in manifest]


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
    with pytest.raises(UserError, match="Expected audio files as artist/album/song"):
        catalogue.load(tmp_path)
    (tmp_path / "x.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="cannot be read as CSV"):
        catalogue.load(tmp_path / "x.csv")
