import collections
import pathlib

import numpy as np
import pytest

from lca_keras.base.errors import UserError
from lca_keras.base.sections import SplitConfig
from lca_keras.data import split
from lca_keras.data.catalogue import Song


def corpus(artists=4, albums=4, songs=5):
    return [
        Song(f"artist {a}", f"album {b}", f"song {c}", pathlib.Path(f"{a}{b}{c}"))
        for a in range(artists)
        for b in range(albums)
        for c in range(songs)
    ]


def hashes(songs):
    return {song.key: str(song.path) for song in songs}


def test_album_split_gives_each_part_whole_albums_of_each_artist():
    songs = corpus()
    part_of = split.split_songs(songs, SplitConfig(), seed=0)
    albums = collections.defaultdict(set)
    for song in songs:
        albums[song.artist, song.album].add(part_of[song.key])
    counts = collections.Counter(
        (artist, *parts) for (artist, _), parts in albums.items()
    )
    for artist in {song.artist for song in songs}:
        assert counts[artist, "train"] == 2
        assert counts[artist, "validation"] == counts[artist, "test"] == 1
    split.check_split(songs, part_of, hashes(songs), "album")


def test_song_split_is_stratified_80_10_10():
    songs = corpus(songs=10)
    part_of = split.split_songs(songs, SplitConfig(kind="song"), seed=0)
    for artist in {song.artist for song in songs}:
        parts = [part_of[song.key] for song in songs if song.artist == artist]
        assert collections.Counter(parts) == {"train": 32, "validation": 4, "test": 4}


def test_seeds_keep_their_splits():
    """Straight from the description of 0.1.0: the first two drawn, or tenths."""
    songs = corpus(artists=3, albums=5, songs=7)
    rng = np.random.default_rng(4)
    expected = {}
    for artist in range(3):
        drawn = [f"album {n}" for n in rng.permutation(5)]
        expected[f"artist {artist}"] = drawn[:2]
    part_of = split.split_songs(songs, SplitConfig(), seed=4)
    for song in songs:
        test, validation = expected[song.artist]
        parts = {test: "test", validation: "validation"}
        assert part_of[song.key] == parts.get(song.album, "train")
    rng = np.random.default_rng(4)
    part_of = split.split_songs(songs, SplitConfig(kind="song"), seed=4)
    for artist in range(3):
        mine = [song for song in songs if song.artist == f"artist {artist}"]
        drawn = [mine[n] for n in rng.permutation(35)]
        held_out = [song.key for song in drawn[:8]]  # A tenth of 35 is 4.
        parts = [part_of[key] for key in held_out]
        assert parts == ["test"] * 4 + ["validation"] * 4
        assert {part_of[s.key] for s in drawn[8:]} == {"train"}


@pytest.mark.parametrize(
    ("albums", "shares", "expected"),
    [
        (10, (0.2, 0.3), (5, 2, 3)),
        (10, (None, 0.3), (6, 1, 3)),
        (3, (0.4, 0.5), (1, 1, 1)),
        (4, (0.45, 0.45), (1, 1, 2)),
        (5, (0.01, 0.9), (1, 1, 3)),
    ],
)
def test_shares_of_albums(albums, shares, expected):
    songs = corpus(artists=2, albums=albums, songs=2)
    config = SplitConfig(validation_share=shares[0], test_share=shares[1])
    part_of = split.split_songs(songs, config, seed=0)
    split.check_split(songs, part_of, hashes(songs), "album")
    for artist in ("artist 0", "artist 1"):
        parts = [part_of[song.key] for song in songs if song.artist == artist]
        found = tuple(parts.count(part) // 2 for part in split.PARTS)
        assert found == expected


@pytest.mark.parametrize("kind", ["album", "song"])
def test_folds_hold_everything_out_once(kind):
    songs = [*corpus(albums=7), *corpus(1, 3, 1)]
    songs = list({song.key: song for song in songs}.values())
    tested, validated = collections.Counter(), collections.Counter()
    for fold in range(1, 6):
        config = SplitConfig(kind=kind, folds=5, fold=fold)
        part_of = split.split_songs(songs, config, seed=3)
        split.check_split(songs, part_of, hashes(songs), kind)
        for key, part in part_of.items():
            tested[key] += part == "test"
            validated[key] += part == "validation"
    assert set(tested.values()) == set(validated.values()) == {1}


def test_depends_on_seed_and_names_only():
    songs = corpus()
    first = split.split_songs(songs, SplitConfig(), seed=1)
    assert split.split_songs(songs[::-1], SplitConfig(), seed=1) == first
    assert any(split.split_songs(songs, SplitConfig(), s) != first for s in (2, 3, 4))


def test_few_albums_are_named():
    songs = [*corpus(), *corpus(1, 2)[:3], Song("Solo", "Debut", "x", None)]
    with pytest.raises(UserError, match=r"Solo \(1\).*--split song"):
        split.split_songs(songs, SplitConfig(), seed=0)
    with pytest.raises(UserError, match="Only one artist"):
        split.split_songs(corpus(1), SplitConfig(), seed=0)


def test_file_round_trip(tmp_path):
    songs = corpus()
    part_of = split.split_songs(songs, SplitConfig(), seed=0)
    split.write_split(tmp_path / "s.csv", songs, part_of)
    assert split.read_split(tmp_path / "s.csv", songs) == part_of
    # Songs that could not be read are in the file and not in the corpus.
    fewer = songs[1:]
    assert len(split.read_split(tmp_path / "s.csv", fewer)) == len(fewer)
    more = [*songs, Song("new", "new", "new", None)]
    with pytest.raises(UserError, match="no part for 1 songs.*new / new / new"):
        split.read_split(tmp_path / "s.csv", more)


def test_file_with_an_unknown_part(tmp_path):
    path = tmp_path / "s.csv"
    path.write_text("artist,album,song,part\nartist 0,album 0,song 0,tset\n")
    with pytest.raises(UserError, match="line 2: part must be one of.*'tset'"):
        split.read_split(path, corpus())


def test_leaks_are_errors():
    songs = corpus()
    part_of = split.split_songs(songs, SplitConfig(), seed=0)
    train = next(s for s in songs if part_of[s.key] == "train")
    test = next(s for s in songs if part_of[s.key] == "test")
    moved = {**part_of, train.key: "test"}
    with pytest.raises(UserError, match="the album is in the parts test and train"):
        split.check_split(songs, moved, hashes(songs), "album")
    copied = {**hashes(songs), train.key: "same", test.key: "same"}
    with pytest.raises(UserError, match="the same recording is in the parts"):
        split.check_split(songs, part_of, copied, "album")


def test_artists_without_training_songs_and_empty_parts_are_errors():
    songs = corpus()
    part_of = split.split_songs(songs, SplitConfig(), seed=0)
    moved = {s.key: "test" if s.artist == "artist 2" else part_of[s.key] for s in songs}
    with pytest.raises(UserError, match="No training song of artist 2"):
        split.check_split(songs, moved, hashes(songs), "album")
    with pytest.raises(UserError, match="no validation songs"):
        split.check_split(songs, dict.fromkeys(part_of, "train"), hashes(songs), "song")
