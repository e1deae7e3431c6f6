"""Pushing to object stores, through TensorFlow's file systems (`gs://` and others).

Such a store renames nothing at once. So the files come one by one, those that a server
looks for first come last: it takes a folder without `saved_model.pb` for no version.
"""

import pathlib

from lca_keras.base.errors import UserError
from lca_keras.exports import integrity

_LAST = "saved_model.pb"


def is_remote(place):
    """Whether a place is of an object store."""
    return "://" in str(place)


def push(source, place):
    """Copies an export to the next version of a model in an object store.

    Two processes must not push one model there at the same time: nothing in such a
    store could keep them apart.

    Args:
        source: Folder of a version on this machine.
        place: Address of the model, such as `gs://bucket/models/name`.

    Returns:
        Address of the version.

    Raises:
        UserError: The source was changed, or the store refuses.
    """
    import tensorflow as tf

    integrity.check(source)
    source, place = pathlib.Path(source), str(place).rstrip("/")
    names = [p.relative_to(source).as_posix() for p in source.rglob("*") if p.is_file()]
    names.sort(key=lambda name: (name == _LAST, name))
    try:
        taken = versions(place)
        target = f"{place}/{max(taken, default=0) + 1}"
        for name in names:
            copy = f"{target}/{name}"
            tf.io.gfile.makedirs(copy.rpartition("/")[0])
            tf.io.gfile.copy(str(source / name), copy, overwrite=True)
    except tf.errors.OpError as error:
        raise UserError(f"{place}: cannot be pushed to ({error.message})") from error
    return target


def versions(place):
    """Version numbers of a model in an object store, ascending."""
    import tensorflow as tf

    if not tf.io.gfile.isdir(place):
        return []
    names = (name.strip("/") for name in tf.io.gfile.listdir(place))
    return sorted(int(name) for name in names if name.isdecimal())
